"""Continuous batching: a thread that owns the model and steps all running requests at once.

Between two steps, requests that ended or whose caller left give up their rows, and waiting ones
take free rows. Each turn of the loop:

1. drop the rows that are over (`Rows.keep`);
2. run the prompts of a group of waiting requests (`Rows.admit`): the one whose turn it is
   (`serving/engine/fair_queue.py`), and others of a similar length, so that little of their common
   width is padding; they get their first tokens;
3. one step for every running row (`Rows.decode`).

A request is admitted only if the caches of all running ones fit in memory at their longest, so a
running request never loses its row. The group's size is bounded too: the other rows stand still
while it runs.
The idea of batching by steps is Orca's (Yu et al., OSDI 2022).
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from serving.engine.fair_queue import FairQueue
from serving.engine.hf.request import BatchedRequest
from serving.engine.hf.rows import Rows
from serving.engine.hf.sampling import choose
from serving.engine.hf.trials import raise_alone
from serving.engine.interface import Chunk, Tally
from serving.errors import EngineFailed, Overloaded
from serving.observability.engine_metrics import BatchMetrics

# In a group, the longer of two prompts has at most twice the tokens of the shorter plus this many.
SIMILAR_TOKENS = 16

_log = logging.getLogger("serving.engine")


@dataclass(frozen=True, slots=True)
class Limits:
    """The most that a batch may hold.

    `rows`: running requests. `waiting`: requests in the queue. `prefill_tokens`: tokens of one
    group of prompts, padding included. `cells`: tokens in the caches, padding included.
    """

    rows: int
    waiting: int
    prefill_tokens: int
    cells: int


class Batcher:
    """Runs requests on `rows`. Make it in the event loop that awaits the requests.

    Args:
        rows: the model; used by the batcher's thread alone from now on.
        ends: token IDs that end a completion.
        queue: where requests wait; used by nobody else from now on.
    """

    def __init__(
        self,
        rows: Rows,
        ends: frozenset[int],
        limits: Limits,
        metrics: BatchMetrics,
        queue: FairQueue,
    ) -> None:
        self._rows = rows
        self._ends = ends
        self._limits = limits
        self._metrics = metrics
        self._loop = asyncio.get_running_loop()
        self._running: list[BatchedRequest] = []
        # Shared with the event loop's thread, under `_wake`.
        self._queue = queue
        self._stopping = False
        self._failed = False
        # The group whose prompts run now.
        self._starting: list[BatchedRequest] = []
        # For the tally of each request that ran as the model failed: see `Suspect.place`.
        self.charges: tuple[tuple[Tally, int | None], ...] = ()
        self._wake = threading.Condition()
        self._thread = threading.Thread(target=self._main, name="model", daemon=True)
        metrics.watch(lambda: self.running, lambda: self.waiting)
        self._thread.start()

    # the event loop's side

    @property
    def running(self) -> int:
        # Requests that are over keep their rows until the next turn.
        return sum(not request.over for request in self._running)

    @property
    def waiting(self) -> int:
        return len(self._queue)

    @property
    def failed(self) -> bool:
        return self._failed

    async def run(self, request: BatchedRequest) -> None:
        """Run a request until its last chunk is emitted; cancelling this frees its row before the
        next step.

        Raises:
            Overloaded: too many requests wait already.
            EngineFailed: the model failed.
        """
        with self._wake:
            if self._failed or self._stopping:
                raise EngineFailed("the engine of this replica failed")
            # Every request enters the queue, even one that gets a free row in the next turn.
            free = max(0, self._limits.rows - len(self._running))
            if len(self._queue) >= self._limits.waiting + free:
                self._displace(request)
            self._queue.arrive(request.claim.flow)
            self._queue.push(request.claim)
            self._wake.notify()
        try:
            await request.done
        except BaseException:
            self._leave(request)
            raise
        finally:
            request.claim.waiter = None  # they refer to each other

    def _displace(self, request: BatchedRequest) -> None:
        """Make room in a full queue: the newest request of whoever has most of them leaves.

        Raises:
            Overloaded: that would be the caller's own.
        """
        claim = self._queue.newest_of_longest(request.claim.flow)
        if claim is None:
            raise Overloaded(f"the queue of this replica is full: {len(self._queue)} requests wait")
        self._queue.remove(claim)
        if not claim.waiter.done.done():
            claim.waiter.done.set_exception(Overloaded("others have fewer requests that wait"))

    def _leave(self, request: BatchedRequest) -> None:
        request.over = True
        with self._wake:
            if request.claim.waits:
                self._queue.remove(request.claim)
            self._wake.notify()

    def _deliver(self, chunks: list[tuple[BatchedRequest, Chunk]]) -> None:
        """Emit what one step made, for all its rows."""
        for request, chunk in chunks:
            if request.done.done():  # cancelled
                continue
            try:
                request.emit(chunk)
            except Exception as error:  # noqa: BLE001 - its own failure, not the other rows'
                request.done.set_exception(error)
                continue
            if chunk.finish_reason is not None:
                request.done.set_result(None)

    def _give_up(self, requests: list[BatchedRequest]) -> None:
        for request in requests:
            if not request.done.done():
                request.done.set_exception(EngineFailed("the engine of this replica failed"))

    async def close(self) -> None:
        """Stop after the current step; requests that have not ended fail."""
        with self._wake:
            self._stopping = True
            self._wake.notify()
        await asyncio.to_thread(self._thread.join)
        self._give_up([*self._running, *self._take_all()])

    def _take_all(self) -> list[BatchedRequest]:
        """Empty the queue."""
        with self._wake:
            claims = self._queue.all()
            for claim in claims:
                self._queue.remove(claim)
        return [claim.waiter for claim in claims]

    # the model's thread

    def _main(self) -> None:
        try:
            with torch.inference_mode():
                while self._work_left():
                    self._turn()
        except BaseException as error:  # noqa: BLE001 - whatever it is, nobody else would see it
            _log.error("model_failed", exc_info=error)
            charges = self._charges()
            with self._wake:
                self.charges = charges
                self._failed = True
            left = [*self._running, *self._take_all()]
            self._running = []
            self._post(lambda: self._give_up(left))

    def _charges(self) -> tuple[tuple[Tally, int | None], ...]:
        """Which requests the model may have failed of: of a group that was new, those that it fails
        of alone, if there are any."""
        group = self._starting
        if not group:
            return tuple((each.tally, each.tally.completion_tokens) for each in self._running)
        fails: list[bool] | None = [True]
        if len(group) > 1:
            with torch.inference_mode():
                fails = raise_alone(self._rows, [(each.prompt, each.sampler) for each in group])
        if fails is None:
            return tuple((each.tally, None) for each in group)
        guilty = tuple((each.tally, None) for each, it in zip(group, fails, strict=True) if it)
        return guilty or tuple((each.tally, 0) for each in group)

    def _work_left(self) -> bool:
        """Wait for work; False once the batcher is to stop."""
        with self._wake:
            while not (self._stopping or self._running or self._queue):
                self._wake.wait()
            return not self._stopping

    def _turn(self) -> None:
        self._drop()
        if group := self._next_group():
            now = time.monotonic()
            for request in group:
                request.begin(now)
            with self._metrics.step("prefill", len(group)):
                # Before the prompts run: if the model fails, the requests in this list are told.
                self._running += group
                self._starting = group
                logits = self._rows.admit([request.prompt for request in group])
                self._take(group, logits)
            self._starting = []
            self._metrics.prompt_tokens(sum(len(request.prompt) for request in group))
            self._drop()
        if self._running:
            with self._metrics.step("decode", len(self._running)):
                logits = self._rows.decode([request.last for request in self._running])
                self._take(self._running, logits)

    def _take(self, requests: list[BatchedRequest], logits: torch.Tensor) -> None:
        """Choose a token for each of these rows, and send the chunks to the event loop."""
        tokens = choose(logits, [request.sampler for request in requests])
        chunks: list[tuple[BatchedRequest, Chunk]] = []
        for request, token in zip(requests, tokens, strict=True):
            if (not request.over) and (chunk := request.take(token, self._ends)) is not None:
                chunks.append((request, chunk))
        with self._wake:
            for request in requests:
                self._queue.charge_completion(request.claim, request.tally.completion_tokens)
        self._metrics.generated_tokens(len(tokens))
        if chunks:
            self._post(lambda: self._deliver(chunks))

    def _drop(self) -> None:
        """Free the rows of requests that are over."""
        kept = [place for place, request in enumerate(self._running) if not request.over]
        if len(kept) < len(self._running):
            self._rows.keep(kept)
            self._running = [self._running[place] for place in kept]

    def _next_group(self) -> list[BatchedRequest]:
        """Take out of the queue the requests whose prompts are to be run now."""
        limits = self._limits
        group: list[BatchedRequest] = []
        lengths = [_lengths(request) for request in self._running]
        with self._wake:
            for claim in self._queue.rounds():
                request = claim.waiter
                if len(lengths) == limits.rows:
                    break
                if group and not self._fits_group(request, group):
                    continue
                if self._rows.cells([*lengths, _lengths(request)]) > limits.cells:
                    # No request overtakes it: it could wait forever behind shorter ones.
                    break
                group.append(request)
                lengths.append(_lengths(request))
            for request in group:
                self._queue.remove(request.claim)
                self._queue.charge_prompt(request.claim)
        return group

    def _fits_group(self, request: BatchedRequest, group: list[BatchedRequest]) -> bool:
        short, long = sorted((len(request.prompt), len(group[0].prompt)))
        width = max(len(request.prompt), *(len(other.prompt) for other in group))
        return (
            long <= 2 * short + SIMILAR_TOKENS
            and width * (len(group) + 1) <= self._limits.prefill_tokens
        )

    def _post(self, callback: Callable[[], None]) -> None:
        # The loop is closed only if the process ends during a step.
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(callback)


def _lengths(request: BatchedRequest) -> tuple[int, int]:
    """Tokens of its prompt, and the most tokens of its completion."""
    return len(request.prompt), request.sampler.params.max_tokens
