"""The router deployment: many replicas of the gateway, each on listeners of its own.

All routers of a machine listen on one port, and the kernel spreads new connections over them. No
proxy stands in between: what a hop costs for every token is measured in docs/decisions.md. Ray
Serve places, scales, drains and heals the routers all the same. Each also has a port that only it
listens on, for Prometheus and for whoever wants this one.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import ray
from ray import serve

from deployments.directory import keep_announced, open_directory
from serving import heap
from serving.catalogue.spec import Catalogue
from serving.gateway.server import Router
from serving.observability.logs import open_log
from serving.observability.tasks import background
from serving.settings import Settings

WATCH_TIMEOUT_S = 10.0


class RouterReplica:
    """One router, and its view of the fleet kept current.

    Args:
        drain_s: how long requests may go on when the replica is taken down, in seconds.
    """

    async def __init__(self, catalogue: dict[str, Any], drain_s: float) -> None:  # type: ignore[misc]
        settings = Settings()
        identity = serve.get_replica_context().replica_id.unique_id
        log = open_log("router", settings.log_dir, router=identity)
        self._router = Router(
            Catalogue.model_validate(catalogue),
            settings,
            router=identity,
            own_host=ray.util.get_node_ip_address(),
            drain_s=drain_s,
            log=log,
        )
        await self._router.start()
        self._directory = open_directory()
        entry = self._router.entry
        self._tasks = [
            background(keep_announced(self._directory, entry), "announce", log),
            background(self._follow_directory(), "follow_directory", log),
        ]
        heap.settle()
        log.info("router_ready", port=entry.port)

    async def _follow_directory(self) -> None:
        epoch, version = "", -1
        while True:
            try:
                epoch, version, entries = await self._directory.watch.remote(
                    epoch, version, WATCH_TIMEOUT_S
                )
            except ray.exceptions.RayError:
                await asyncio.sleep(0.2)
                continue
            self._router.fleet.update(entries)

    async def check_health(self) -> None:
        """Called by Ray Serve."""
        if not self._router.serving:
            raise RuntimeError("the router's HTTP server has stopped")

    async def __del__(self) -> None:
        """Called by Ray Serve when the replica is taken down."""
        for task in getattr(self, "_tasks", ()):
            task.cancel()
        with contextlib.suppress(Exception):
            await self._router.close()
