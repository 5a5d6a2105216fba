"""The hosted providers of a catalogue: one client per provider, one local replica per model."""

from __future__ import annotations

import asyncio
import importlib
import random
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from serving.catalogue.catalogue import Catalogue
from serving.catalogue.spec import UpstreamSpec
from serving.observability.logs import Log
from serving.observability.router_metrics import RouterMetrics
from serving.router.local import LocalReplica

if TYPE_CHECKING:
    from serving.upstream.client import ProviderClient


class HostedModels:
    """The local replicas of a catalogue's hosted models. `replicas` has them by model ID and is
    always the same dictionary."""

    def __init__(self, metrics: RouterMetrics, log: Log) -> None:
        self._metrics = metrics
        self._log = log
        self._rng = random.Random()
        self._clients: dict[str, ProviderClient] = {}
        self._made_of: dict[str, tuple[UpstreamSpec, ProviderClient]] = {}
        self._closing: set[asyncio.Task[None]] = set()
        self.replicas: dict[str, LocalReplica] = {}

    @staticmethod
    async def prepare(catalogue: Catalogue) -> None:
        """Import the providers' client, if the catalogue needs it. The import takes half a second;
        in a thread it does not hold up a router that already serves."""
        if catalogue.upstreams:
            await asyncio.to_thread(importlib.import_module, "serving.upstream.engine")

    def update(self, catalogue: Catalogue) -> None:
        """Set the catalogue. Providers and models that have not changed keep their clients,
        connections and circuits; those that are gone finish their running requests."""
        wanted = {spec.provider for spec in catalogue.upstreams}
        gone = [name for name in self._clients if not self._is_current(name, catalogue, wanted)]
        for name in gone:
            self._retire(self._clients.pop(name))
        replicas = {spec.id: self._replica(spec, catalogue) for spec in catalogue.upstreams}
        self.replicas.clear()
        self.replicas.update(replicas)
        self._made_of = {name: self._made_of[name] for name in replicas}

    async def close(self) -> None:
        """Cut off what still runs and close every connection."""
        for replica in self.replicas.values():
            await replica.close()
        self.replicas.clear()
        for client in self._clients.values():
            self._retire(client)
        self._clients.clear()
        if self._closing:
            _, late = await asyncio.wait(self._closing, timeout=1.0)
            for task in late:
                task.cancel()

    def _is_current(self, name: str, catalogue: Catalogue, wanted: set[str]) -> bool:
        client = self._clients[name]
        return (
            name in wanted
            and client.provider == catalogue.providers[name]
            and client.routers == catalogue.router.replicas
        )

    def _replica(self, spec: UpstreamSpec, catalogue: Catalogue) -> LocalReplica:
        client = self._client(spec.provider, catalogue)
        made_of = (spec, client)
        if self._made_of.get(spec.id) == made_of:
            return self.replicas[spec.id]
        from serving.upstream.engine import UpstreamEngine

        self._made_of[spec.id] = made_of
        engine = UpstreamEngine(spec, client)
        url = urlsplit(client.provider.base_url)
        return LocalReplica(
            f"{spec.provider}/{spec.upstream_model}",
            engine,
            address=(url.hostname or "", url.port or (443 if url.scheme == "https" else 80)),
            state=client.state,
            log=self._log,
        )

    def _client(self, name: str, catalogue: Catalogue) -> ProviderClient:
        # Imported here: the `openai` package takes half a second and 47 MiB, which routers without
        # providers need not spend.
        from serving.upstream.client import ProviderClient

        client = self._clients.get(name)
        if client is None:
            client = self._clients[name] = ProviderClient(
                name,
                catalogue.providers[name],
                routers=catalogue.router.replicas,
                metrics=self._metrics,
                log=self._log,
                rng=self._rng,
            )
        return client

    def _retire(self, client: ProviderClient) -> None:
        client.retire()
        task = asyncio.get_running_loop().create_task(client.close())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)
