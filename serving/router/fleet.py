"""The replicas of every engine model, as this router knows them.

The directory says where replicas are; the links say which of them live. A replica that leaves the
directory is forgotten once its link is down too, so a directory that restarts empty takes nothing
out of service.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial

from serving.errors import ModelUnavailable
from serving.observability.logs import Log
from serving.observability.router_metrics import RouterMetrics
from serving.router.balance import Pool
from serving.router.local import LocalReplica
from serving.router.replica import ReplicaLink
from serving.wire.entry import Entry
from serving.wire.fingerprint import Doubt, Fingerprint

RETRY_AFTER_S = 5.0

Replica = ReplicaLink | LocalReplica


class _Model:
    def __init__(self, rng: random.Random) -> None:
        self.start_s: float | None = None
        # One that was never seen is missed since this router knows of it: that it had a replica
        # before, which is being replaced, a router that has just started cannot know.
        self.lost_at: float | None = time.monotonic()
        self.seen = False
        self.links: dict[str, ReplicaLink] = {}
        self.pool: Pool[ReplicaLink] = Pool(rng)


class Fleet:
    """Links by engine model, and the choice among them.

    Args:
        router: this router's ID, told to the replicas.
        token: the cluster's secret, which engine servers ask of routers.
        local: the replicas inside this process, by model ID: those of hosted models. The mapping
            may change.
        on_suspects: called with a model, a replica and the requests that its engine died of.
        on_doubts: the same with those that ran as it died, if it cannot say which it died of.
    """

    def __init__(
        self,
        *,
        router: str,
        token: str,
        metrics: RouterMetrics,
        log: Log,
        rng: random.Random,
        local: Mapping[str, LocalReplica] | None = None,
        on_suspects: Callable[[str, str, tuple[Fingerprint, ...]], None] = lambda *_: None,
        on_doubts: Callable[[str, str, tuple[Doubt, ...]], None] = lambda *_: None,
    ) -> None:
        self._watchers: dict[str, list[Callable[[], None]]] = {}
        self._local = {} if local is None else local
        self._models: dict[str, _Model] = {}
        self._rng = rng
        self._on_suspects = on_suspects
        self._on_doubts = on_doubts
        self._router = router
        self._token = token
        self._metrics = metrics
        self._log = log
        self._closing: set[asyncio.Task[None]] = set()
        # Links of models that are no longer served, until their last request has ended.
        self._leaving: list[ReplicaLink] = []
        self.listed: tuple[Entry, ...] = ()

    def set_models(self, models: Iterable[str]) -> None:
        """Set the engine models. A removed model finishes its running requests and gets no new
        ones."""
        wanted = set(models)
        for name in [name for name in self._models if name not in wanted]:
            model = self._models.pop(name)
            self._wake(name)
            self._leaving += model.links.values()
            for state in ("ready", "not_ready"):
                self._metrics.replicas.remove(name, state)
        for name in wanted - self._models.keys():
            self._models[name] = _Model(self._rng)
        self.update(self.listed)

    def update(self, entries: Iterable[Entry]) -> None:
        """Set the directory's current list."""
        self.listed = tuple(entries)
        for link in [link for link in self._leaving if not link.in_flight]:
            self._leaving.remove(link)
            self._close(link)
        wanted = {entry.id: entry for entry in self.listed if entry.kind == "engine"}
        for entry in wanted.values():
            model = self._models.get(entry.model)
            if model is None:
                continue
            model.start_s = entry.start_s or model.start_s
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
                on_suspects=partial(self._on_suspects, entry.model, entry.id),
                on_doubts=partial(self._on_doubts, entry.model, entry.id),
            )
        for model in self._models.values():
            for replica in [name for name in model.links if name not in wanted]:
                if not model.links[replica].connected:
                    self._close(model.links.pop(replica))
        self._rebuild()

    def pick(
        self,
        model: str,
        adapter: str | None = None,
        exclude: frozenset[str] = frozenset(),
        home: str | None = None,
        beside: str | None = None,
    ) -> Replica:
        """A replica of `model` for one request: see `Pool.choose`.

        Raises:
            ModelUnavailable: none is up.
        """
        if (local := self._local.get(model)) is not None:
            return local
        known = self._models.get(model)
        link = known.pool.choose(adapter, exclude, home, beside) if known else None
        if link is None:
            raise ModelUnavailable(
                f"no replica of model '{model}' is ready; it may be starting",
                retry_after_s=RETRY_AFTER_S,
            )
        return link

    def links(self, model: str) -> list[Replica]:
        """All replicas of a model, up or not."""
        if (local := self._local.get(model)) is not None:
            return [local]
        known = self._models.get(model)
        return list(known.links.values()) if known else []

    def start_s(self, model: str) -> float | None:
        """How long a replica of the model last took to start, in seconds."""
        known = self._models.get(model)
        return known.start_s if known else None

    def lost_at(self, model: str) -> float | None:
        """When the model lost its last replica, or this router learned of it if it has not seen any
        yet, in `time.monotonic` seconds; None while it has one."""
        known = self._models.get(model)
        return known.lost_at if known else None

    def seen(self, model: str) -> bool:
        """True if the model has or had a replica, as far as this router knows."""
        known = self._models.get(model)
        return known is not None and known.seen

    @contextmanager
    def watch(self, model: str, wake: Callable[[], None]) -> Iterator[None]:
        """While the block runs, call `wake` whenever a replica of the model comes up, or the model
        is removed."""
        stop = self.subscribe(model, wake)
        try:
            yield
        finally:
            stop()

    def subscribe(self, model: str, wake: Callable[[], None]) -> Callable[[], None]:
        """As `watch`, until the returned function is called."""
        watchers = self._watchers.setdefault(model, [])
        watchers.append(wake)

        def stop() -> None:
            watchers.remove(wake)
            if not watchers and self._watchers.get(model) is watchers:
                del self._watchers[model]

        return stop

    def has(self, model: str) -> bool:
        """True if `model` is an engine model that is served."""
        return model in self._models

    def ready(self, model: str) -> int:
        """How many replicas of a model are up. A hosted model always counts as one: while its
        provider is down, another router could do no better."""
        if model in self._local:
            return 1
        known = self._models.get(model)
        return len(known.pool.up) if known else 0

    async def close(self) -> None:
        """Drop every link."""
        for model in self._models.values():
            for link in model.links.values():
                self._close(link)
            model.links.clear()
        for link in self._leaving:
            self._close(link)
        if self._closing:
            await asyncio.wait(self._closing)

    def _close(self, link: ReplicaLink) -> None:
        task = asyncio.get_running_loop().create_task(link.close())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    def _wake(self, model: str) -> None:
        for wake in tuple(self._watchers.get(model, ())):
            wake()

    def _rebuild(self) -> None:
        for name, model in self._models.items():
            up = [link for link in model.links.values() if link.up]
            if up != model.pool.up:
                before = model.pool.up
                model.pool.set_up(up)
                model.lost_at = None if up else time.monotonic()
                model.seen = True
                if any(link not in before for link in up):
                    self._wake(name)
            gauge = self._metrics.replicas
            gauge.labels(name, "ready").set(len(up))
            gauge.labels(name, "not_ready").set(len(model.links) - len(up))
