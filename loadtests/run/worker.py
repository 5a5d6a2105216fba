"""Sends everything that one process has to send, on time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Any

from loadtests.clock import Clock
from loadtests.load.planned import PhasePlan, Turns
from loadtests.measure.client import ClientFigures, Watch
from loadtests.measure.record import Record
from loadtests.run.agenda import Agenda
from loadtests.run.feed import DEPTH, Feed
from loadtests.run.session import Counts, Run, Session
from loadtests.scenarios.model import Target
from loadtests.wire.client import Client
from loadtests.wire.service import Service

LOOK_S = 0.02


@dataclass(frozen=True, slots=True)
class Driven:
    """How one process fared."""

    counts: Counts
    figures: ClientFigures
    connections: int  # opened in all
    limited: int  # requests that failed for a limit of this machine: files, ports, memory
    interrupted_s: float | None  # when the run was ended by hand
    unfinished: int  # requests that were in flight then; they have no records


class Worker:
    """One process's part of a run."""

    def __init__(
        self,
        plans: list[PhasePlan],
        client: Client,
        clock: Clock,
        sink: Callable[[Record], None],
        name: str = "0",
    ) -> None:
        """Takes the first sessions from the plans, so that they are ready when the run begins."""
        self._name = name
        self._agenda = Agenda(clock)
        self._clock = clock
        self._client = client
        self._plans = plans
        self.counts = Counts()
        counted = {plan.name: plan.counted for plan in plans}
        end_s = max(plan.end_s for plan in plans)
        self._run = Run(client, clock, self._agenda, counted, end_s, sink, self.counts)
        opened = chain.from_iterable(p.sessions for p in plans if p.concurrency is None)
        self._open = Feed(opened, client.prepare)
        self._closed = {
            plan.name: Feed(plan.sessions, client.prepare, max(1, min(plan.concurrency, DEPTH)))
            for plan in plans
            if plan.concurrency is not None
        }
        self._feeding = 1 + len(self._closed)  # sources that may begin a session yet
        self._sessions = 0  # that have begun and not ended
        self._over = asyncio.get_running_loop().create_future()
        self._interrupted_s: float | None = None
        self._unfinished = 0

    @property
    def in_flight(self) -> int:
        """Requests that have not ended."""
        return self._client.in_flight

    async def drive(self) -> Driven:
        """Send everything, and wait for all answers. The clock's start is known by now.

        What goes wrong in a callback (a trace's file that breaks off, say) is raised here: a run
        that went on without it would not be the one that was asked for.
        """
        asyncio.get_running_loop().set_exception_handler(self._failed)
        late_s = max(0.0, self._clock.now())
        watch = Watch(self._name)
        self._look_at(watch, self._clock.now())
        self._next_open()
        for plan in self._plans:
            if plan.concurrency is not None:
                self._agenda.at(plan.start_s, partial(self._begin_closed, plan))
        try:
            await self._over
        finally:
            self._agenda.close()
            self._client.close()
        interrupted = self._interrupted_s is not None
        return Driven(
            self.counts,
            watch.figures(due=self.counts.due, interrupted=interrupted, started_late_s=late_s),
            self._client.connections,
            self._client.limited,
            self._interrupted_s,
            self._unfinished,
        )

    def _failed(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if "transport" in context or "protocol" in context:
            # What a service did to a connection, as a TLS record that is none: the request's
            # record tells it.
            if not isinstance(error, OSError):
                loop.default_exception_handler(context)
        elif error is None or self._over.done():
            loop.default_exception_handler(context)
        else:
            self._over.set_exception(error)

    def _look_at(self, watch: Watch, due_s: float) -> None:
        """See every 20 ms how late it is seen: so late were events read and requests sent."""

        def look() -> None:
            watch.look(self._clock.start + due_s)
            self._look_at(watch, max(due_s + LOOK_S, self._clock.now()))

        self._agenda.at(due_s, look)

    def interrupt(self) -> None:
        """End the run now. What is in flight is ended and leaves no records."""
        if self._over.done():
            return
        self._interrupted_s = self._clock.now()
        self._agenda.close()
        self._unfinished = self._client.abandon()
        self._over.set_result(None)

    # --- open loop ---

    def _next_open(self) -> None:
        """Have the next session begun when it is due: whatever the service does meanwhile."""
        found = self._open.pop()
        if found is None:
            self._source_ended()
            return
        turns, request = found
        due_s = turns[0].due_s
        assert due_s is not None, "a session of an open loop has a time"
        self._agenda.at(due_s, lambda: self._begin_open(turns, due_s, request))

    def _begin_open(self, turns: Turns, due_s: float, request: bytes) -> None:
        self._sessions += 1
        Session(self._run, turns, self._session_ended).begin(due_s, request)
        self._next_open()

    # --- closed loop ---

    def _begin_closed(self, plan: PhasePlan) -> None:
        assert plan.concurrency is not None
        self._sessions += plan.concurrency
        self._source_ended()
        for _ in range(plan.concurrency):
            self._next_closed(plan, plan.start_s)

    def _next_closed(self, plan: PhasePlan, due_s: float) -> None:
        """Begin the next session in this place: it is due when the one before has ended."""
        found = None if due_s >= plan.end_s else self._closed[plan.name].pop()
        if found is None:
            self._session_ended(due_s)
            return
        turns, request = found

        def ended(at_s: float) -> None:
            # Not from within the callback that has read the answer: others are to be parsed yet.
            asyncio.get_running_loop().call_soon(self._next_closed, plan, at_s)

        Session(self._run, turns, ended).begin(due_s, request)

    # --- the end ---

    def _session_ended(self, at_s: float) -> None:
        self._sessions -= 1
        self._look()

    def _source_ended(self) -> None:
        self._feeding -= 1
        self._look()

    def _look(self) -> None:
        if not self._feeding and not self._sessions and not self._over.done():
            self._over.set_result(None)


async def drive(
    plans: list[PhasePlan], target: Target, clock: Clock, sink: Callable[[Record], None]
) -> Driven:
    """Send everything; `sink` is called once for each request that has ended."""
    client = Client(Service(target.url), clock, target.timeout_s)
    return await Worker(plans, client, clock, sink).drive()
