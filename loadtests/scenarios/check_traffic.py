"""What the fields of one traffic must be to each other, and the files that it names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from string import Formatter
from typing import Any

from loadtests.load.draw import numbers_of
from loadtests.load.planned import READERS
from loadtests.load.prompts import lines_of
from loadtests.load.vocabulary import vocabulary_of
from loadtests.scenarios.distributions import Distribution, Drawn, Fixed, Lognormal, Uniform
from loadtests.scenarios.errors import ScenarioError
from loadtests.scenarios.source import Path
from loadtests.scenarios.traffic import Traffic, Zipf

Problem = tuple[Path, str]
# What the program writes into a body itself, by the field that says it here.
OWN_FIELDS = {
    "model": "models",
    "prompt": "prompt",
    "messages": "prompt",
    "images": "images",
    "stream": "stream",
    "max_tokens": "output",
    "ignore_eos": "ignore_eos",
    "priority": "priority",
}


def check_traffic(path: Path, traffic: Traffic) -> Iterator[Problem]:
    if bool(traffic.models) == (traffic.custom_ids is not None):
        yield (
            path,
            "needs either `models` or `custom_ids`; write `models: {ID: 1}`"
            if not traffic.models
            else "has `models` and `custom_ids`; give each a traffic of its own, with weights",
        )
    if traffic.custom_ids is not None:
        yield from _custom_ids((*path, "custom_ids"), traffic.custom_ids)
    for where, message in unique("accounts", [each.name for each in traffic.accounts]):
        yield (*path, *where), message
    yield from _fields(path, traffic)
    for inner, given in _distributions(traffic):
        yield from _distribution((*path, *inner), given)
    prompt = traffic.prompt
    if prompt.file is not None:
        file = prompt.file
        yield from usable((*path, "prompt", "file"), lambda: lines_of(file))
        for field in ("tokens", "tokenizer"):
            if field in prompt.model_fields_set:
                yield (*path, "prompt", field), "means nothing beside `file`; leave one out"
    elif prompt.tokenizer is not None:
        tokenizer = prompt.tokenizer
        yield from usable((*path, "prompt", "tokenizer"), lambda: vocabulary_of(tokenizer))


def _fields(path: Path, traffic: Traffic) -> Iterator[Problem]:
    """Yield what does not go with the endpoint, or with a whole answer."""
    if traffic.images is not None and traffic.endpoint == "completions":
        yield (*path, "images"), "/v1/completions takes none; write `endpoint: chat`"
    vllms = {"ignore_eos": traffic.ignore_eos, "priority": traffic.priority is not None}
    if traffic.endpoint in READERS:
        yield from _reads(path, traffic)
    elif traffic.endpoint == "create_completion":
        for field in (field for field, has in vllms.items() if has):
            yield (
                (*path, field),
                "Create Completion has no such field; write `endpoint: completions` or `chat`",
            )
    cancel = traffic.cancel
    if cancel is not None:
        if cancel.after_tokens is None and cancel.after_s is None:
            yield (*path, "cancel"), "does not say when; write `after_tokens:` or `after_s:`"
        if cancel.after_tokens is not None and not traffic.stream:
            yield (
                (*path, "cancel", "after_tokens"),
                "a whole answer has no tokens to count; write `stream: true`, or `after_s`",
            )
    if not traffic.stream:
        for name in ("ttft_ms", "tpot_ms"):
            if getattr(traffic.slo, name) is not None:
                yield (
                    (*path, "slo", name),
                    "a whole answer has none; write `stream: true`, or `e2e_ms`",
                )
    bodies: list[tuple[Path, dict[str, Any]]] = [((), traffic.body)]
    if isinstance(inner := traffic.body.get("model_parameters"), dict):
        bodies.append((("model_parameters",), inner))
    for inside, body in bodies:
        for name in body.keys() & OWN_FIELDS.keys():
            yield (
                (*path, "body", *inside, name),
                f"is written by the program; say it by `{OWN_FIELDS[name]}` of the traffic",
            )


def _reads(path: Path, traffic: Traffic) -> Iterator[Problem]:
    """Yield what asks for a text where none is written."""
    where = f"/v1/{traffic.endpoint}"
    if traffic.stream:
        yield (*path, "stream"), f"{where} streams nothing; write `stream: false`"
    for field in ("images", "session", "ignore_eos", "priority", "output"):
        if field in traffic.model_fields_set:
            yield (*path, field), f"{where} writes no text and takes no such field; leave it out"
    if traffic.endpoint == "rerank" and "documents" not in traffic.body:
        yield (*path, "body"), "/v1/rerank compares with `documents`; write a list of texts"


def _custom_ids(path: Path, ids: Zipf) -> Iterator[Problem]:
    given = [name for name in ("pattern", "ids", "file") if getattr(ids, name)]
    if len(given) != 1:
        yield path, "needs one of `pattern` (with `count`), `ids` and `file`"
    if ids.pattern is not None:
        if ids.count is None:
            yield (*path, "pattern"), "does not say how many; write `count:` beside it"
        try:
            fields = {field for _, field, _, _ in Formatter().parse(ids.pattern)} - {None}
            ids.pattern.format(n=0)
        except (ValueError, KeyError, IndexError):
            fields = set()
        if fields != {"n"}:
            yield (
                (*path, "pattern"),
                f"must have {{n}} in it and no other braces, as 'llama.{{n:05d}}', and is "
                f"{ids.pattern!r}",
            )
    elif ids.count is not None:
        yield (*path, "count"), "goes with `pattern` alone; leave it out"
    if ids.file is not None:
        file = ids.file
        yield from usable((*path, "file"), lambda: lines_of(file))


def _distributions(traffic: Traffic) -> Iterator[tuple[tuple[str, ...], Distribution]]:
    yield ("prompt", "tokens"), traffic.prompt.tokens
    yield ("output",), traffic.output
    if traffic.session is not None:
        yield ("session", "turns"), traffic.session.turns
        yield ("session", "think_s"), traffic.session.think_s
    if traffic.images is not None:
        yield ("images", "count"), traffic.images.count
    if traffic.cancel is not None:
        if traffic.cancel.after_tokens is not None:
            yield ("cancel", "after_tokens"), traffic.cancel.after_tokens
        if traffic.cancel.after_s is not None:
            yield ("cancel", "after_s"), traffic.cancel.after_s


def _distribution(path: Path, given: Distribution) -> Iterator[Problem]:
    whole = path[-1] not in ("think_s", "after_s")
    match given:
        case Fixed(value=value) if whole and (value < 1 or value != int(value)):
            yield path, f"must be a whole number of 1 or more, and is {value:g}"
        case Uniform(low=low, high=high):
            if low > high:
                yield (*path, "low"), f"is more than `high`: {low:g} and {high:g}"
            elif whole and int(high) < max(1, low):
                yield path, f"no whole number of 1 or more lies between {low:g} and {high:g}"
        case Lognormal(low=low, high=top) if top is not None and low > top:
            yield (*path, "low"), f"is more than `high`: {low:g} and {top:g}"
        case Drawn() as drawn:
            yield from usable((*path, "path"), lambda: numbers_of(drawn))


def usable(path: Path, read: Callable[[], object]) -> Iterator[Problem]:
    """Yield what a file's reader says about it."""
    try:
        read()
    except ScenarioError as error:
        yield path, str(error)


def unique(field: str, names: list[str]) -> Iterator[Problem]:
    """Yield the names that are given twice."""
    for name, count in Counter(names).items():
        if count > 1:
            last = len(names) - 1 - names[::-1].index(name)
            yield (field, last, "name"), f"{name!r} is the name of another one too; change it"
