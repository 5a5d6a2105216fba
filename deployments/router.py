"""The router deployment: the gateway on listeners of its own, many replicas.

All routers of a machine listen on one port, and the kernel spreads new connections over them. No
proxy stands in between: what a hop costs for every token is measured in docs/decisions.md. Ray
Serve places, scales, drains and heals the routers all the same. Each also has a port that only it
listens on, for Prometheus and for whoever wants this one.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from typing import Any

import ray
from ray import serve

from deployments.directory import keep_announced, open_directory
from serving.catalogue.spec import Catalogue
from serving.gateway.app import Gateway
from serving.gateway.fleet import Entry, Fleet
from serving.gateway.resolve import Resolver
from serving.http_server import HttpServer, listen
from serving.observability.logs import open_log
from serving.observability.metrics import RouterMetrics
from serving.observability.tasks import background
from serving.settings import Settings

WATCH_TIMEOUT_S = 10.0


class RouterReplica:
    """One router: builds the gateway and keeps its view of the fleet current.

    Args:
        drain_s: how long requests may go on when the replica is taken down, in seconds.
    """

    async def __init__(self, catalogue: dict[str, Any], drain_s: float) -> None:  # type: ignore[misc]
        settings = Settings()
        parsed = Catalogue.model_validate(catalogue)
        router = serve.get_replica_context().replica_id.unique_id
        log = open_log("router", settings.log_dir, router=router)
        metrics = RouterMetrics()
        self._directory = open_directory()
        self._fleet = Fleet(
            [spec.id for spec in parsed.engines],
            router=router,
            token=settings.cluster_token.get_secret_value(),
            metrics=metrics,
            log=log,
            rng=random.Random(),
        )
        gateway = Gateway(
            settings=settings,
            resolver=Resolver(parsed),
            fleet=self._fleet,
            metrics=metrics,
            log=log,
            router=router,
        )
        host = ray.util.get_node_ip_address()
        sockets = [listen(host), listen(settings.host, settings.port, shared=True)]
        self._http = HttpServer(gateway, sockets, drain_s=drain_s)
        await self._http.start()
        port = self._http.port
        entry = Entry(router, "router", "", host, port, f"{host}:{port}")
        self._tasks = [
            background(keep_announced(self._directory, entry), "announce", log),
            background(self._follow_directory(), "follow_directory", log),
        ]
        log.info("router_ready", port=port)

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
            self._fleet.update(entries)

    async def check_health(self) -> None:
        """Called by Ray Serve."""
        if not self._http.serving:
            raise RuntimeError("the router's HTTP server has stopped")

    async def __del__(self) -> None:
        """Called by Ray Serve when the replica is taken down: other routers take what comes, this
        one ends what it has."""
        if not hasattr(self, "_tasks"):
            return
        with contextlib.suppress(Exception):
            await self._http.close()
        for task in self._tasks:
            task.cancel()
        with contextlib.suppress(Exception):
            await self._fleet.close()
