"""Commands that are run at their times: they kill or drain a replica, say."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import tempfile
from collections.abc import Callable, Sequence
from typing import BinaryIO

from loadtests.clock import Clock
from loadtests.measure.summary import Mark
from loadtests.scenarios.model import Fault

# What is kept of a command's output: its end, where the reason of a failure is.
OUTPUT = 4096


async def run_faults(
    faults: Sequence[Fault],
    url: str,
    clock: Clock,
    mark: Callable[[Mark], None],
    over: asyncio.Event,
) -> None:
    """Run all commands at their times, at the same time where they overlap.

    `mark` is called when a command has ended. When the run is `over`, no command begins any more,
    and those that run are waited for: one that is killed in its middle may leave a node drained.
    Cancelling kills them.
    """
    async with asyncio.TaskGroup() as group:
        for fault in faults:
            group.create_task(_run(fault, url, clock, mark, over))


async def _run(
    fault: Fault, url: str, clock: Clock, mark: Callable[[Mark], None], over: asyncio.Event
) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(max(0.0, fault.at_s - clock.now())):
            await over.wait()
            return
    at_s = clock.now()
    status: int | None = None
    # A file and no pipe: what a command leaves running in the background would keep a pipe open.
    with tempfile.TemporaryFile() as output:
        process = await asyncio.create_subprocess_exec(
            "/bin/sh",
            "-c",
            fault.command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env={**os.environ, "LOADTEST_URL": url},
            start_new_session=True,
        )
        note = "\nit was killed, as the run was interrupted"
        try:
            async with asyncio.timeout(fault.timeout_s):
                status = await process.wait()
                note = ""
        except TimeoutError:
            note = f"\nit took longer than {fault.timeout_s:g} s and was killed"
        finally:
            if process.returncode is None:
                # With all that it has started.
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                await process.wait()
            took_s = clock.now() - at_s
            text = _tail(output) + note
            mark(Mark(at_s=at_s, name=fault.name, status=status, output=text, took_s=took_s))


def _tail(output: BinaryIO) -> str:
    size = output.seek(0, os.SEEK_END)
    output.seek(max(0, size - OUTPUT))
    return output.read().decode(errors="replace")
