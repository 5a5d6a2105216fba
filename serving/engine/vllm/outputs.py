"""From vLLM's output processor straight to a response, without a task in between.

vLLM would wake a task for every token of every request. Here the output processor itself calls the
writer of the token's bytes, in the step that made the token. Measured in docs/decisions.md.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from serving.engine.interface import Chunk, Emit
from serving.engine.vllm.patches import take_outputs
from serving.errors import EngineFailed


class Outputs:
    """Takes one request's outputs (`vllm.outputs.RequestOutput`) and emits them as chunks.

    `finished` is done when the last one has been emitted, or fails with the request's error.
    `settle` is called before the last chunk is emitted, because its writer needs the usage.
    """

    __slots__ = ("_emit", "_settle", "finished")

    def __init__(self, emit: Emit, settle: Callable[[], None]) -> None:
        self._emit = emit
        self._settle = settle
        self.finished: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def attach(self, collector: Any) -> None:
        """Take all outputs of the request that `AsyncLLM.add_request` returned this for."""
        take_outputs(collector, self.put)

    def put(self, output: Any) -> None:
        """Called by vLLM for every step of the request, or with the exception that ends it.

        Raises nothing: one request's failure must not end vLLM's loop over all of them.
        """
        finished = self.finished
        if finished.done():  # cancelled, and vLLM says that it has aborted the request
            return
        if isinstance(output, Exception):
            finished.set_exception(output)
            return
        result = output.outputs[0]
        reason = result.finish_reason
        if reason in ("abort", "error"):
            finished.set_exception(EngineFailed("the engine gave this request up"))
            return
        try:
            if reason is not None:
                self._settle()
            self._emit(Chunk(result.text, reason))
        except Exception as error:  # noqa: BLE001 - see above
            finished.set_exception(error)
            return
        if output.finished:
            finished.set_result(None)
