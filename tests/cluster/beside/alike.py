"""What must be alike in two answers to the same request: all but what is listed here.

- `OWN` are the fields that are another in each answer, or each server's own.
- `model` is the ID that was asked for, on both sides.
- Numbers that a model computes may differ in their last digits.
- In a stream, how many tokens an event has depends on how fast it is read.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

from tests.cluster.beside.sides import STREAM, Answer, Served, Sides

# IDs and times; vLLM's fingerprint, which is of the arguments that it was started with; and what
# was in a cache, which is of the requests before.
OWN = frozenset(
    (
        *("id", "item_id", "call_id", "response_id", "request_id"),
        *("created", "created_at", "completed_at", "system_fingerprint"),
        *("cached_tokens", "cache_write_tokens", "cached_tokens_per_turn"),
    )
)
# The number of an event: events are joined here.
NUMBER = "sequence_number"
# What the pieces of a stream add to: texts, and what is said of each token.
PIECES = frozenset(
    (
        *("text", "content", "reasoning", "arguments", "delta", "partial_json", "thinking"),
        *("logprobs", "token_ids", "tokens", "token_logprobs", "top_logprobs", "text_offset"),
        *("prompt_token_ids", "prompt_logprobs"),
    )
)
# The last event that says it counts.
LAST = frozenset(("finish_reason", "stop_reason", "usage"))
ASKED = "the ID that was asked for"


def difference(ours: Answer, theirs: Answer, model: str, their_model: str) -> str:
    """Where two answers to a request differ first, and how; empty if they are alike."""
    for name, one, other in zip(("status", "media type"), ours, theirs, strict=False):
        if one != other:
            return f"{name}: {one!r} is not {other!r}: {ours.said!r} is not {theirs.said!r}"
    return _difference(comparable(ours.said, model), comparable(theirs.said, their_model), "")


def comparable(said: Any, model: str) -> Any:
    """An answer without what is its own; the pieces of a stream joined."""
    if isinstance(said, list) and said and isinstance(said[0], list):
        said = joined(said)
    return _shared(said, model)


def _shared(value: Any, model: str) -> Any:
    if isinstance(value, list):
        return [_shared(each, model) for each in value]
    if isinstance(value, dict):
        return {key: _field(key, each, model) for key, each in value.items() if key != NUMBER}
    return value


def _field(key: str, value: Any, model: str) -> Any:
    if key in OWN and value is not None:
        return "its own"
    return ASKED if key == "model" and value == model else _shared(value, model)


def joined(events: list[Any]) -> list[Any]:
    """Events by name, each with all that its neighbours of the same kind add to it. Events with
    several choices are one event for each choice, those of the first choice first."""
    found: list[Any] = []
    for name, event in sorted(_single(events), key=_choice):
        if found and (both := _together([found[-1][0], found[-1][1]], [name, event])) is not None:
            found[-1] = both
        else:
            found.append([name, event])
    return found


def _single(events: list[Any]) -> Iterator[list[Any]]:
    for name, event in events:
        choices = event.get("choices") if isinstance(event, dict) else None
        for choice in choices or [None]:
            yield [name, event if choice is None else {**event, "choices": [choice]}]


def _choice(named: list[Any]) -> float:
    event = named[1]
    if not isinstance(event, dict) or "choices" not in event:
        return math.inf
    return event["choices"][0]["index"] if event["choices"] else math.inf


def _together(one: list[Any], other: list[Any]) -> list[Any] | None:
    """Both events as one, or None if they are no two pieces of the same."""
    if one[0] != other[0] or not isinstance(one[1], dict) or not isinstance(other[1], dict):
        return None
    try:
        return [one[0], _sum(one[1], other[1], "")]
    except ValueError:
        return None


def _sum(one: Any, other: Any, key: str) -> Any:
    """
    Raises:
        ValueError: the two do not belong together.
    """
    if key in LAST:
        return one if other is None else other
    if isinstance(one, dict) and isinstance(other, dict):
        both = {}
        for name in (*one, *(name for name in other if name not in one)):
            if name in one and name in other:
                both[name] = _sum(one[name], other[name], name)
            else:
                both[name] = one.get(name, other.get(name))
        return both
    if key in (NUMBER, *OWN):
        return one
    if key in PIECES and isinstance(one, str) and isinstance(other, str):
        return one + other
    if key in PIECES and isinstance(one, list) and isinstance(other, list):
        return one + other
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        return [_sum(a, b, key) for a, b in zip(one, other, strict=True)]
    if key in PIECES and (one is None or other is None):
        return other if one is None else one
    if one != other:
        raise ValueError(key)
    return one


def _difference(one: Any, other: Any, at: str) -> str:
    if isinstance(one, dict) and isinstance(other, dict):
        if only := sorted(one.keys() ^ other.keys()):
            side = "ours" if only[0] in one else "theirs"
            return f"{at or 'answer'}: only {side} has {only[0]!r}"
        parts = [(f"{at}.{key}".lstrip("."), one[key], other[key]) for key in one]
    elif isinstance(one, list) and isinstance(other, list):
        if len(one) != len(other):
            return f"{at or 'answer'}: {one!r} is not {other!r}"
        parts = [(f"{at}[{n}]", a, b) for n, (a, b) in enumerate(zip(one, other, strict=True))]
    elif isinstance(one, float) and isinstance(other, float | int):
        near = math.isclose(one, other, rel_tol=1e-3, abs_tol=1e-4)
        return "" if near else f"{at}: {one!r} is not {other!r}"
    else:
        return "" if one == other else f"{at or 'answer'}: {one!r} is not {other!r}"
    return next(filter(None, (_difference(a, b, where) for where, a, b in parts)), "")


class Otherwise(NamedTuple):
    """How a request is refused that vLLM refuses in another way, or not at all: both statuses, and
    why. Where they are the same, the words differ."""

    ours: int
    theirs: int
    why: str


# Differences that several endpoints have.
UNKNOWN = Otherwise(404, 404, "the nearest IDs are named")
KIND = Otherwise(400, 400, "whether a field is a list, an object or one value is checked first")
ROUTED = Otherwise(422, 400, "the router reads `model` and `stream`")
NO_IMAGES = Otherwise(422, 400, "the router knows which models take images")
NO_TOOLS = Otherwise(400, 400, "the model's spec has no parser of tool calls, and says so")
# vLLM repeats what it was sent; a message of ours has an end.
MESSAGE = 1000


def assert_alike(
    sides: Sides,
    path: str,
    served: Served,
    body: dict[str, Any],
    theirs: dict[str, Any] | None = None,
) -> None:
    """Both answer, and alike. `theirs` are fields that only vLLM is sent."""
    ours, other = sides.ask(path, served, body, theirs)
    assert other.status == 200, other.said
    differs = difference(ours, other, served.ours, served.theirs)
    assert not differs, differs


def assert_refused(ours: Answer, theirs: Answer, otherwise: Otherwise | None = None) -> None:
    """Both refuse, with the same status and in the same words; or otherwise, as is said.

    vLLM has begun many a stream before it looks at the request, and tells the error in it or breaks
    it off; here each is refused before the first byte.
    """
    assert ours.media == "application/json", ours
    if theirs.media == STREAM and ours.status >= 400:
        return
    if otherwise is not None:
        assert (ours.status, theirs.status) == otherwise[:2], (ours.said, theirs.said)
        assert ours.status != theirs.status or refusal(ours) != refusal(theirs), (
            "it differs no more"
        )
        return
    assert ours.status == theirs.status >= 400, (ours.said, theirs.said)
    ours_says, theirs_says = refusal(ours), refusal(theirs)
    assert {name: theirs_says[name] for name in ours_says} == ours_says, theirs_says


def refusal(answer: Answer) -> dict[str, Any]:
    """What an error says. Its type, code and request ID are of OpenAI's and Anthropic's own kind
    with us, and names of Python's classes with vLLM; Anthropic's has no `param`."""
    error = answer.said.get("error", {"message": answer.said.get("detail")})
    said = {"message": str(error["message"])[:MESSAGE]}
    return said | ({"param": error["param"]} if "param" in error else {})
