"""Leases: how a router keeps the replicas of a model with `min_replicas` running.

Ray Serve's own autoscaler starts and stops them, and it goes by the calls it sees. It sees none of
ours, so a router that needs a model holds one call to it, the lease, for as long as the model is
in use; Serve starts the replicas while there is a lease and stops them when there is none. A lease
that waits for the first replica is what wakes a model that sleeps.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

from serving.observability.logs import Log
from serving.observability.tasks import background

RETRY_S = 0.5

# Calls `hold_lease` of a model's replicas; returns when the lease is over.
Hold = Callable[[str], Awaitable[None]]


class Leases:
    """The leases of one router.

    Args:
        hold: holds one lease on a model.
    """

    def __init__(self, hold: Hold, log: Log) -> None:
        self._hold_one = hold
        self._log = log
        self._held: dict[str, asyncio.Task[None]] = {}

    def want(self, model: str, wanted: bool) -> None:
        """Hold a lease on `model` from now on, or no longer."""
        if wanted and model not in self._held:
            self._log.info("lease_taken", model=model)
            self._held[model] = background(self._hold(model), "lease", self._log)
        elif not wanted and model in self._held:
            self._log.info("lease_dropped", model=model)
            self._held.pop(model).cancel()

    def close(self) -> None:
        for model in list(self._held):
            self.want(model, False)

    async def _hold(self, model: str) -> None:
        while True:
            # The replica may die, or the application may not exist yet.
            with contextlib.suppress(Exception):
                await self._hold_one(model)
                continue
            await asyncio.sleep(RETRY_S)
