"""Background tasks that cannot die in silence."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from serving.observability.logs import Log


def background(work: Coroutine[Any, Any, None], name: str, log: Log) -> asyncio.Task[None]:
    """Start `work`; if it fails, the log says so. The caller keeps the task and
    ends it (`end`)."""
    task = asyncio.get_running_loop().create_task(work, name=name)

    def finished(done: asyncio.Task[None]) -> None:
        if not done.cancelled() and (error := done.exception()) is not None:
            log.exception("background_task_failed", error, task=name)

    task.add_done_callback(finished)
    return task


async def end(*tasks: asyncio.Task[Any]) -> None:
    """Cancel tasks, and return when they have ended.

    Whoever goes on at once may take away what they still need to end. One that uses SQLite and is
    cancelled again in the midst of its end never comes to it: SQLAlchemy stops the driver's thread
    then, and what closes the connection waits for that thread.
    """
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks)
