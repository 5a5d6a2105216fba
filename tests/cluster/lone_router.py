"""A router by itself in front of one engine server, with a listener of its own: no Ray."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from prometheus_client.parser import text_string_to_metric_families

from serving.catalogue.catalogue import Catalogue
from serving.observability.logs import open_log
from serving.router.router import Router
from serving.settings import Settings
from serving.wire.entry import Entry
from tests.cluster.engine_server import REPLICA, TOKEN, EngineServer
from tests.conftest import Eventually


@dataclass(frozen=True)
class LoneRouter:
    """`client` asks the router, without a key."""

    url: str
    client: httpx.AsyncClient
    _ops: httpx.AsyncClient

    async def metric(self, name: str) -> float:
        """The sum of one of the engine's metrics over all its labels."""
        text = (await self._ops.get("/metrics")).text
        return sum(
            sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == name
        )


@asynccontextmanager
async def lone_router(
    catalogue: Catalogue,
    engine: EngineServer,
    folder: Path,
    eventually: Eventually,
    **settings: Any,
) -> AsyncIterator[LoneRouter]:
    """Yield it once it knows the engine as ready; the engine has the catalogue's only engine model.

    Args:
        folder: for its log.
        settings: those that are not as everywhere.
    """
    model = catalogue.engines[0].id
    fields = {"host": "127.0.0.1", "port": 0, "cluster_token": TOKEN, **settings}
    router = Router(
        Settings.model_validate(fields),
        router="r1",
        own_host="127.0.0.1",
        drain_s=0.0,
        log=open_log("lone-router-test", str(folder)),
    )
    await router.set_catalogue(catalogue)
    ready = engine.ready
    at = ("127.0.0.1", ready.link_port, f"127.0.0.1:{ready.ops_port}")
    router.fleet.update([Entry(REPLICA, "engine", model, *at)])
    await router.start()
    url = f"http://127.0.0.1:{router.port}"
    try:
        await eventually(lambda: router.fleet.ready(model) == 1)
        async with (
            httpx.AsyncClient(base_url=url, trust_env=False, timeout=60) as client,
            httpx.AsyncClient(base_url=f"http://{at[2]}", trust_env=False) as ops,
        ):
            yield LoneRouter(url, client, ops)
    finally:
        await router.close()
