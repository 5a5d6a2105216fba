"""vLLM's hand-over of outputs to the task that reads them, with less in between.

For the OpenAI endpoints, whose handlers are vLLM's: each of their streams has a task that is woken
for every token. Waiting on a future costs less than on vLLM's `asyncio.Event`, which keeps a queue
of waiters although there is one reader.
"""

from __future__ import annotations

import asyncio
from typing import Any

from vllm.sampling_params import RequestOutputKind
from vllm.v1.engine import async_llm
from vllm.v1.engine.output_processor import RequestOutputCollector


class Collector(RequestOutputCollector):  # type: ignore[misc]  # vLLM is not typed for us
    """As vLLM's, for one reader."""

    def __init__(self, output_kind: RequestOutputKind, request_id: str) -> None:
        super().__init__(output_kind, request_id)
        self.output: Any = None
        self._waiter: asyncio.Future[None] | None = None

    def put(self, output: Any) -> None:
        if self.output is not None and not isinstance(output, Exception):
            super().put(output)  # joins them
            return
        self.output = output
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    async def get(self) -> Any:
        while self.output is None:
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        return self.get_nowait()

    def get_nowait(self) -> Any:
        output = self.output
        if isinstance(output, Exception):
            raise output
        self.output = None
        return output


def install() -> None:
    """Let every `AsyncLLM` of this process use it."""
    async_llm.RequestOutputCollector = Collector
