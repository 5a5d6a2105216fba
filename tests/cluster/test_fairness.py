"""Turns on a real vLLM engine: who floods it does not come before others. No Ray, no router."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from serving.catalogue.catalogue import Catalogue
from serving.observability.logs import open_log
from serving.router.answer import AttemptFailed
from tests.cluster.conftest import local_model
from tests.cluster.engine_server import EngineLink, EngineServer, engine_link, engine_server
from tests.cluster.flood import MODEL, Load, Timed, ask, p99, run
from tests.conftest import Eventually

SEQUENCES = 8
FLOOD = Load("flood", 60, tokens=40)
# Of the cache: more than one sequence of the longest kind takes, and fewer than two.
BLOCKS = 12
# Those of the proof: 500 requests at once, and an account that always has two of its own there.
LONG_SEQUENCES = 16
LONG_FLOOD = Load("flood", 500, tokens=64, sentences=2)
OTHER = Load("other", 300, tokens=8, sentences=8, at_once=2)


@contextmanager
def server(
    folder: Path,
    order: str = "fair",
    sequences: int | None = SEQUENCES,
    step_ms: float = 0.0,
    **engine_args: Any,
) -> Iterator[EngineServer]:
    """An engine that runs so many sequences; None: as the local profile has it."""
    model: dict[str, Any] = local_model(MODEL) | {"kind": "engine"}
    if sequences is not None:
        model["engine_args"] |= {"max_num_seqs": sequences, "max_num_batched_tokens": 1024}
    model["engine_args"] |= engine_args
    model["env"] |= {"SERVING_QUEUE_ORDER": order, "SERVING_QUEUE_STEP_MS": f"{step_ms}"}
    catalogue = Catalogue.model_validate({"models": [model]})
    with engine_server(catalogue.engines[0], folder) as engine:
        yield engine


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineServer]:
    with server(tmp_path_factory.mktemp("engine")) as engine:
        yield engine


@pytest.fixture
async def link(
    engine: EngineServer, tmp_path: Path, eventually: Eventually
) -> AsyncIterator[EngineLink]:
    async with engine_link(engine, open_log("fairness-test", str(tmp_path))) as link:
        await eventually(lambda: link.up)
        yield link


async def counts(engine: EngineServer) -> dict[str, float]:
    """The engine's metrics, by name and, where there is one, priority."""
    url = f"http://127.0.0.1:{engine.ready.ops_port}/metrics"
    async with httpx.AsyncClient(trust_env=False) as client:
        text = (await client.get(url)).text
    samples = [each for metric in text_string_to_metric_families(text) for each in metric.samples]
    return {" ".join([s.name, *_priority(s.labels)]): s.value for s in samples}


def _priority(labels: dict[str, str]) -> list[str]:
    return [labels["priority"]] if "priority" in labels else []


async def waiting(engine: EngineServer, priority: str = "interactive") -> float:
    return (await counts(engine))[f"serving_queue_requests {priority}"]


async def test_another_account_does_not_wait_for_a_flood_to_end(
    link: EngineLink, engine: EngineServer, eventually: Eventually
) -> None:
    """By the order in which requests end, not by the clock."""
    ended = 0

    async def one(number: int) -> None:
        nonlocal ended
        await ask(link, FLOOD, number)
        ended += 1

    flood = [asyncio.create_task(one(number)) for number in range(FLOOD.count)]
    while not await waiting(engine):
        await asyncio.sleep(0.01)
    await eventually(lambda: link.load.waiting > SEQUENCES, 10)  # which /status shows
    before = ended
    for number in range(3):
        await ask(link, replace(FLOOD, owner="other", tokens=2), number)
    # Its first one may wait for one of those that ran when it came; the others' place is kept.
    assert ended - before <= 3 * SEQUENCES, "of the flood it waited for"
    assert await waiting(engine)
    for task in flood:
        task.cancel()
    await asyncio.gather(*flood, return_exceptions=True)
    async with asyncio.timeout(5):  # those that their callers give up do not wait for their turn
        while await waiting(engine):
            await asyncio.sleep(0.01)


async def test_who_waits_is_told_from_who_runs(
    link: EngineLink, engine: EngineServer, eventually: Eventually
) -> None:
    """In the metrics of the engine, and in what it tells the routers, which `/status` shows."""

    async def endless(number: int) -> None:
        while True:
            await ask(link, FLOOD, number)

    flood = [asyncio.create_task(endless(number)) for number in range(FLOOD.count)]
    async with asyncio.timeout(10):
        while True:
            found = await counts(engine)
            runs, waits = found["vllm:num_requests_running"], found["vllm:num_requests_waiting"]
            waits += found["serving_queue_requests interactive"]
            if 0 < runs <= SEQUENCES and waits >= FLOOD.count - 2 * SEQUENCES:
                break
    await eventually(lambda: 0 < link.load.running <= SEQUENCES, 10)
    await eventually(lambda: link.load.waiting >= FLOOD.count - 2 * SEQUENCES, 10)
    for task in flood:
        task.cancel()
    await asyncio.gather(*flood, return_exceptions=True)
    await eventually(lambda: (link.load.running, link.load.waiting) == (0, 0), 10)
    found = await counts(engine)
    assert found["vllm:num_requests_running"] == found["serving_queue_requests interactive"] == 0


