"""Who gets a row when, on a model that only counts."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
import torch
from prometheus_client import CollectorRegistry

from serving.engine.fair_queue import FairQueue, Flow
from serving.engine.hf.batch import Batcher, Limits
from serving.engine.hf.request import BatchedRequest
from serving.engine.hf.rows import DecoderRows, Rows
from serving.engine.hf.sampling import Params
from serving.engine.hf.text import Detokenizer
from serving.engine.interface import Chunk, Tally
from serving.errors import EngineFailed, Overloaded
from serving.observability.engine_metrics import BatchMetrics


class Counting(Rows):
    """A row's next token is the number of tokens it has said; a prefill waits for the test."""

    def __init__(self) -> None:
        self.groups: list[list[int]] = []
        self.said: list[int] = []
        self.most = 0
        self.go = threading.Semaphore(0)

    def admit(self, prompts: Sequence[list[int]]) -> torch.Tensor:
        self.go.acquire()
        self.groups.append([len(prompt) for prompt in prompts])
        self.said += [0] * len(prompts)
        self.most = max(self.most, len(self.said))
        return self._logits(len(prompts))

    def decode(self, tokens: Sequence[int]) -> torch.Tensor:
        assert list(tokens) == self.said
        self.said = [count + 1 for count in self.said]
        return self._logits(len(self.said))

    def _logits(self, count: int) -> torch.Tensor:
        return torch.nn.functional.one_hot(torch.tensor(self.said[-count:]), 500).float()

    def keep(self, rows: Sequence[int]) -> None:
        self.said = [self.said[row] for row in rows]

    cells = staticmethod(DecoderRows.cells)

    def _caches(self) -> list[Any]:
        return []


class Bench:
    def __init__(self, limits: Limits) -> None:
        self.rows = Counting()
        metrics = BatchMetrics(CollectorRegistry())
        self.batcher = Batcher(self.rows, frozenset(), limits, metrics, FairQueue())
        self.tasks: list[asyncio.Task[None]] = []
        self.chunks: list[list[Chunk]] = []
        self.tallies: list[Tally] = []

    def ask(self, prompt_tokens: int, max_tokens: int = 3, owner: str = "") -> None:
        text = Detokenizer(lambda ids: " ".join(map(str, ids)), frozenset())
        chunks: list[Chunk] = []
        params = Params(max_tokens=max_tokens)
        tally = Tally()
        self.tallies.append(tally)
        request = BatchedRequest(
            [0] * prompt_tokens,
            params,
            text,
            chunks.append,
            tally,
            stream=True,
            flow=Flow(owner),
            weight=1.0,
        )
        self.chunks.append(chunks)
        self.tasks.append(asyncio.create_task(self.batcher.run(request)))

    async def finish(self) -> None:
        self.rows.go.release(100)
        await asyncio.gather(*self.tasks)


@pytest.fixture
async def bench(request: pytest.FixtureRequest) -> AsyncIterator[Bench]:
    made = Bench(Limits(**{**DEFAULTS, **request.param}))
    yield made
    made.rows.go.release(100)
    await made.batcher.close()


DEFAULTS = {"rows": 8, "waiting": 100, "prefill_tokens": 1000, "cells": 100_000}


async def queue(bench: Bench, lengths: list[int]) -> None:
    """Have all of them wait while a first prompt of one token is run."""
    bench.ask(1)
    await asyncio.sleep(0.05)
    assert bench.batcher.waiting == 0
    for length in lengths:
        bench.ask(length)
    await asyncio.sleep(0)
    assert bench.batcher.waiting == len(lengths)
    await bench.finish()


async def hold_first(bench: Bench) -> None:
    """Have a prompt of one token run, which takes until the test lets it end."""
    bench.ask(1)
    await asyncio.sleep(0.05)
    assert bench.batcher.waiting == 0


@pytest.mark.parametrize("bench", [{"rows": 2}], indirect=True)
async def test_an_account_that_asks_once_does_not_wait_for_another_s_flood(bench: Bench) -> None:
    await hold_first(bench)
    for _ in range(6):
        bench.ask(10, owner="flood")
    await asyncio.sleep(0)
    bench.ask(11, owner="other")
    await asyncio.sleep(0)
    await bench.finish()
    sizes = [size for group in bench.rows.groups for size in group]
    assert sizes.index(11) <= 2, "the first of the flood may be before it"


@pytest.mark.parametrize("bench", [{"rows": 1, "waiting": 4}], indirect=True)
async def test_a_full_queue_puts_out_who_has_most_in_it(bench: Bench) -> None:
    await hold_first(bench)
    for _ in range(5):
        bench.ask(10, owner="flood")
    bench.ask(11, owner="other")
    await asyncio.sleep(0)
    bench.rows.go.release(100)
    ends = await asyncio.gather(*bench.tasks, return_exceptions=True)
    refused = [isinstance(end, Overloaded) for end in ends]
    assert refused == [False, False, False, False, True, True, False]


@pytest.mark.parametrize("bench", [{}], indirect=True)
async def test_prompts_are_run_with_their_like(bench: Bench) -> None:
    await queue(bench, [50, 400, 60, 300, 90])
    assert bench.rows.groups == [[1], [50, 60, 90], [400, 300]]


@pytest.mark.parametrize("bench", [{"prefill_tokens": 200}], indirect=True)
async def test_a_group_is_bounded(bench: Bench) -> None:
    await queue(bench, [60, 60, 60, 60, 400])
    assert bench.rows.groups == [[1], [60, 60, 60], [60], [400]]


