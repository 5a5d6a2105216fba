"""Whose request goes to the engine core next: fair between accounts, batch requests last.

vLLM's scheduler serves first what came first, so an account with 500 requests would be served
before everybody who comes later. Here the core gets only what there is room for (`room.py`). The
others wait in this process, where the order can still change (`serving/engine/fair_queue.py`), and
go to the core as there is room: once a step, and when a request is aborted. While nobody waits a
request goes straight on.

What goes to the core has one of vLLM's priorities: a batch request comes after all others, and a
request of a flow that runs many after those of flows that run few. The scheduler goes by it when it
lacks memory, too: it preempts the requests of the highest number first. A caller's own `priority`
can only make its request a batch request.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import ContextVar
from http import HTTPStatus
from typing import Any, NamedTuple

from vllm.exceptions import GracefulHTTPError, QueueOverflowError
from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.engine.exceptions import EngineDeadError

from serving.engine.fair_queue import Claim, FairQueue, Flow
from serving.engine.queue_limits import QueueLimits
from serving.engine.vllm.patches import BEAM
from serving.engine.vllm.patches.room import Room
from serving.engine.vllm.patches.shares import counts
from serving.observability.engine_metrics import QueueMetrics
from serving.wire.messages import Standing

# Of a token in a request that waits: the list has a pointer, and most of the numbers are objects.
TOKEN_BYTES = 36


class _Current(NamedTuple):
    """The call whose request is being added; see `Turns.begin`."""

    flow: Flow
    weight: float
    size: int
    waits: dict[str, float]


class Turns:
    """Holds requests back until it is their turn.

    Args:
        llm: its requests take turns from now on. Those that are added outside of a call do not, nor
            the steps of a beam search.
    """

    def __init__(self, llm: AsyncLLM, limits: QueueLimits, metrics: QueueMetrics) -> None:
        scheduler = llm.vllm_config.scheduler_config
        self._by_priority = scheduler.policy == "priority"
        self._limits = limits
        self._metrics = metrics
        self._llm = llm
        self._states = llm.output_processor.request_states
        self._queue = FairQueue(limits.prompt_weight, limits.completion_weight)
        self._room = Room(scheduler, self._states, self._queue, limits)
        self._call: ContextVar[_Current | None] = ContextVar("turn", default=None)
        metrics.watch(lambda batch: self._queue.waiting(batch=batch), lambda: self._queue.size)
        self._patch(llm)

    @property
    def waiting(self) -> int:
        """Requests that wait for their turn."""
        return len(self._queue)

    def begin(self, standing: Standing, size: int, waits: dict[str, float]) -> None:
        """Begin a call. Requests that the current task adds, or a task it starts, belong to it.

        Args:
            size: bytes of the call's body.
            waits: gets how long each request waited, by its ID, in seconds.
        """
        flow = self._limits.flow_of(standing)
        self._call.set(_Current(flow, standing.weight, size, waits))

    def _patch(self, llm: AsyncLLM) -> None:
        send, processor = llm.engine_core.add_request_async, llm.output_processor

        async def send_in_turn(request: Any) -> None:
            call = self._call.get()
            if call is None or BEAM in (request.external_req_id or ""):
                request.priority = 0
            else:
                await self._turn(call, request)
            await send(request)

        def check_or_displace(n: int = 1, request_id: str | None = None) -> None:
            try:
                check(n, request_id)
            except QueueOverflowError:
                if not self._displace(n):
                    self._metrics.refused.labels("full").inc()
                    raise
                check(n, request_id)

        check = llm.check_admission
        llm.engine_core.add_request_async = send_in_turn
        llm.check_admission = check_or_displace
        # Once a step, when its outputs have been processed.
        processor.update_scheduler_stats = _then(processor.update_scheduler_stats, self._step)
        processor.abort_requests = _then(processor.abort_requests, self._fill)
        processor.propagate_error = _then(processor.propagate_error, self._fail)

    # one request

    async def _turn(self, call: _Current, request: Any) -> None:
        """Return when it is the request's turn.

        Raises:
            GracefulHTTPError: it was put out of the queue, or never came in.
            EngineDeadError: the engine died.
        """
        flow = call.flow
        if request.priority > 0 and not flow.batch:
            flow = Flow(flow.owner, batch=True)
        tokens, _ = counts(request)
        claim = Claim(request.request_id, flow, call.weight, tokens)
        state = self._states.get(claim.name)
        claim.text = None if state is None else state.detokenizer
        self._room.mark(flow)
        self._queue.arrive(flow)
        if self._queue or not self._has_room(claim):
            claim.size = call.size + _size(request)
            await self._wait(claim, call.waits)
        else:
            self._grant(claim)
        request.priority = self._room.priority(claim) if self._by_priority else 0

    async def _wait(self, claim: Claim, waits: dict[str, float]) -> None:
        if self._llm.errored:
            raise EngineDeadError
        self._make_room(claim)
        loop = asyncio.get_running_loop()
        claim.waiter = loop.create_future()
        limits, since = self._limits, loop.time()
        longest = limits.batch_wait_s if claim.flow.batch else limits.wait_s
        late = f"the request waited {longest:g} s for its turn"
        timer = loop.call_later(longest, self._refuse, claim, "late", late)
        self._queue.push(claim)
        self._fill()
        try:
            await claim.waiter
        finally:
            timer.cancel()
            if claim.waits:
                self._queue.remove(claim)
            waits[claim.name] = waited = loop.time() - since
            self._metrics.waited(waited, batch=claim.flow.batch)

    def _refuse(self, claim: Claim, reason: str, message: str) -> None:
        """Take a claim out of the queue; its request fails."""
        if claim.waits:
            self._queue.remove(claim)
            self._metrics.refused.labels(reason).inc()
            _end(claim, Refused(message))

    def _grant(self, claim: Claim) -> None:
        self._queue.charge_prompt(claim)
        self._room.take(claim)

    # room

    def _has_room(self, claim: Claim) -> bool:
        """True if the core can take a claim; looks at it again before it says no."""
        if self._room.fits(claim):
            return True
        self._room.look()
        return self._room.fits(claim)

    def _next(self) -> Claim | None:
        """Whose turn it is, if there is room. Where it is not enough for the first one, nobody but
        a light one passes, since a long prompt would never find room for so many tokens; and none
        of a flow that is ahead by more than a step's worth. Who waits for a prompt of its own keeps
        nobody."""
        room, limit = self._room, None
        for claim in self._queue.candidates():
            if not room.is_next_piece(claim):
                continue
            light = room.is_light(claim)
            counter = self._queue.counter(claim.flow)
            if limit is None or (light and counter <= limit):
                if room.fits(claim):
                    return claim
                if light:
                    return None
                if limit is None:
                    limit = counter + room.step_worth
        return None

    def _step(self) -> None:
        self._fill()
        self._room.step()

    def _fill(self) -> None:
        """Give turns while there is room."""
        if not self._queue:
            return
        self._room.look()
        while claim := self._next():
            self._queue.remove(claim)
            if not claim.waiter.done():  # else it was cancelled in this turn of the event loop
                self._grant(claim)
                claim.waiter.set_result(None)

    def _displace(self, count: int) -> bool:
        """Put out the newest requests of whoever has most of them waiting, to have room for
        `count` of the current call's; true if so many had to leave."""
        call = self._call.get()
        if call is None:
            return False
        for _ in range(count):
            claim = self._queue.newest_of_longest(call.flow)
            if claim is None:
                return False
            self._put_out(claim)
        return True

    def _make_room(self, claim: Claim) -> None:
        """Have the bytes that the claim takes; raises as `_turn`."""
        while self._queue.size + claim.size > self._limits.bytes and self._queue:
            other = self._queue.newest_of_longest(claim.flow, by_size=True)
            if other is None or other.size < claim.size:
                self._metrics.refused.labels("bytes").inc()
                raise Refused("the requests that wait have too many bytes")
            self._put_out(other)

    def _put_out(self, claim: Claim) -> None:
        self._refuse(claim, "displaced", "others have fewer requests that wait")
        # At once, so that it no longer counts.
        self._llm.output_processor.abort_requests([claim.name], internal=True)

    def _fail(self) -> None:
        """The engine is dead: nobody's turn comes any more."""
        for claim in self._queue.all():
            self._queue.remove(claim)
            _end(claim, EngineDeadError())


class Refused(GracefulHTTPError):  # type: ignore[misc]  # vLLM is not typed for us
    """A request that does not get a turn here; another replica may have one for it."""

    def __init__(self, message: str) -> None:
        super().__init__(message, HTTPStatus.SERVICE_UNAVAILABLE)


def _end(claim: Claim, error: Exception) -> None:
    if not claim.waiter.done():
        claim.waiter.set_exception(error)


def _then(function: Callable[..., Any], after: Callable[[], None]) -> Callable[..., Any]:
    def both(*args: Any, **kwargs: Any) -> Any:
        result = function(*args, **kwargs)
        after()
        return result

    return both


def _size(request: Any) -> int:
    """Bytes of a request's prompt and of what else it is made of."""
    size = TOKEN_BYTES * len(request.prompt_token_ids or ())
    for feature in request.mm_features or ():
        data = getattr(feature, "data", None)
        for item in (data or {}).values():
            size += getattr(getattr(item, "data", None), "nbytes", 0)
    return size
