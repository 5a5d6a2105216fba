"""Requests for a model that sleeps wait here until its first replica is up.

A stream is kept alive by comments that say why it waits. A request that is not streamed waits for a
shorter time, since nothing can be sent to its client meanwhile. How long a start takes is estimated
from the last one that was seen.
"""

from __future__ import annotations

import asyncio
import time

from serving.errors import ClientLeft, ModelUnavailable, Overloaded
from serving.router.demand import Demand
from serving.router.fleet import Fleet
from serving.router.response import Response

# Estimate for a model that has never been seen to start, in seconds.
UNKNOWN_START_S = 30.0
# Estimate of what is left of a start that takes longer than expected, in seconds.
SOON_S = 5.0


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
        self._hold_s = hold_s
        self._hold_stream_s = hold_stream_s
        self._hold_max = hold_max
        self._held = 0
        self.starts = Starts(fleet, demand)

    async def until_ready(self, model: str, response: Response, *, stream: bool) -> None:
        """Return when `model` has a replica.

        Raises:
            ModelUnavailable: it took too long, or the model is no longer served here.
            Overloaded: too many wait already, for this model or another.
            ClientLeft: the client left while it waited.
        """
        self.starts.expect(model)
        if self._held >= self._hold_max:
            late = self.starts.unavailable(model)
            raise Overloaded(
                f"model '{model}' is asleep, and {self._held} requests wait at this router for "
                f"models to start, which is the limit; try again in {late.retry_after_s:.0f} s",
                retry_after_s=late.retry_after_s,
            )
        wake = asyncio.Event()
        self._held += 1
        try:
            with response.attended(wake.set), self._fleet.watch(model, wake.set):
                async with asyncio.timeout(self._hold_stream_s if stream else self._hold_s):
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


class Starts:
    """How long models take to start, as this router has seen it."""

    def __init__(self, fleet: Fleet, demand: Demand) -> None:
        self._fleet = fleet
        self._demand = demand
        # For each model that is starting: when the first request began to wait.
        self._since: dict[str, float] = {}
        self._took: dict[str, float] = {}

    def expect(self, model: str) -> None:
        """Time the start of `model` from now on, unless it is being timed already."""
        if model in self._since:
            return
        self._since[model] = time.monotonic()

        def changed() -> None:
            stop()
            took_s = self._waited_s(model)
            del self._since[model]
            if self._fleet.ready(model):
                self._took[model] = took_s

        stop = self._fleet.subscribe(model, changed)

    def unavailable(self, model: str) -> ModelUnavailable:
        """The error for a request that has waited as long as it may."""
        waited = self._waited_s(model)
        usual = self._usual(model)
        left = max(SOON_S, (UNKNOWN_START_S if usual is None else usual) - waited)
        return ModelUnavailable(
            f"model '{model}' was asleep and has been starting for {waited:.0f} s; "
            f"{_said(usual)}; try again in {left:.0f} s",
            retry_after_s=left,
        )

    def news(self, model: str) -> bytes:
        """A comment for a stream that waits: why, and how long it may take."""
        return f": model '{model}' is starting; {_said(self._usual(model))}\n\n".encode()

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
        return "it has not been started before"
    return f"its last start took {usual:.0f} s"