async def test_batch_requests_wait_for_others(link: EngineLink, engine: EngineServer) -> None:
    order: list[str] = []

    async def one(kind: str, number: int) -> None:
        load = replace(FLOOD, owner="one", tokens=8)
        await ask(link, load, number, priority=int(kind == "batch"))
        order.append(kind)

    filling = [asyncio.create_task(ask(link, FLOOD, number)) for number in range(2 * SEQUENCES)]
    while not await waiting(engine):
        await asyncio.sleep(0.01)
    slow = [asyncio.create_task(one("batch", number)) for number in range(8)]
    while await waiting(engine, "batch") < 8:
        await asyncio.sleep(0.01)
    quick = [asyncio.create_task(one("interactive", number)) for number in range(8)]
    await asyncio.gather(*filling, *slow, *quick)
    assert order[:8] == ["interactive"] * 8


async def test_what_waits_in_an_engine_that_dies_has_used_nothing_and_may_go_elsewhere(
    link: EngineLink, engine: EngineServer
) -> None:
    """The last test here: the engine is dead after it."""
    flood = [asyncio.create_task(ask(link, FLOOD, number)) for number in range(40)]
    while await waiting(engine) < 20:
        await asyncio.sleep(0.01)
    for child in engine.process.children(recursive=True):
        if "EngineCore" in child.name():
            child.kill()
    ends = await asyncio.gather(*flood, return_exceptions=True)
    failed = [end for end in ends if isinstance(end, AttemptFailed)]
    assert len(failed) >= 20
    assert all(each.retryable for each in failed)


@pytest.mark.long
async def test_a_batch_request_gives_way_where_memory_is_short(
    tmp_path: Path, eventually: Eventually
) -> None:
    """It began first and both are as long, so it would end first; but only one of them fits."""
    long = Load("one", 1, tokens=900)
    ended: list[str] = []
    log = open_log("fairness-test", str(tmp_path))
    with server(tmp_path, num_gpu_blocks_override=BLOCKS) as engine:
        async with engine_link(engine, log) as link:

            async def one(kind: str) -> None:
                await ask(link, long, 0, priority=int(kind == "batch"))
                ended.append(kind)

            await eventually(lambda: link.up)
            slow = asyncio.create_task(one("batch"))
            async with asyncio.timeout(10):
                while not (await counts(engine))["vllm:num_requests_running"]:
                    await asyncio.sleep(0.01)
            await asyncio.gather(slow, one("interactive"))
            assert (await counts(engine))["vllm:num_preemptions_total"] >= 1
    assert ended == ["interactive", "batch"]


@pytest.mark.long
@pytest.mark.parametrize(
    ("order", "sequences", "step_ms", "tokens"),
    [
        ("fcfs", LONG_SEQUENCES, 0.0, 64),
        # Long floods: their first half second, in which 500 bodies are read, is not in the p99.
        ("fair", LONG_SEQUENCES, 0.0, 128),
        ("fair", None, 15.0, 128),
    ],
)
async def test_a_flood_of_500_requests_at_most_doubles_another_s_p99(
    order: str,
    sequences: int | None,
    step_ms: float,
    tokens: int,
    tmp_path: Path,
    eventually: Eventually,
) -> None:
    """The figures in docs/accounts.md: `make fairness` prints them. Alone and beside the flood are
    measured on one engine, one after the other, as the machine may be busy."""
    log = open_log("fairness-test", str(tmp_path))
    with server(tmp_path, order, sequences, step_ms) as engine:
        async with engine_link(engine, log) as link:
            await eventually(lambda: link.up)
            await run(link, replace(OTHER, count=20))
            alone = await run(link, OTHER)
            flood = asyncio.create_task(run(link, replace(LONG_FLOOD, tokens=tokens)))
            beside: list[Timed] = []
            while not flood.done():
                beside += await run(link, replace(OTHER, count=10))
            ended = await flood
            end = max(each.began + each.total for each in ended)
            took = end - min(each.began for each in ended)
            beside = [each for each in beside if each.began + each.ttft < end]
    ratio = p99(beside) / p99(alone)
    print(
        f"{order}, {sequences or 'local'} sequences, steps of {step_ms:g} ms: p99 TTFT "
        f"{1000 * p99(alone):.1f} ms alone, {1000 * p99(beside):.1f} ms beside the flood "
        f"({ratio:.2f} times; longest {1000 * max(each.ttft for each in beside):.0f} ms of "
        f"{len(beside)} requests); the flood took {took:.1f} s"
    )
    if order == "fair":
        assert ratio <= 2
    else:
        assert ratio > 2, "the flood is none: the other order would pass, too"
