"""Which models are in use, and what to tell those who wait for one that sleeps.

A model with `min_replicas` below `replicas` runs fewer replicas, or none, while nobody asks for
it. The first request makes it wanted; `idle_s` after the last one ended it no longer is. Starting
and stopping replicas is somebody else's work (`want`; deployments/leases.py).
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from serving.catalogue.spec import EngineSpec
from serving.errors import ModelUnavailable

# Of a model that has never been seen to start, in seconds.
UNKNOWN_START_S = 30.0
# After an estimate has proven too short, in seconds.
SOON_S = 5.0


class Demand:
    """The use of one router's models.

    Args:
        want: called with a model's ID and whether it is wanted, when that changes.
    """

    def __init__(self, want: Callable[[str, bool], None]) -> None:
        self._want = want
        self._idle_s: dict[str, float] = {}
        self._users: Counter[str] = Counter()
        self._wanted: dict[str, asyncio.TimerHandle | None] = {}
        self._waking: dict[str, float] = {}
        self._starts: dict[str, float] = {}

    def update(self, engines: Iterable[EngineSpec]) -> None:
        """The models there are now."""
        self._idle_s = {
            spec.id: spec.idle_s for spec in engines if spec.fewest_replicas < spec.replicas
        }
        for model in [model for model in self._wanted if model not in self._idle_s]:
            self._release(model)
        for model in self._idle_s.keys() & self._users.keys() - self._wanted.keys():
            # In use before it could sleep.
            self._wanted[model] = None
            self._want(model, True)

    def sleeps(self, model: str) -> bool:
        """Whether the model may have no replica because nobody asked for it."""
        return model in self._idle_s

    @contextmanager
    def using(self, model: str) -> Iterator[None]:
        """The time in which one request needs the model."""
        self._users[model] += 1
        if model in self._idle_s:
            if model not in self._wanted:
                self._want(model, True)
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

    def _release(self, model: str) -> None:
        if (timer := self._wanted.pop(model)) is not None:
            timer.cancel()
        self._waking.pop(model, None)
        self._want(model, False)

    # how long a start takes

    def waking(self, model: str) -> None:
        """A request waits for the model to start."""
        self._waking.setdefault(model, time.monotonic())

    def woke(self, model: str) -> None:
        """A model that had no replica has one now."""
        since = self._waking.pop(model, None)
        if since is not None:
            self._starts[model] = time.monotonic() - since

    def unavailable(self, model: str, replica_start_s: float | None) -> ModelUnavailable:
        """What a request is told that has waited long enough.

        Args:
            replica_start_s: how long a replica last took to start, as it says itself, in seconds.
        """
        now = time.monotonic()
        waited = now - self._waking.get(model, now)
        usual = self._starts.get(model, replica_start_s)
        left = max(SOON_S, (UNKNOWN_START_S if usual is None else usual) - waited)
        return ModelUnavailable(
            f"model '{model}' was asleep and has been starting for {waited:.0f} s; "
            f"{_said(usual)}; try again in {left:.0f} s",
            retry_after_s=left,
        )

    def news(self, model: str, replica_start_s: float | None) -> bytes:
        """A comment for a stream that waits: why, and how long it may take."""
        usual = self._starts.get(model, replica_start_s)
        return f": model '{model}' is starting; {_said(usual)}\n\n".encode()


def _said(usual: float | None) -> str:
    if usual is None:
        return "it has not been started before"
    return f"its last start took {usual:.0f} s"
