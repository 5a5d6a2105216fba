"""Tells by a second death which request an engine died of, where the first left that in doubt.

An engine that dies in a later step than the first of its killer can only name all requests that ran
in the step, and how far each had come (`serving/engine/suspects.py`). Those are sent to another
replica if nothing of their answer has left. So the killer and the same bystanders may stand in the
step that ends the next engine, too. What tells them apart is the place: a request that kills at a
certain token does so at the same one again, and bystanders stand where they do by chance. To keep
chance small, requests in doubt are sent again at random moments, so that two that were in step no
longer are.

So a request is convicted that two engines died with at the same place of its answer. If there is
none, because its answer differs each time, all are convicted that were there both times and have
ended well nowhere since: no request ends a third engine. A conviction explains the deaths that it
was made of, and nobody else is in doubt for them.

One that ends well often is no killer, and is not in doubt. That counts what ended shortly before a
death, too: of a request that many send, several run at any moment, and at any place.
"""

from __future__ import annotations

import random
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterable, Set

import msgspec

from serving.observability.logs import Log
from serving.wire.body import Body
from serving.wire.fingerprint import Doubt, Fingerprint, fingerprint, size_of
from serving.wire.messages import Call

# How often a request must end well to be in doubt no longer. One that kills only beside certain
# others does so now and then.
ENOUGH = 3
# Requests that ended well are remembered, so many of at most so many bytes or characters each.
RECENT = 256
RECENT_SIZE = 16 * 1024
# Requests in doubt are sent again within this time, in seconds: some tens of steps.
APART_S = 1.0
# Requests in doubt that a router keeps; the oldest is forgotten when there are more.
LIMIT = 10_000


class _Doubted(msgspec.Struct):
    """Until when it is kept, its places by the replicas that died, how often it has ended well."""

    until: float
    places: dict[str, set[int]]
    passed: int = 0


class Doubts:
    """The requests in doubt that one router knows of.

    Args:
        convict: called with a model, the replicas whose engines died and the requests that they
            died of.
        keep_s: for how long a second death counts, in seconds; 0 keeps nothing.
        clock: the time in seconds, of any origin.
    """

    def __init__(
        self,
        convict: Callable[[str, Set[str], list[Fingerprint]], None],
        log: Log,
        *,
        keep_s: float,
        rng: random.Random,
        limit: int = LIMIT,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._convict = convict
        self._log = log
        self._keep_s = keep_s
        self._rng = rng
        self._limit = limit
        self._clock = clock
        # By model and fingerprint; the oldest comes first.
        self._doubted: OrderedDict[tuple[str, Fingerprint], _Doubted] = OrderedDict()
        self._recent: deque[tuple[str, Call, Body]] = deque(maxlen=RECENT)
        # Most requests are of no size that is here, and are not hashed.
        self._sizes: Counter[tuple[str, int]] = Counter()

    def __len__(self) -> int:
        return len(self._doubted)

    def hear(self, model: str, replica: str, doubts: Iterable[Doubt]) -> None:
        """The engine of a replica died in a step with these requests."""
        if self._keep_s <= 0:
            return
        self._forget_old()
        places: dict[Fingerprint, set[int]] = {}
        for doubt in doubts:
            places.setdefault(doubt.request, set()).add(doubt.place)
        again = {
            request: known
            for request in places
            if (known := self._doubted.get((model, request))) is not None
            and known.places.keys() - {replica}
        }
        guilty = [
            request
            for request, known in again.items()
            if any(places[request] & at for died, at in known.places.items() if died != replica)
        ]
        guilty = guilty or [request for request, known in again.items() if not known.passed]
        self._log.error(
            "engine_died_in_doubt", model=model, replica=replica, doubted=len(places),
            seen_before=len(again), convicted=len(guilty),
        )  # fmt: skip
        if guilty:
            explained = {replica}.union(*(again[request].places for request in guilty))
            self._explain(model, guilty, explained)
            self._convict(model, explained, guilty)
            return
        for request, at in places.items():
            self._add(model, request, replica, at)
        recent, self._recent = self._recent, deque(maxlen=RECENT)
        for of, call, body in recent:
            self.passed(of, call, body)

    def home(self, model: str, call: Call, body: Body) -> str | None:
        """None unless a call is in doubt; then a name that all copies of it have. They are run on
        one replica: on several they would end them all before anybody can know."""
        key = self._find(model, call, body) if self._doubted else None
        return None if key is None else key[1].digest

    def passed(self, model: str, call: Call, body: Body) -> None:
        """A call has ended well."""
        # Its images do not count in a call's size.
        if size_of(call, body) <= RECENT_SIZE and not getattr(call, "images", ()):
            self._recent.append((model, call, body))
        key = self._find(model, call, body) if self._doubted else None
        if key is not None:
            self._doubted[key].passed += 1
            if self._doubted[key].passed >= ENOUGH:
                self._remove(key)

    def apart_s(self) -> float:
        """How long to wait before a call in doubt is sent again, in seconds."""
        return self._rng.uniform(0, APART_S)

    def _find(self, model: str, call: Call, body: Body) -> tuple[str, Fingerprint] | None:
        if not self._sizes[model, size_of(call, body)]:
            return None
        self._forget_old()
        key = (model, fingerprint(call, body))
        return key if key in self._doubted else None

    def _add(self, model: str, request: Fingerprint, replica: str, places: set[int]) -> None:
        key = (model, request)
        known = self._doubted.get(key)
        if known is None:
            self._doubted[key] = known = _Doubted(0.0, {})
            self._sizes[model, request.size] += 1
        self._doubted.move_to_end(key)
        known.until = self._clock() + self._keep_s
        known.places.setdefault(replica, set()).update(places)
        if len(self._doubted) > self._limit:
            self._remove(next(iter(self._doubted)))

    def _remove(self, key: tuple[str, Fingerprint]) -> None:
        del self._doubted[key]
        size = (key[0], key[1].size)
        self._sizes[size] -= 1
        if not self._sizes[size]:
            del self._sizes[size]

    def _explain(self, model: str, guilty: list[Fingerprint], died: set[str]) -> None:
        """It is known what these replicas died of."""
        for key, known in list(self._doubted.items()):
            if key[0] != model:
                continue
            for replica in died:
                known.places.pop(replica, None)
            if not known.places or key[1] in guilty:
                self._remove(key)

    def _forget_old(self) -> None:
        now = self._clock()
        while self._doubted:
            key, known = next(iter(self._doubted.items()))
            if known.until > now:
                return
            self._remove(key)
