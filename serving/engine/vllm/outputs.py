"""From vLLM's output processor straight to a response, without a task in between.

vLLM hands each request's outputs to a `RequestOutputCollector`, whose reader is a task that is
woken for every token. Here the collector's `put` writes the token's bytes itself, in the step that
made it. Measured in docs/decisions.md.
"""

from __future__ import annotations

import asyncio
from typing import Any

from serving.engine.interface import Chunk, Emit, Tally
from serving.errors import EngineFailed


class Outputs:
    """Takes one request's outputs (`vllm.outputs.RequestOutput`) and emits them as chunks.

    `finished` is done when the last one has been emitted, or fails as the request did.
    """

    __slots__ = ("_emit", "_prompt_tokens", "_tally", "finished")

    def __init__(self, prompt_tokens: int, emit: Emit, tally: Tally) -> None:
        self._prompt_tokens = prompt_tokens
        self._emit = emit
        self._tally = tally
        self.finished: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def attach(self, collector: Any) -> None:
        """Take the place of `collector.put`, and what it has collected so far."""
        collector.put = self.put
        if collector.output is not None:
            self.put(collector.output)

    def put(self, output: Any) -> None:
        """Called by vLLM for every step of the request, and once with the exception it dies of.

        Raises nothing: one request's failure must not end vLLM's loop over all of them.
        """
        finished = self.finished
        if finished.done():  # cancelled: what follows is only vLLM's own word of the abort
            return
        if isinstance(output, Exception):
            finished.set_exception(output)
            return
        result = output.outputs[0]
        reason = result.finish_reason
        if reason in ("abort", "error"):
            finished.set_exception(EngineFailed("the engine gave this request up"))
            return
        self._tally.completion_tokens += len(result.token_ids)
        if reason is not None:
            self._tally.prompt_tokens = self._prompt_tokens
            self._tally.queue_s = _queue_s(output.metrics)
        try:
            self._emit(Chunk(result.text, reason))
        except Exception as error:  # noqa: BLE001 - see above
            finished.set_exception(error)
            return
        if output.finished:
            finished.set_result(None)


def _queue_s(metrics: Any) -> float | None:
    """Seconds between the request's arrival in the scheduler and its first step."""
    if metrics is None or not metrics.scheduled_ts or not metrics.queued_ts:
        return None
    return max(0.0, float(metrics.scheduled_ts - metrics.queued_ts))
