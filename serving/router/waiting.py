"""Requests for a model that sleeps, has just lost its last replica, or is new to this router, wait
here for the next replica.

A stream is kept alive by comments that say why it waits. A request that is not streamed waits for a
shorter time, since nothing can be sent to its client meanwhile. How long a start takes is estimated
from the last one that was seen.
"""

from __future__ import annotations

import asyncio
import time

from serving.errors import ClientLeft, EngineFailed, ModelUnavailable, Overloaded, ServingError
from serving.router.demand import Demand
from serving.router.fleet import Fleet
from serving.router.response import Response

# Estimate for a model that has never been seen to start, in seconds.
UNKNOWN_START_S = 30.0
# Estimate of what is left of a start that takes longer than expected, in seconds.
SOON_S = 5.0
# How long after the loss of its last replica, or after a router has learned of it, a model is
# expected: so many times as long as it
# takes to start, and no less than so many seconds.
PATIENT_STARTS = 4
PATIENCE_S = 120.0


class Waiting:
    """The waiting requests of one router.

    Args:
        hold_s: how long a request that is not streamed may wait, in seconds.
        hold_stream_s: how long a stream may wait, in seconds.
        hold_max: how many may wait at once, over all models; each has its body in memory.
    """

    def __init__(
        self,
        fleet: Fleet,
        demand: Demand,
        *,
        hold_s: float,
        hold_stream_s: float,
        hold_max: int,
    ) -> None:
        self._fleet = fleet
        self._demand = demand
        self._hold_s = hold_s
        self._hold_stream_s = hold_stream_s
        self._hold_max = hold_max
        self._held = 0
        self.starts = Starts(fleet, demand)

    def coming(self, model: str, failure: ServingError | None = None) -> bool:
        """True if a replica of a model that has none to offer is known to be coming.

        That is so when the model sleeps and the request wakes it, when it had a replica until
        lately, which Ray Serve replaces, or when this router has lately learned of it: Ray Serve
        starts a new model, and a new router may come while a replica is being replaced. A model
        that has been away for much longer than it takes to start is as likely to stay away.

        Args:
            failure: why a replica that may still look alive failed on this request.
        """
        if failure is not None:
            # One that failed for another reason stays, and no other comes.
            return isinstance(failure, EngineFailed) and self._fleet.has(model)
        return self._demand.sleeps(model) or self.starts.expected(model)

    async def until_ready(
        self,
        model: str,
        response: Response,
        *,
        stream: bool,
        held_s: float = 0.0,
    ) -> float:
        """Wait until `model` has a replica; return how long the request has waited in all, in
        seconds.

        One that failed on the request and is up yet counts: a replica whose engine died says that
        it takes nothing more before its calls fail, so this one lives.

        Args:
            held_s: how long the request has waited before.

        Raises:
            ModelUnavailable: it took too long, or the model is no longer served here.
            Overloaded: too many wait already, for this model or another.
            ClientLeft: the client left while it waited.
        """
        self.starts.expect(model)
        if self._held >= self._hold_max:
            late = self.starts.unavailable(model)
            raise Overloaded(
                f"model '{model}' {self.starts.state(model)}, and {self._held} requests wait at "
                "this router for models to start, which is the limit; try again in "
                f"{late.retry_after_s:.0f} s",
                retry_after_s=late.retry_after_s,
            )
        wake = asyncio.Event()
        limit_s = (self._hold_stream_s if stream else self._hold_s) - held_s
        began = time.monotonic()
        self._held += 1
        try:
            with response.attended(wake.set), self._fleet.watch(model, wake.set):
                async with asyncio.timeout(limit_s):
                    while not self._fleet.ready(model):
                        await wake.wait()
                        wake.clear()
                        if response.left:
                            raise ClientLeft("the client left")
                        if not self._fleet.has(model):
                            raise ModelUnavailable(f"model '{model}' is served here no longer")
                        await response.beat(self.starts.news(model))
        except TimeoutError:
            raise self.starts.unavailable(model) from None
        finally:
            self._held -= 1
        return held_s + time.monotonic() - began


class Starts:
    """How long models take to start, as this router has seen it."""

    def __init__(self, fleet: Fleet, demand: Demand) -> None:
        self._fleet = fleet
        self._demand = demand
        # For each model that is starting: when the first request began to wait.
        self._since: dict[str, float] = {}
        self._took: dict[str, float] = {}

    def expect(self, model: str) -> None:
        """Time the start of `model` from now on, or from when its last replica was lost, unless it
        is being timed already."""
        if model in self._since:
            return
        asleep = self._asleep(model)
        # One that this router has never seen may have run all along.
        tells = asleep or self._fleet.seen(model)
        lost_at = None if asleep else self._fleet.lost_at(model)
        self._since[model] = time.monotonic() if lost_at is None else lost_at

        def changed() -> None:
            stop()
            took_s = self._waited_s(model)
            del self._since[model]
            if tells and self._fleet.ready(model):
                self._took[model] = took_s

        stop = self._fleet.subscribe(model, changed)

    def unavailable(self, model: str) -> ModelUnavailable:
        """The error for a request that has waited as long as it may."""
        waited = self._waited_s(model)
        usual = self._usual(model)
        left = max(SOON_S, (UNKNOWN_START_S if usual is None else usual) - waited)
        return ModelUnavailable(
            f"model '{model}' {self._story(model, waited)}; {_said(usual)}; "
            f"try again in {left:.0f} s",
            retry_after_s=left,
        )

    def news(self, model: str) -> bytes:
        """A comment for a stream that waits: why, and how long it may take."""
        lost = self._fleet.seen(model) and not self._asleep(model)
        what = "lost its last replica and starts again" if lost else "is starting"
        return f": model '{model}' {what}; {_said(self._usual(model))}\n\n".encode()

    def expected(self, model: str) -> bool:
        """True if the model has been away for so short a time that a replica may yet come."""
        if (lost_at := self._fleet.lost_at(model)) is None:
            return False
        patience_s = max(PATIENCE_S, PATIENT_STARTS * (self._usual(model) or 0.0))
        return time.monotonic() - lost_at < patience_s

    def state(self, model: str) -> str:
        """Why the model has no replica, as the rest of a sentence."""
        if self._asleep(model):
            return "is asleep"
        return "has lost its last replica" if self._fleet.seen(model) else "has no replica yet"

    def _story(self, model: str, waited_s: float) -> str:
        if self._asleep(model):
            return f"was asleep and has been starting for {waited_s:.0f} s"
        if not self._fleet.seen(model):
            return f"has had no replica yet in the {waited_s:.0f} s that this router knows of it"
        return f"lost its last replica {waited_s:.0f} s ago, and a new one is starting"

    def _asleep(self, model: str) -> bool:
        """True if the model has no replica because nobody asked for it; False if it lost the last
        one while it was needed here."""
        if not self._demand.sleeps(model):
            return False
        lost_at = self._fleet.lost_at(model)
        return lost_at is None or lost_at < self._demand.wanted_since(model)

    def _usual(self, model: str) -> float | None:
        """How long the model's last start took, in seconds: as seen here, or else as its replica
        says. None if neither is known."""
        return self._took.get(model, self._fleet.start_s(model))

    def _waited_s(self, model: str) -> float:
        """How long the model has been starting, in seconds. A start that was given up because
        nobody asked for the model any more does not count."""
        now = time.monotonic()
        return now - max(self._since.get(model, now), self._demand.wanted_since(model))


def _said(usual: float | None) -> str:
    if usual is None:
        return "how long it takes to start is not known here yet"
    return f"its last start took {usual:.0f} s"
