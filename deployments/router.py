"""The router deployment: the gateway as a Ray Serve ingress, many replicas.

Ray Serve's HTTP entry (HAProxy) spreads connections over the replicas. Each also has a listener
of its own with the same app, for Prometheus and for load balancers that need no HAProxy.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from typing import Any

import ray
from ray import serve
from starlette.types import ASGIApp, Receive, Scope, Send

from deployments.directory import keep_announced, open_directory
from serving.catalogue.spec import Catalogue
from serving.gateway.app import Gateway
from serving.gateway.fleet import Entry, Fleet
from serving.gateway.resolve import Resolver
from serving.http_server import HttpServer
from serving.observability.logs import open_log
from serving.observability.metrics import RouterMetrics
from serving.observability.tasks import background
from serving.settings import Settings

WATCH_TIMEOUT_S = 10.0


class RouterReplica:
    """One router: builds the gateway and keeps its view of the fleet current."""

    async def __init__(self, catalogue: dict[str, Any]) -> None:  # type: ignore[misc]
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
        self._gateway = Gateway(
            settings=settings,
            resolver=Resolver(parsed),
            fleet=self._fleet,
            metrics=metrics,
            log=log,
            router=router,
        )
        host = ray.util.get_node_ip_address()
        self._own_listener = HttpServer(self._gateway, host)
        await self._own_listener.start()
        port = self._own_listener.port
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

    def __serve_build_asgi_app__(self) -> ASGIApp:
        """Called by Ray Serve after the constructor: the app behind its HTTP entry."""

        async def entrance(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] == "lifespan":
                await _lifespan(receive, send)
                return
            # Ray Serve's own middleware already answers with x-request-id.
            scope["serving.request_id_set"] = True
            await self._gateway(scope, receive, send)

        return entrance

    async def __del__(self) -> None:
        """Called by Ray Serve when the replica is taken down."""
        for task in getattr(self, "_tasks", ()):
            task.cancel()
        with contextlib.suppress(Exception):
            await self._own_listener.close()
            await self._fleet.close()


async def _lifespan(receive: Receive, send: Send) -> None:
    """Nothing to do at either end: the constructor and `__del__` did it."""
    while True:
        kind = (await receive())["type"]
        await send({"type": f"{kind}.complete"})
        if kind == "lifespan.shutdown":
            return
