"""Background tasks that cannot die in silence."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from serving.observability.logs import Log


def background(work: Coroutine[Any, Any, None], name: str, log: Log) -> asyncio.Task[None]:
    """Start `work`; if it fails, the log says so. The caller keeps the task and cancels it."""
    task = asyncio.get_running_loop().create_task(work, name=name)

    def finished(done: asyncio.Task[None]) -> None:
        if not done.cancelled() and (error := done.exception()) is not None:
            log.exception("background_task_failed", error, task=name)

    task.add_done_callback(finished)
    return task
