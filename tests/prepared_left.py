"""Callers that leave while a helper process prepares their request, on a real engine.

`tests/prepared.py` runs this before it compares answers, `tests/cluster/test_prepared.py` looks at
what it found.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable
from typing import Any

import psutil

from serving.engine.helpers.helper import Helper
from serving.engine.interface import Tally
from serving.engine.vllm.preparation import SMALL_BYTES
from serving.wire.messages import HttpCall
from tests.fuzz_bodies import MODEL, Collected, Subject

PATIENCE_S = 20.0
# What must be found.
NOTHING_LEFT = {
    "status before": 200,
    "given to a helper": True,
    "the caller's end": "CancelledError",
    "its helper ended": True,
    "all may prepare again": True,
    "left in the engine": False,
    "status after": 200,
}


async def leave(subject: Subject, path: str, body: bytes) -> dict[str, Any]:
    """Send a body that a helper prepares, leave meanwhile, and look at what is left.

    The helper is stopped before it reads its job, so that it never ends of itself; and the pool's
    clock stands still, so that it is not ended for the time it takes.
    """
    body += b" " * SMALL_BYTES  # which makes it heavy, whatever it asks for
    helpers = subject.engine._preparation._helpers
    status_before = await _status(subject, path, body)
    given: list[psutil.Process] = []
    ask, clock = Helper.ask, helpers._clock

    async def ask_stopped(self: Helper, job: bytes) -> bytes:
        given.append(psutil.Process(self._pid))
        os.kill(self._pid, signal.SIGSTOP)
        return await ask(self, job)

    Helper.ask = ask_stopped  # type: ignore[method-assign]
    helpers._clock = lambda: 0.0
    try:
        caller = asyncio.create_task(_status(subject, path, body))
        await _becomes(lambda: bool(given) or caller.done())
    finally:
        Helper.ask = ask  # type: ignore[method-assign]
    caller.cancel()
    (end,) = await asyncio.gather(caller, return_exceptions=True)
    found = {
        "status before": status_before,
        "given to a helper": len(given) == 1,
        "the caller's end": type(end).__name__,
        "its helper ended": await _becomes(lambda: not any(it.is_running() for it in given)),
        "all may prepare again": await _becomes(lambda: helpers._free._value == helpers._most),
        "left in the engine": any(subject.left()),
    }
    helpers._clock = clock
    return found | {"status after": await _status(subject, path, body)}


async def _status(subject: Subject, path: str, body: bytes) -> int | None:
    headers = (("content-type", "application/json"),)
    reply = Collected()
    call = HttpCall("r", MODEL, "POST", path, headers=headers)
    await subject.engine.http(call, body, reply, Tally())
    return reply.status


async def _becomes(condition: Callable[[], bool]) -> bool:
    """True once it is true; false if it has not been for long."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(0.01)
    return True
