"""The replicas of every engine model, as this router knows them.

The directory says where replicas are; the links say which of them live. An entry that leaves the
directory is forgotten when its link is down too, so a directory that restarts empty takes nothing
out of service.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterable

import msgspec

from serving.errors import ModelUnavailable
from serving.gateway.balance import Pool
from serving.gateway.link import ReplicaLink
from serving.observability.logs import Log
from serving.observability.metrics import RouterMetrics

RETRY_AFTER_S = 5.0


class Entry(msgspec.Struct, frozen=True):
    """A replica or router as the directory lists it. `ops` is its host:port for `/metrics`."""

    id: str
    kind: str  # "engine" or "router"
    model: str
    host: str
    port: int
    ops: str


class _Model:
    def __init__(self, rng: random.Random) -> None:
        self.links: dict[str, ReplicaLink] = {}
        self.pool: Pool[ReplicaLink] = Pool(rng)


class Fleet:
    """Links by engine model, and the choice among them.

    Args:
        models: IDs of the engine models that can have replicas.
        router: this router's ID, told to the replicas.
        token: the cluster's secret, which engine servers ask of routers.
    """

    def __init__(
        self,
        models: Iterable[str],
        *,
        router: str,
        token: str,
        metrics: RouterMetrics,
        log: Log,
        rng: random.Random,
    ) -> None:
        self._models = {model: _Model(rng) for model in models}
        self._router = router
        self._token = token
        self._metrics = metrics
        self._log = log
        self._closing: set[asyncio.Task[None]] = set()
        self.listed: tuple[Entry, ...] = ()

    def update(self, entries: Iterable[Entry]) -> None:
        """Take over the directory's current list."""
        self.listed = tuple(entries)
        wanted = {entry.id: entry for entry in self.listed if entry.kind == "engine"}
        for entry in wanted.values():
            model = self._models.get(entry.model)
            if model is None:
                continue
            old = model.links.get(entry.id)
            if old is not None and old.address == (entry.host, entry.port):
                continue
            if old is not None:
                self._close(old)
            model.links[entry.id] = ReplicaLink(
                entry.id,
                entry.host,
                entry.port,
                router=self._router,
                token=self._token,
                log=self._log.bind(model=entry.model),
                on_change=self._rebuild,
                on_adapter=model.pool.holds,
            )
        for model in self._models.values():
            for replica in [name for name in model.links if name not in wanted]:
                if not model.links[replica].connected:
                    self._close(model.links.pop(replica))
        self._rebuild()

    def pick(
        self, model: str, adapter: str | None = None, exclude: frozenset[str] = frozenset()
    ) -> ReplicaLink:
        """A replica of `model` for one request.

        Raises:
            ModelUnavailable: none is up.
        """
        link = self._models[model].pool.choose(adapter, exclude)
        if link is None:
            raise ModelUnavailable(
                f"no replica of model '{model}' is ready; it may be starting",
                retry_after_s=RETRY_AFTER_S,
            )
        return link

    def links(self, model: str) -> list[ReplicaLink]:
        """All replicas of a model, up or not."""
        return list(self._models[model].links.values())

    def ready(self, model: str) -> int:
        """How many replicas of a model are up."""
        return len(self._models[model].pool.up)

    async def close(self) -> None:
        """Drop every link."""
        for model in self._models.values():
            for link in model.links.values():
                self._close(link)
            model.links.clear()
        if self._closing:
            await asyncio.wait(self._closing)

    def _close(self, link: ReplicaLink) -> None:
        task = asyncio.get_running_loop().create_task(link.close())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    def _rebuild(self) -> None:
        for name, model in self._models.items():
            up = [link for link in model.links.values() if link.up]
            if up != model.pool.up:
                model.pool.set_up(up)
            gauge = self._metrics.replicas
            gauge.labels(name, "ready").set(len(up))
            gauge.labels(name, "not_ready").set(len(model.links) - len(up))
