"""The router deployment: routers as replicas of Ray Serve, each on listeners of its own.

All routers of a machine listen on one port, and the kernel spreads new connections over them. No
proxy stands in between: what a hop costs for every token is measured in docs/decisions.md. Ray
Serve places, scales, drains and heals the routers all the same. Each router also has a port that
only it listens on, for Prometheus and for requests to this very router.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import ray
from ray import serve

from deployments.code import router_code
from deployments.directory import Directory, keep_announced
from deployments.leases import Leases
from deployments.names import ENGINE
from deployments.ray_internals import asks_for_token, open_no_grpc_port
from serving import heap
from serving.catalogue.catalogue import Catalogue
from serving.catalogue.names import engine_app_name
from serving.observability.logs import open_log
from serving.observability.tasks import background
from serving.router.router import Router
from serving.settings import Settings

WATCH_TIMEOUT_S = 10.0


class RouterReplica:
    """One router, and its view of the fleet kept current.

    Args:
        drain_s: how long requests may go on when the replica is taken down, in seconds.
        leave_s: how long load balancers have to leave before that, in seconds.
    """

    async def __init__(self, drain_s: float, leave_s: float) -> None:  # type: ignore[misc]
        open_no_grpc_port()
        settings = Settings()
        identity = serve.get_replica_context().replica_id.unique_id
        self._log = log = open_log("router", settings.log_dir, router=identity)
        if not asks_for_token():
            log.error("ray_asks_for_no_token", risk="who reaches Ray's ports may run anything here")
        self._leases = Leases(_hold_lease, log)
        self._router = Router(
            settings,
            router=identity,
            own_host=ray.util.get_node_ip_address(),
            drain_s=drain_s,
            leave_s=leave_s,
            log=log,
            want=self._leases.want,
            code=router_code(),
        )
        self._directory = Directory()
        self._tasks: list[asyncio.Task[None]] = []

    async def reconfigure(self, catalogue: dict[str, Any]) -> None:
        """Called by Ray Serve with the catalogue, at the start and whenever it changes."""
        self._catalogue = taken = Catalogue.model_validate(catalogue)
        await self._router.set_catalogue(taken)
        self._log.info("catalogue_taken", deployed=len(taken.deployed), known=len(taken.models))
        if self._tasks:
            return
        await self._router.start()
        entry = self._router.entry
        self._tasks = [
            background(keep_announced(self._directory, entry), "announce", self._log),
            background(self._follow_directory(), "follow_directory", self._log),
        ]
        heap.settle()
        self._log.info("router_ready", port=entry.port)

    async def _follow_directory(self) -> None:
        epoch, version = "", -1
        while True:
            try:
                epoch, version, entries = await self._directory.watch(
                    epoch, version, WATCH_TIMEOUT_S
                )
            except ray.exceptions.RayError:
                await asyncio.sleep(0.2)
                continue
            self._router.fleet.update(entries)

    async def catalogue(self) -> dict[str, Any]:
        """Called by `serving apply`: what this router serves."""
        return self._catalogue.model_dump(mode="json")

    async def check_health(self) -> None:
        """Called by Ray Serve."""
        if not self._router.serving:
            raise RuntimeError("the router's HTTP server has stopped")

    async def __del__(self) -> None:
        """Called by Ray Serve when the replica is taken down.

        Requests go on meanwhile, and engines may come and go: the directory is followed to the end.
        """
        if hasattr(self, "_router"):
            with contextlib.suppress(Exception):
                await self._router.close()
            self._leases.close()
        for task in getattr(self, "_tasks", ()):
            task.cancel()
        if getattr(self, "_tasks", ()):
            with contextlib.suppress(Exception):
                await self._directory.withdraw(self._router.entry.id)


async def _hold_lease(model: str) -> None:
    handle = serve.get_deployment_handle(ENGINE, engine_app_name(model))
    await handle.hold_lease.remote()
