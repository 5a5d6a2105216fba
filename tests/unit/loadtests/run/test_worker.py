from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from loadtests.clock import Clock
from loadtests.load.planned import PhasePlan, Turns
from loadtests.measure.record import Outcome, Record
from loadtests.run.worker import Driven, Worker, drive
from loadtests.scenarios.model import Target
from loadtests.wire.client import Client
from loadtests.wire.service import Service
from tests.unit.loadtests.planned import planned
from tests.unit.loadtests.wire.servers import END, LAST, STREAM, Answer, chunk, event, scripted


async def answer(request: bytes, writer: asyncio.StreamWriter) -> None:
    writer.write(STREAM + chunk(event("yes")) + chunk(LAST) + END)


def opened(*dues: float, name: str = "steady", end_s: float = 1.0, **fields: Any) -> PhasePlan:
    sessions = [
        (planned(index=number, due_s=due, phase=name, session=number, **fields),)
        for number, due in enumerate(dues)
    ]
    return PhasePlan(name, 0.0, end_s, True, iter(sessions))


async def run(
    plans: list[PhasePlan], to: Answer = answer, timeout_s: float = 5.0
) -> tuple[Driven, list[Record]]:
    records: list[Record] = []
    async with scripted(to) as server, asyncio.timeout(30):
        target = Target(url=server.url, timeout_s=timeout_s)
        driven = await drive(plans, target, Clock(time.monotonic() + 0.05), records.append)
    return driven, records


async def test_everything_is_sent_once_and_not_before_it_is_due() -> None:
    dues = [0.0, 0.05, 0.05, 0.1, 0.3]
    driven, records = await run([opened(*dues)])
    assert sorted(record.index for record in records) == list(range(5))
    for record in records:
        assert (record.outcome, record.due_s) == (Outcome.OK, dues[record.index])
        assert record.begun_s >= record.due_s
        assert record.counted
    assert driven.counts.due == {"steady": 5}
    assert (driven.figures.due, driven.figures.interrupted) == ({"steady": 5}, False)
    assert (driven.limited, driven.unfinished) == (0, 0)


async def test_the_schedule_is_kept_while_the_service_stands_still() -> None:
    """Requests go out at their times although none is answered: nothing is anchored anew."""
    stuck = asyncio.Event()

    async def slow(request: bytes, writer: asyncio.StreamWriter) -> None:
        await stuck.wait()
        await answer(request, writer)

    asyncio.get_running_loop().call_later(1.0, stuck.set)
    dues = [number / 40 for number in range(20)]
    _, records = await run([opened(*dues)], slow)
    assert [record.due_s for record in sorted(records, key=lambda r: r.index)] == dues
    # All were on their way before the first answer came.
    assert max(record.begun_s for record in records) < min(record.end_s for record in records)
    first = min(records, key=lambda record: record.index)
    assert first.ttft_s is not None
    assert first.ttft_s > 0.7


async def test_a_client_that_is_late_says_so_and_does_not_shift_the_rest() -> None:
    def sessions() -> Iterator[Turns]:
        for number in range(1000):
            if number == 600:  # beyond what is made ahead
                time.sleep(0.3)
            yield (planned(index=number, due_s=number / 1000),)

    plan = PhasePlan("steady", 0.0, 1.0, True, sessions())
    driven, records = await run([plan])
    assert len(records) == 1000
    assert max(record.lag_s for record in records) > 0.1
    assert driven.figures.late_max_ms > 100
    assert all(record.due_s == record.index / 1000 for record in records)


