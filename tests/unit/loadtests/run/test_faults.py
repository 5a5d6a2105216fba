from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

import pytest

from loadtests.clock import Clock
from loadtests.measure.summary import Mark
from loadtests.run.faults import run_faults
from loadtests.scenarios.model import Fault


async def marks_of(*faults: Fault) -> list[Mark]:
    found: list[Mark] = []
    clock = Clock(time.monotonic())
    async with asyncio.timeout(20):
        await run_faults(faults, "http://here", clock, found.append, asyncio.Event())
    return found


async def test_when_the_run_is_over_no_command_begins_and_those_that_run_end() -> None:
    over = asyncio.Event()
    found: list[Mark] = []
    faults = [
        Fault(at_s=0.0, name="runs", command="sleep 0.5; echo done"),
        Fault(at_s=60.0, name="later", command="echo done"),
    ]
    asyncio.get_running_loop().call_later(0.2, over.set)
    async with asyncio.timeout(20):
        await run_faults(faults, "http://here", Clock(time.monotonic()), found.append, over)
    assert [(mark.name, mark.output) for mark in found] == [("runs", "done\n")]


async def test_a_command_and_how_it_ended() -> None:
    (mark,) = await marks_of(Fault(at_s=0.1, name="f", command='echo "$LOADTEST_URL"; exit 3'))
    assert (mark.name, mark.status, mark.output) == ("f", 3, "http://here\n")
    assert mark.at_s >= 0.1
    assert mark.took_s is not None
    assert mark.took_s > 0


async def test_commands_run_at_their_times_whatever_the_others_do() -> None:
    slow = Fault(at_s=0.0, name="slow", command="sleep 0.5")
    quick = Fault(at_s=0.1, name="quick", command="true")
    marks = await marks_of(slow, quick)
    assert [mark.name for mark in marks] == ["quick", "slow"]


async def test_a_command_that_takes_too_long_is_killed_with_all_it_started(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    command = f"sleep 60 & echo $! > {pid}; echo begun; wait"
    (mark,) = await marks_of(Fault(at_s=0.0, name="f", command=command, timeout_s=0.5))
    assert mark.status is None
    assert mark.output == "begun\n\nit took longer than 0.5 s and was killed"
    await ended(int(pid.read_text()))


async def ended(pid: int) -> None:
    async with asyncio.timeout(5):
        while True:
            try:
                os.kill(pid, 0)
                if "(sleep) Z" in Path(f"/proc/{pid}/stat").read_text():
                    return
            except (ProcessLookupError, FileNotFoundError):
                return
            await asyncio.sleep(0.02)


async def test_what_a_command_leaves_running_is_not_waited_for() -> None:
    (mark,) = await marks_of(Fault(at_s=0.0, name="f", command="echo begun; sleep 5 &"))
    assert (mark.status, mark.output) == (0, "begun\n")
    assert mark.took_s is not None
    assert mark.took_s < 4


async def test_the_end_of_a_long_output_is_kept() -> None:
    command = "head -c 1000000 /dev/zero | tr '\\0' x; echo the end"
    (mark,) = await marks_of(Fault(at_s=0.0, name="f", command=command))
    assert len(mark.output) == 4096
    assert mark.output.endswith("the end\n")


async def test_the_end_of_the_run_kills_what_is_running(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    fault = Fault(at_s=0.0, name="f", command=f"echo $$ > {pid}; exec sleep 60")
    later = Fault(at_s=60.0, name="later", command="true")
    found: list[Mark] = []
    task = asyncio.create_task(
        run_faults(
            [fault, later],
            "http://here",
            Clock(time.monotonic()),
            found.append,
            asyncio.Event(),
        )
    )
    async with asyncio.timeout(5):
        while not pid.exists() or not pid.read_text():
            await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [(mark.name, mark.status) for mark in found] == [("f", None)]
    assert "interrupted" in found[0].output
    await ended(int(pid.read_text()))