@pytest.mark.parametrize("bench", [{"rows": 2}], indirect=True)
async def test_rows_are_bounded(bench: Bench) -> None:
    await queue(bench, [5, 5, 5, 5])
    assert bench.rows.most == 2
    assert [length for group in bench.rows.groups for length in group] == [1, 5, 5, 5, 5]


@pytest.mark.parametrize("bench", [{"cells": 206}], indirect=True)
async def test_nobody_overtakes_what_does_not_fit(bench: Bench) -> None:
    """The long one waits for the first to end, and so does the short one behind it, which would
    fit."""
    await queue(bench, [200, 5])
    assert bench.rows.groups == [[1], [200], [5]]


@pytest.mark.parametrize("bench", [{}], indirect=True)
async def test_a_step_is_one_call_into_the_event_loop(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = asyncio.get_running_loop()
    calls = 0
    real = loop.call_soon_threadsafe

    def counted(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        return real(*args, **kwargs)

    for _ in range(6):
        bench.ask(4, max_tokens=10)
    await asyncio.sleep(0.05)
    monkeypatch.setattr(loop, "call_soon_threadsafe", counted)
    await bench.finish()
    assert all(len(chunks) == 10 for chunks in bench.chunks)
    # The first may have been admitted alone.
    assert calls <= 10 + 2


@pytest.mark.parametrize("bench", [{}], indirect=True)
async def test_tokens_reach_their_own_request(bench: Bench) -> None:
    for length in range(1, 7):
        bench.ask(length, max_tokens=length)
    await bench.finish()
    for length, chunks in enumerate(bench.chunks, start=1):
        assert "".join(chunk.text for chunk in chunks) == " ".join(map(str, range(length)))
    assert [tally.prompt_tokens for tally in bench.tallies] == list(range(1, 7))
    assert [tally.completion_tokens for tally in bench.tallies] == list(range(1, 7))


@pytest.mark.parametrize("bench", [{"rows": 8, "waiting": 0}], indirect=True)
async def test_free_rows_are_no_queue(bench: Bench) -> None:
    for _ in range(8):
        bench.ask(5)
    await bench.finish()
    assert all(chunks[-1].finish_reason == "length" for chunks in bench.chunks)


@pytest.mark.parametrize("bench", [{}], indirect=True)
async def test_whoever_is_in_a_prefill_that_fails_is_told(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(prompts: Sequence[list[int]]) -> torch.Tensor:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(bench.rows, "admit", fail)
    bench.ask(5)
    with pytest.raises(EngineFailed):
        await asyncio.wait_for(bench.tasks[0], 5)
    assert bench.batcher.failed
    assert bench.tallies[0].prompt_tokens == 5, "the model had begun with it"


@pytest.mark.parametrize("bench", [{}], indirect=True)
@pytest.mark.parametrize("method", ["admit", "_logits"])
async def test_whoever_is_new_in_the_turn_that_fails_is_accused(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    """Neither who has run before nor who waits; that the sampling fails is no difference."""
    bench.ask(5, max_tokens=400)
    bench.rows.go.release(1)
    while not bench.chunks[0]:
        await asyncio.sleep(0)
    original = getattr(bench.rows, method)

    def fail(what: Any) -> torch.Tensor:
        if method == "admit" or len(bench.rows.groups) > 1:
            raise RuntimeError("out of memory")
        return original(what)

    monkeypatch.setattr(bench.rows, method, fail)
    bench.ask(6)
    bench.rows.go.release(1)
    await asyncio.wait(bench.tasks, timeout=5)
    assert [type(task.exception()) for task in bench.tasks] == [EngineFailed, EngineFailed]
    ((tally, place),) = bench.batcher.charges
    assert tally is bench.tallies[1]
    assert place is None


@pytest.mark.parametrize("bench", [{}], indirect=True)
@pytest.mark.parametrize(("deadly", "places"), [
    ({7}, [None]),
    ({6, 7}, [None, None]),
    ({0, 1, 6, 7, 8}, [None, None, None]),
    (set(), [0, 0, 0]),
])  # fmt: skip
async def test_of_several_new_ones_those_are_accused_that_fail_alone(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, deadly: set[int], places: list[int | None]
) -> None:
    """If even a single token fails, nothing is known; if none fails alone, all are in doubt."""
    admit = bench.rows.admit

    def fail(prompts: Sequence[list[int]]) -> torch.Tensor:
        if len(prompts) > 1 or len(prompts[0]) in deadly:
            raise RuntimeError("it cannot do that")
        bench.rows.go.release(1)
        return admit(prompts)

    bench.ask(5)
    bench.rows.go.release(1)
    await bench.tasks[0]
    monkeypatch.setattr(bench.rows, "admit", fail)
    with bench.batcher._wake:  # they come at once
        for tokens in (6, 7, 8):
            bench.ask(tokens)
        await asyncio.sleep(0)
    await asyncio.wait(bench.tasks[1:], timeout=5)
    assert [place for _, place in bench.batcher.charges] == places
    if deadly == {7}:
        assert bench.batcher.charges[0][0] is bench.tallies[2]


@pytest.mark.parametrize("bench", [{}], indirect=True)
async def test_of_a_later_turn_that_fails_all_that_ran_are_in_doubt(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(tokens: Sequence[int]) -> torch.Tensor:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(bench.rows, "decode", fail)
    bench.ask(5)
    bench.rows.go.release(1)
    with pytest.raises(EngineFailed):
        await asyncio.wait_for(bench.tasks[0], 5)
    assert bench.batcher.charges == ((bench.tallies[0], 1),)
