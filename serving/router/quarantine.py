"""Keeps requests that ended an engine away from other engines.

An engine server whose engine died of an exception names the requests that it died of, if it can
tell (`serving/engine/suspects.py`), on every link and before anything else that its death causes;
others are convicted by a second death (`doubts.py`), which acquits those that were named for the
same deaths. From then on each router refuses the same
request for `quarantine_s`, and gives up its twins that are on their way to other replicas.

While nobody is suspected, a request costs a look into an empty table. Otherwise only a request of
a suspect's model and size is hashed.
"""

from __future__ import annotations

import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Iterator, Set
from contextlib import contextmanager
from typing import NamedTuple

from serving.errors import Quarantined
from serving.observability.logs import Log
from serving.observability.router_metrics import RouterMetrics
from serving.router.answer import Answer, AttemptFailed
from serving.router.response import Response
from serving.wire.body import Body
from serving.wire.fingerprint import Fingerprint, fingerprint, size_of
from serving.wire.messages import Call

# Suspects that a router keeps; the oldest is forgotten when there are more.
LIMIT = 1000


class _Held(NamedTuple):
    """Until when a suspect is refused, and the replicas that died of it."""

    until: float
    replicas: Set[str]


class Quarantine:
    """The suspects that one router knows of, and which of its requests are on replicas.

    Args:
        keep_s: how long a suspect is refused, in seconds; 0 refuses nothing.
        clock: the time in seconds, of any origin.
    """

    def __init__(
        self,
        metrics: RouterMetrics,
        log: Log,
        *,
        keep_s: float,
        limit: int = LIMIT,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._metrics = metrics
        self._log = log
        self._keep_s = keep_s
        self._limit = limit
        self._clock = clock
        # By model and fingerprint; the oldest comes first.
        self._held: OrderedDict[tuple[str, Fingerprint], _Held] = OrderedDict()
        self._sizes: Counter[tuple[str, int]] = Counter()
        self._sent: dict[Answer, tuple[str, Call, Body, Response]] = {}

    def __len__(self) -> int:
        return len(self._held)

    def add(self, model: str, replica: str, suspects: Iterable[Fingerprint]) -> None:
        """The engine of a replica died of these requests, in the first step of each."""
        self._add(model, {replica}, suspects, later=False)

    def convict(self, model: str, replicas: Set[str], suspects: Iterable[Fingerprint]) -> None:
        """The engines of these replicas died of these requests, in a later step of each, and of no
        other."""
        for key, held in list(self._held.items()):
            if key[0] == model and held.replicas <= replicas:
                self._log.info("request_acquitted", model=model, fingerprint=key[1].digest)
                self._forget(key)
        self._add(model, replicas, suspects, later=True)

    def _add(
        self, model: str, replicas: Set[str], suspects: Iterable[Fingerprint], *, later: bool
    ) -> None:
        if self._keep_s <= 0:
            return
        for suspect in suspects:
            key = (model, suspect)
            if (before := self._held.pop(key, None)) is None:
                self._sizes[model, suspect.size] += 1
                self._metrics.suspects.labels(model).inc()
            died = replicas if before is None else replicas | before.replicas
            self._held[key] = _Held(self._clock() + self._keep_s, died)
            self._log.error("request_quarantined", model=model, fingerprint=suspect.digest)
        while len(self._held) > self._limit:
            self._forget(next(iter(self._held)))
        for answer, (of, call, body, response) in list(self._sent.items()):
            # Whoever has bytes of an answer has outlived the step that first ran it.
            proved = (response.streams or answer.ready) and not later
            if not proved and (error := self._refusal(of, call, body)) is not None:
                answer.on_fail(AttemptFailed(error, retryable=False))

    def check(self, model: str, call: Call, body: Body) -> None:
        """Refuse a call that an engine of its model died of.

        Raises:
            Quarantined: it is one.
        """
        if self._held and (error := self._refusal(model, call, body)) is not None:
            raise error

    @contextmanager
    def sent(
        self, answer: Answer, model: str, call: Call, body: Body, response: Response
    ) -> Iterator[None]:
        """While the block runs, the call is on a replica, and fails when it becomes a suspect
        before any of its answer has come."""
        self._sent[answer] = (model, call, body, response)
        try:
            yield
        finally:
            del self._sent[answer]

    def _refusal(self, model: str, call: Call, body: Body) -> Quarantined | None:
        if (model, size_of(call, body)) not in self._sizes:
            return None
        key = (model, fingerprint(call, body))
        held = self._held.get(key)
        if held is None:
            return None
        left_s = held.until - self._clock()
        if left_s <= 0:
            self._forget(key)
            return None
        return Quarantined(
            "a replica's engine died of this request when it was sent before; it is refused for "
            f"another {left_s:.0f} s. Change the request, and tell the operator its request ID"
        )

    def _forget(self, key: tuple[str, Fingerprint]) -> None:
        model, suspect = key
        del self._held[key]
        self._sizes[model, suspect.size] -= 1
        if not self._sizes[model, suspect.size]:
            del self._sizes[model, suspect.size]