async def test_what_is_outstanding_at_the_end_is_waited_for_and_counted() -> None:
    async def never(request: bytes, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(30)

    began = time.monotonic()
    _, records = await run([opened(0.0, 0.1, end_s=0.2)], never, timeout_s=0.5)
    assert 0.5 < time.monotonic() - began < 10
    assert [record.error for record in records] == ["timeout before the answer"] * 2


async def test_later_turns_come_after_the_answer_and_bring_the_conversation() -> None:
    turns = tuple(
        planned(index=turn, turn=turn, due_s=None if turn else 0.0, prompt=f"p{turn}", think_s=0.1)
        for turn in range(3)
    )
    prompts: list[str] = []

    async def noting(request: bytes, writer: asyncio.StreamWriter) -> None:
        prompts.append(json.loads(request.partition(b"\r\n\r\n")[2])["prompt"])
        await answer(request, writer)

    driven, records = await run([PhasePlan("steady", 0.0, 5.0, True, iter([turns]))], noting)
    assert prompts == ["p0", "p0yes\np1", "p0yes\np1yes\np2"]
    for before, after in itertools.pairwise(records):
        assert after.due_s == pytest.approx(before.end_s + 0.1)
        assert after.begun_s >= after.due_s
    assert (driven.counts.cut, driven.counts.lost) == (0, 0)


async def test_a_session_that_fails_ends_and_one_that_is_left_goes_on() -> None:
    async def failing(request: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 500 X\r\ncontent-length: 0\r\n\r\n")

    turns = tuple(planned(turn=turn, due_s=None if turn else 0.0) for turn in range(3))
    driven, records = await run([PhasePlan("steady", 0.0, 5.0, True, iter([turns]))], failing)
    assert ([record.error for record in records], driven.counts.lost) == (["500"], 2)

    async def endless(request: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(STREAM)
        while not writer.is_closing():
            writer.write(chunk(event("a")))
            await writer.drain()
            await asyncio.sleep(0.01)

    turns = tuple(
        planned(turn=turn, due_s=None if turn else 0.0, cancel_after_tokens=2) for turn in range(2)
    )
    driven, records = await run([PhasePlan("steady", 0.0, 5.0, True, iter([turns]))], endless)
    assert [record.outcome for record in records] == [Outcome.CANCELLED] * 2


async def test_turns_after_the_end_are_not_sent() -> None:
    turns = tuple(planned(turn=turn, due_s=None if turn else 0.0, think_s=9) for turn in range(3))
    driven, records = await run([PhasePlan("steady", 0.0, 1.0, True, iter([turns]))])
    assert (len(records), driven.counts.cut) == (1, 2)


def endless(name: str, **fields: Any) -> Iterator[Turns]:
    for number in itertools.count():
        yield (planned(index=number, due_s=None, phase=name, **fields),)


async def test_a_closed_loop_keeps_so_many_in_flight() -> None:
    now = most = 0

    async def slow(request: bytes, writer: asyncio.StreamWriter) -> None:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await asyncio.sleep(0.05)
        now -= 1
        await answer(request, writer)

    plan = PhasePlan("closed", 0.1, 0.6, False, endless("closed"), concurrency=3)
    driven, records = await run([plan], slow)
    assert most == 3
    assert len(records) == driven.counts.due["closed"] >= 6
    assert not any(record.counted for record in records)
    assert all(0.1 <= record.due_s <= record.begun_s for record in records)
    assert all(record.due_s < 0.6 for record in records)
    ends = {record.end_s for record in records} | {0.1}
    assert all(record.due_s in ends for record in records)


async def test_phases_follow_each_other() -> None:
    plans = [
        opened(0.0, 0.1, name="one", end_s=0.2),
        PhasePlan("two", 0.2, 0.4, True, endless("two"), concurrency=1),
        PhasePlan("three", 0.4, 0.6, True, iter([(planned(phase="three", due_s=0.5),)])),
    ]
    driven, records = await run(plans)
    counts = Counter(record.phase for record in records)
    assert counts["one"] == 2
    assert counts["two"] >= 1
    assert counts["three"] == 1
    assert driven.counts.due == counts


async def test_a_place_without_sessions_is_over_at_once() -> None:
    driven, records = await run([PhasePlan("none", 0.0, 0.1, True, iter(()), concurrency=0)])
    assert (records, driven.counts.due) == ([], {})


async def worker_of(
    plans: list[PhasePlan], url: str, sink: Callable[[Record], None]
) -> tuple[Worker, Client]:
    clock = Clock(time.monotonic())
    client = Client(Service(url), clock, 5.0)
    return Worker(plans, client, clock, sink), client


async def test_interrupting_leaves_the_records_so_far() -> None:
    async def second_hangs(request: bytes, writer: asyncio.StreamWriter) -> None:
        if b"hang" in request:
            await asyncio.sleep(30)
        await answer(request, writer)

    sessions = [
        (planned(index=0, due_s=0.0),),
        (planned(index=1, due_s=0.0, prompt="hang"),),
        (planned(index=2, due_s=20.0),),
    ]
    records: list[Record] = []
    async with scripted(second_hangs) as server, asyncio.timeout(10):
        plan = PhasePlan("steady", 0.0, 30.0, True, iter(sessions))
        worker, _ = await worker_of([plan], server.url, records.append)
        driving = asyncio.create_task(worker.drive())
        while len(records) < 1 or worker.in_flight < 1:
            await asyncio.sleep(0.01)
        worker.interrupt()
        driven = await driving
    assert [record.index for record in records] == [0]
    assert (driven.unfinished, driven.figures.interrupted) == (1, True)
    assert driven.figures.due == {"steady": 2}


async def test_what_goes_wrong_in_the_plan_ends_the_run() -> None:
    def sessions() -> Iterator[Turns]:
        for number in range(520):
            yield (planned(index=number, due_s=number / 1000),)
        raise ValueError("line 521 of the trace is broken")

    with pytest.raises(ValueError, match="line 521"):
        await run([PhasePlan("steady", 0.0, 1.0, True, sessions())])
