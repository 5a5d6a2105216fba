"""Helper processes: their answers, deadline, memory, and their end when a caller leaves."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterator

import psutil
import pytest

from serving.engine.helpers.helper import Work
from serving.engine.helpers.nursery import NURSERY_TITLE, Nursery
from serving.engine.helpers.pool import Helpers
from serving.errors import InvalidRequest, Overloaded

MIB = 1 << 20


def work(job: bytes) -> bytes:
    """What the helpers of these tests do."""
    if job == b"pid":
        return str(os.getpid()).encode()
    if job == b"sleep":
        time.sleep(60)
    if job == b"spin":  # as a regular expression does: no signal handler would run
        os.sched_yield()
        while True:
            pass
    if job == b"memory":
        held = []
        while True:
            held.append(b"x" * (8 * MIB))
    if job == b"end":
        os._exit(3)
    if job.startswith(b"nap "):
        time.sleep(float(job[4:]))
    return job * 2


def prepare() -> Work:
    return work


@pytest.fixture
def nursery() -> Iterator[Nursery]:
    nursery = Nursery.fork(prepare)
    yield nursery
    nursery.close()


Make = Callable[..., Helpers]


@pytest.fixture
def make(nursery: Nursery) -> Make:
    def with_limits(**limits: float) -> Helpers:
        defaults: dict[str, float] = {"most": 2, "seconds": 20, "memory_bytes": 256 * MIB}
        return Helpers(nursery, **(defaults | limits))  # type: ignore[arg-type]

    return with_limits


def test_a_helper_answers_and_is_used_again(make: Make) -> None:
    async def run() -> None:
        helpers = make()
        assert await helpers.run(b"ab") == b"abab"
        assert await helpers.run(b"x" * (4 * MIB)) == b"x" * (8 * MIB)
        assert await helpers.run(b"") == b""
        assert await helpers.run(b"pid") == await helpers.run(b"pid")

    asyncio.run(run())


@pytest.mark.parametrize("job", [b"sleep", b"spin"])
def test_a_job_beyond_its_deadline_is_ended(make: Make, job: bytes) -> None:
    async def run() -> None:
        helpers = make(seconds=0.3)
        pid = int(await helpers.run(b"pid"))
        started = time.monotonic()
        with pytest.raises(InvalidRequest, match=r"longer than 0.3 s"):
            await helpers.run(job)
        assert time.monotonic() - started < 5
        assert await _ends(pid)
        assert await helpers.run(b"a") == b"aa"

    asyncio.run(run())


def test_a_job_that_takes_too_much_memory_is_ended(make: Make) -> None:
    async def run() -> None:
        helpers = make()
        pid = int(await helpers.run(b"pid"))
        with pytest.raises(InvalidRequest, match="more than 256 MiB"):
            await helpers.run(b"memory")
        assert await _ends(pid)

    asyncio.run(run())


def test_a_job_that_ends_its_helper_is_refused_and_the_next_is_answered(make: Make) -> None:
    async def run() -> None:
        helpers = make()
        with pytest.raises(InvalidRequest, match="cannot be prepared"):
            await helpers.run(b"end")
        assert await helpers.run(b"a") == b"aa"

    asyncio.run(run())


def test_a_job_ends_when_its_caller_leaves(make: Make) -> None:
    async def run() -> None:
        helpers = make(most=1)
        pid = int(await helpers.run(b"pid"))
        job = asyncio.create_task(helpers.run(b"spin"))
        await asyncio.sleep(0.1)
        job.cancel()
        with pytest.raises(asyncio.CancelledError):
            await job
        # The only helper is free again for others.
        assert await asyncio.wait_for(helpers.run(b"a"), 10) == b"aa"
        assert await _ends(pid)

    asyncio.run(run())


def test_a_short_job_whose_caller_left_costs_no_helper(make: Make) -> None:
    async def run() -> None:
        helpers = make(most=1)
        pid = await helpers.run(b"pid")
        job = asyncio.create_task(helpers.run(b"nap 0.2"))
        await asyncio.sleep(0.05)
        job.cancel()
        assert await helpers.run(b"pid") == pid

    asyncio.run(run())


def test_one_long_job_does_not_hold_up_another(make: Make) -> None:
    async def run() -> None:
        helpers = make()
        await asyncio.gather(helpers.run(b"nap 0.1"), helpers.run(b"nap 0.1"))
        long = asyncio.create_task(helpers.run(b"spin"))
        await asyncio.sleep(0.05)
        assert await asyncio.wait_for(helpers.run(b"a"), 5) == b"aa"
        long.cancel()

    asyncio.run(run())


def slow_to_start() -> Work:
    time.sleep(1)
    return work


def test_a_job_takes_whichever_helper_is_ready_first() -> None:
    """It does not wait for the one that starts for it."""
    nursery = Nursery.fork(slow_to_start)

    async def run() -> None:
        helpers = Helpers(nursery, most=2, seconds=20, memory_bytes=256 * MIB)
        first = await helpers.run(b"pid")
        nap = asyncio.create_task(helpers.run(b"nap 0.2"))
        await asyncio.sleep(0.05)
        assert await helpers.run(b"pid") == first
        await nap
        # And the other is ready a second later, ahead of need.
        await asyncio.sleep(1.5)
        nap = asyncio.create_task(helpers.run(b"nap 0.5"))
        await asyncio.sleep(0.05)
        began = time.monotonic()
        await helpers.run(b"a")
        assert time.monotonic() - began < 0.4
        await nap
        helpers.close()

    asyncio.run(run())


def test_a_job_that_leaves_before_its_helper_is_ready_leaves_the_helper_to_others() -> None:
    nursery = Nursery.fork(slow_to_start)

    async def run() -> None:
        helpers = Helpers(nursery, most=1, seconds=20, memory_bytes=256 * MIB)
        job = asyncio.create_task(helpers.run(b"a"))
        await asyncio.sleep(0.1)
        job.cancel()
        began = time.monotonic()
        assert await helpers.run(b"ab") == b"abab"
        assert time.monotonic() - began < 5
        helpers.close()

    asyncio.run(run())


async def test_no_helper_without_a_nursery() -> None:
    nursery = Nursery.fork(prepare)
    helpers = Helpers(nursery, most=1, seconds=20, memory_bytes=256 * MIB)
    nursery.close()
    for _ in range(2):
        with pytest.raises(Overloaded, match="no helper process can be started"):
            await helpers.run(b"a")


def test_jobs_that_wait_are_bounded(make: Make) -> None:
    async def run() -> None:
        helpers = make(most=1, waiting=1)
        jobs = [asyncio.create_task(helpers.run(b"nap 0.3")) for _ in range(2)]
        await asyncio.sleep(0.05)
        with pytest.raises(Overloaded):
            await helpers.run(b"a")
        assert await asyncio.gather(*jobs) == [b"nap 0.3nap 0.3"] * 2

    asyncio.run(run())


def test_helpers_end_with_the_nursery(nursery: Nursery) -> None:
    async def run() -> int:
        return int(await Helpers(nursery, most=1, seconds=9, memory_bytes=MIB).run(b"pid"))

    pid = asyncio.run(run())
    nursery.close()
    assert asyncio.run(_ends(pid))


async def _ends(pid: int) -> bool:
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return True
        await asyncio.sleep(0.02)
    return False


def test_a_nursery_that_has_ended_says_so_and_is_not_mistaken_for_an_engine_server(
    nursery: Nursery,
) -> None:
    def running() -> list[str]:
        children = psutil.Process().children()
        alive = [child for child in children if child.status() != psutil.STATUS_ZOMBIE]
        return [" ".join(child.cmdline()).rstrip() for child in alive]

    deadline = time.monotonic() + 10
    while NURSERY_TITLE not in running():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert nursery.alive
    nursery.close()
    while nursery.alive:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert not nursery.alive
    assert NURSERY_TITLE not in running()
