"""Which models are in use, and so which may sleep.

A model with `min_replicas` below `replicas` runs fewer replicas, or none, while nobody asks for
it. The first request makes it wanted; `idle_s` after the last request ended, it is wanted no
longer. Replicas are started and stopped behind `want` (`deployments/leases.py`).
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from serving.catalogue.spec import EngineSpec


class Demand:
    """Which models the requests of one router need.

    Args:
        want: called with a model's ID and whether it is wanted, when that changes.
    """

    def __init__(self, want: Callable[[str, bool], None]) -> None:
        self._want = want
        self._idle_s: dict[str, float] = {}
        self._users: Counter[str] = Counter()
        self._wanted: dict[str, asyncio.TimerHandle | None] = {}
        self._wanted_since: dict[str, float] = {}

    def update(self, engines: Iterable[EngineSpec]) -> None:
        """Set the engine models that are served."""
        self._idle_s = {
            spec.id: spec.idle_s for spec in engines if spec.fewest_replicas < spec.replicas
        }
        for model in [model for model in self._wanted if model not in self._idle_s]:
            self._release(model)
        for model in self._idle_s.keys() & self._users.keys() - self._wanted.keys():
            # Requests already need it, and from now on it may sleep.
            self._begin(model)

    def sleeps(self, model: str) -> bool:
        """True if the model runs fewer replicas, or none, while nobody asks for it."""
        return model in self._idle_s

    @contextmanager
    def using(self, model: str) -> Iterator[None]:
        """While the block runs, one request needs the model."""
        self._users[model] += 1
        if model in self._idle_s:
            if model not in self._wanted:
                self._begin(model)
            elif (timer := self._wanted[model]) is not None:
                timer.cancel()
                self._wanted[model] = None
        try:
            yield
        finally:
            self._users[model] -= 1
            if not self._users[model]:
                del self._users[model]
                idle_s = self._idle_s.get(model)
                if idle_s is not None and model in self._wanted:
                    loop = asyncio.get_running_loop()
                    self._wanted[model] = loop.call_later(idle_s, self._release, model)

    def close(self) -> None:
        for model in list(self._wanted):
            self._release(model)

    def wanted_since(self, model: str) -> float:
        """Since when the model is wanted, in `time.monotonic` seconds; 0 if it is not wanted."""
        return self._wanted_since.get(model, 0.0)

    def _begin(self, model: str) -> None:
        self._wanted[model] = None
        self._wanted_since[model] = time.monotonic()
        self._want(model, True)

    def _release(self, model: str) -> None:
        if (timer := self._wanted.pop(model)) is not None:
            timer.cancel()
        self._wanted_since.pop(model, None)
        self._want(model, False)
