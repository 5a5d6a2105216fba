"""Calls, and the forms in which their answers are written."""

from __future__ import annotations

import json
from typing import Any

import pytest

from serving.engine.calls import run_call
from serving.engine.interface import Engine, Reply, Tally
from serving.errors import InvalidRequest
from serving.wire.messages import JSON_HEAD, SSE_HEAD, UNMARKED, Head, HttpCall
from tests.unit.engine.test_completion_writer import Paper

DONE = b"data: [DONE]\n\n"
# A text that says the mark, and the mark in one piece with the last event.
SAYS_IT = b'data: {"choices": [{"text": "data: [DONE]\\n\\n"}]}\n\n'


class App:
    """The HTTP side of an engine that says what it was told to."""

    def __init__(self, head: Head, *parts: bytes) -> None:
        self.head = head
        self.parts = parts

    async def http(self, call: HttpCall, body: bytes, reply: Reply, tally: Tally) -> None:
        reply.head(self.head)
        for part in self.parts:
            reply.data(part)


async def run(call: HttpCall, head: Head, *parts: bytes) -> Paper:
    paper = Paper()
    engine: Engine = App(head, *parts)  # type: ignore[assignment]
    await run_call(engine, call, b"{}", paper, Tally())
    assert paper.heads == [head]
    return paper


def call(form: str) -> HttpCall:
    return HttpCall("r", "m", "POST", "/v1/completions", form=form)


@pytest.mark.parametrize("parts", [(SAYS_IT, DONE), (SAYS_IT + DONE,), (SAYS_IT,)])
async def test_a_stream_without_its_end_mark(parts: tuple[bytes, ...]) -> None:
    assert (await run(call(UNMARKED), SSE_HEAD, *parts)).parts == [SAYS_IT]


async def test_an_openai_answer_stays_as_it_is() -> None:
    assert (await run(call(""), SSE_HEAD, SAYS_IT, DONE)).parts == [SAYS_IT, DONE]
    whole = b'{"choices": []}'
    for form in ("", UNMARKED):
        assert (await run(call(form), JSON_HEAD, whole)).parts == [whole]


async def test_a_form_of_a_newer_router_is_not_guessed() -> None:
    with pytest.raises(ValueError, match="no such form"):
        await run(call("next year's"), JSON_HEAD, b"{}")


def event(text: str, reason: str | None = None, **more: Any) -> bytes:
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": reason}
    return b"data: " + json.dumps({"choices": [choice], **more}).encode() + b"\n\n"


USED = {"prompt_tokens": 2, "completion_tokens": 1}
LAST = b"data: " + json.dumps({"choices": [], "usage": USED}).encode() + b"\n\n"
FORMS = ("v4-chat", "llm-engine", "model")


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("size", [1, 7, 10_000])
async def test_a_form_does_not_depend_on_how_events_come(form: str, size: int) -> None:
    stream = b": ping\n\n" + event("") + event("Caf\u00e9") + event("!", "stop") + LAST + DONE
    parts = [stream[start : start + size] for start in range(0, len(stream), size)]
    paper = await run(call(form), SSE_HEAD, *parts)
    (whole,) = (await run(call(form), SSE_HEAD, stream)).parts
    written = b"".join(paper.parts)
    assert written == whole
    assert b"[DONE]" not in written
    assert written.count(b"data: ") == written.count(b"\n\n") == 3
    assert b'"Caf\\u00e9"' in written


@pytest.mark.parametrize("form", FORMS)
async def test_a_whole_answer_in_pieces(form: str) -> None:
    message = {"role": "assistant", "content": None, "refusal": "No."}
    choice = {"index": 0, "message": message, "finish_reason": None}
    answer = json.dumps({"choices": [choice], "usage": USED}).encode()
    paper = Paper()
    engine: Engine = App(JSON_HEAD, answer[:9], answer[9:])  # type: ignore[assignment]
    body = b'{"messages": [{"role": "user", "content": "Hi"}]}'
    await run_call(engine, call(form), body, paper, Tally())
    (said,) = paper.parts
    assert b"No." in said
    json.loads(said)


async def test_an_answer_without_usage_says_so() -> None:
    """A provider may not tell what an answer used."""
    parts = (await run(call("llm-engine"), SSE_HEAD, event("a", "stop"), DONE)).parts
    last = json.loads(parts[-1].removeprefix(b"data: "))["output"]
    assert (last["finished"], last["num_completion_tokens"]) == (True, None)


class Refusing(App):
    def __init__(self, message: str, param: str | None) -> None:
        self.error = InvalidRequest(message, param=param)

    async def http(self, call: HttpCall, body: bytes, reply: Reply, tally: Tally) -> None:
        raise self.error


@pytest.mark.parametrize(
    ("form", "param", "message", "said"),
    [
        ("llm-engine", "max_tokens", "max_tokens=9 is too many", "max_new_tokens=9 is too many"),
        ("llm-engine", "stop", "'stop': must not stop", "'stop_sequences': must not stop"),
        ("v4-chat", "max_tokens", "max_tokens=9", "model_parameters.max_tokens=9"),
        ("model", "model_parameters.top_k", "has no 'top_k'", "has no 'top_k'"),
        ("llm-engine", "prompt", "'prompt' and max_tokens", "'prompt' and max_tokens"),
        ("llm-engine", None, "max_tokens", "max_tokens"),
    ],
)
async def test_a_refusal_names_the_caller_s_own_field(
    form: str, param: str | None, message: str, said: str
) -> None:
    engine: Engine = Refusing(message, param)  # type: ignore[assignment]
    with pytest.raises(InvalidRequest) as refused:
        await run_call(engine, call(form), b"{}", Paper(), Tally())
    assert refused.value.message == said
    names = {"max_tokens": "max_new_tokens", "stop": "stop_sequences"}
    if form == "llm-engine":
        assert refused.value.param == names.get(param or "", param)
