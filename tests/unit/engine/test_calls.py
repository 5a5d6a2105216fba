"""Calls, and the forms in which their answers are written."""

from __future__ import annotations

import pytest

from serving.engine.calls import run_call
from serving.engine.interface import Engine, Reply, Tally
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
