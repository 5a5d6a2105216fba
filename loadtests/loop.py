"""The event loop: uvloop where there is one, and as many open sockets as the machine allows."""

from __future__ import annotations

import asyncio
import gc
import sys
from collections.abc import Coroutine
from typing import Any, TypeVar

Result = TypeVar("Result")


def run(main: Coroutine[Any, Any, Result]) -> Result:
    """Run a coroutine to its end."""
    raise_file_limit()
    try:
        import uvloop
    except ImportError:  # there is none for Windows
        return asyncio.run(main)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main)


def raise_file_limit() -> None:
    """Allow this process and its children as many files as the machine's hard limit does."""
    if sys.platform == "win32":
        return
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def tune_collector() -> None:
    """Have the garbage collector look at what is new, and at nothing else.

    Nothing is sent or read while it looks: 40 ms at a time with 2,000 streams when it is left as it
    is. What the load generator makes and drops has no circles in it, and needs no collector.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(5_000, 1_000, 1_000)
