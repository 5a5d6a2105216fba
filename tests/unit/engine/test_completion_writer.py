from __future__ import annotations

import json
from typing import Any

import pytest

from serving.engine.completion_writer import run_completion
from serving.engine.interface import Chunk, Drained, Emit, Tally
from serving.errors import EngineFailed
from serving.wire.messages import CompletionCall, End, Head, Sampling


class Scripted:
    """An engine that says what it was told to."""

    def __init__(self, *steps: Chunk | Exception) -> None:
        self.steps = steps

    async def generate_paced(
        self, call: CompletionCall, emit: Emit, drained: Drained, tally: Tally
    ) -> None:
        tally.prompt_tokens, tally.queue_s = 3, 0.5
        for step in self.steps:
            if isinstance(step, Exception):
                raise step
            tally.completion_tokens += 1
            emit(step)


class Paper:
    """Keeps what was written; `blocked` is how often it says that nobody reads."""

    def __init__(self, blocked: int = 0) -> None:
        self.heads: list[Head] = []
        self.parts: list[bytes] = []
        self.blocked = blocked

    @property
    def writable(self) -> bool:
        self.blocked -= 1
        return self.blocked < 0

    async def drained(self) -> None:
        pass

    def head(self, head: Head) -> None:
        self.heads.append(head)

    def data(self, data: bytes) -> None:
        assert self.heads, "data before a head"
        self.parts.append(data)

    @property
    def events(self) -> list[Any]:
        return [json.loads(part.removeprefix(b"data: ")) for part in self.parts]


STEPS = (Chunk(""), Chunk("Hel"), Chunk("lo", "stop"))
END = End("stop", 3, 3, 0.5)


async def run(engine: Scripted, call: CompletionCall, paper: Paper) -> End:
    tally = Tally()
    await run_completion(engine, call, paper, tally)  # type: ignore[arg-type]
    return tally.end()


def call(*, stream: bool) -> CompletionCall:
    return CompletionCall("r1", "alias", "prompt", stream, Sampling(), "model")


async def test_streamed() -> None:
    paper = Paper()
    end = await run(Scripted(*STEPS), call(stream=True), paper)
    assert end == END
    assert [head.status for head in paper.heads] == [200]
    assert dict(paper.heads[0].headers)["content-type"].startswith("text/event-stream")
    texts = [event["completion"]["text"] for event in paper.events]
    assert texts == ["Hel", "lo"]
    *middle, last = paper.events
    assert all(event["token_usage"] is None for event in middle)
    assert last["completion"]["finish_reason"] == "stop"
    assert last["completion"]["response_metadata"] == {"model": "model"}
    assert last["token_usage"] == {"prompt": 3, "completion": 3, "total": 6}


async def test_whole() -> None:
    paper = Paper()
    end = await run(Scripted(*STEPS), call(stream=False), paper)
    assert end == END
    assert dict(paper.heads[0].headers)["content-type"] == "application/json"
    assert len(paper.parts) == 1
    assert json.loads(paper.parts[0])["completion"]["text"] == "Hello"


async def test_an_empty_completion_still_has_its_last_event() -> None:
    paper = Paper()
    await run(Scripted(Chunk("", "stop")), call(stream=True), paper)
    assert [event["completion"]["finish_reason"] for event in paper.events] == ["stop"]


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("steps", [(), STEPS[:2]])
async def test_an_engine_that_stops_early_is_an_error(
    stream: bool, steps: tuple[Chunk, ...]
) -> None:
    paper = Paper()
    with pytest.raises(EngineFailed):
        await run(Scripted(*steps), call(stream=stream), paper)
    assert all(event["completion"]["finish_reason"] is None for event in paper.events)


async def test_nothing_is_written_when_the_engine_fails_at_once() -> None:
    paper = Paper()
    with pytest.raises(EngineFailed):
        await run(Scripted(EngineFailed("x")), call(stream=True), paper)
    assert not paper.heads


@pytest.mark.parametrize(
    ("blocked", "texts"),
    [(0, ["a", "b", "c", "d"]), (1, ["ab", "c", "d"]), (2, ["abc", "d"]), (9, ["abcd"])],
)
async def test_what_nobody_reads_becomes_one_event(blocked: int, texts: list[str]) -> None:
    steps = [Chunk(text) for text in "abc"]
    paper = Paper(blocked)
    engine = Scripted(*steps, Chunk("d", "length"))
    end = await run(engine, call(stream=True), paper)
    assert [event["completion"]["text"] for event in paper.events] == texts
    assert end.completion_tokens == 4
