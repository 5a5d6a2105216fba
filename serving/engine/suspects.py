"""Which calls an engine may have died of, and who is told.

The calls that ran in the step whose exception ended an engine are its suspects. The engine convicts
those that it can, which most often is one that the step ran for the first time. If there is none,
all are in doubt, and routers tell by a second death (`serving/router/doubts.py`). What killed an
engine without an exception, a signal for one, makes nobody a suspect.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Generic, TypeVar

import msgspec

from serving.engine.interface import Engine, Suspect
from serving.errors import EngineFailed, EngineKilled, ServingError
from serving.observability.logs import Log
from serving.wire.fingerprint import Doubt, fingerprint
from serving.wire.frames import Kind
from serving.wire.messages import Call, CompletionCall

# Of calls that were cancelled: how long an engine may still run them, in seconds, how many are
# remembered, and how many bytes of them.
LEFT_S = 30.0
LEFT_CALLS = 256
LEFT_BYTES = 16 * 1024 * 1024

K = TypeVar("K")


class RunningCalls(Generic[K]):
    """The calls that an engine works on, with what it knows each by.

    A call that was cancelled is remembered for a while: its request may be in a step that has
    begun, and whoever sends a deadly request and leaves must be known as well.

    Args:
        charges: a `Suspect.place` for each request of a call, given its key, that ran in the step
            that the engine died of; empty while it lives.
        clock: the time in seconds, of any origin.
    """

    def __init__(
        self,
        charges: Callable[[K], Iterable[int | None]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._charges = charges
        self._clock = clock
        self._running: dict[int, tuple[K, Suspect]] = {}
        self._left: deque[tuple[float, K, Suspect]] = deque(maxlen=LEFT_CALLS)
        self._left_bytes = 0
        self._found: list[Suspect] = []

    @contextmanager
    def run(self, call: Call, body: bytes, key: K) -> Iterator[None]:
        """While the block runs, the engine works on this call."""
        self._running[id(call)] = (key, Suspect(call, body))
        try:
            yield
        except EngineFailed:
            self.look()
            raise
        except asyncio.CancelledError:
            self._leave(key, Suspect(call, body))
            raise
        finally:
            self._running.pop(id(call), None)

    def look(self) -> Sequence[Suspect]:
        """The calls that the engine may have died of, as far as it is known now."""
        now = self._clock()
        calls = [*self._running.values()]
        calls += [(key, call) for at, key, call in self._left if now - at < LEFT_S]
        known = {id(suspect.call) for suspect in self._found}
        self._found += [
            suspect._replace(place=place)
            for key, suspect in calls
            if id(suspect.call) not in known
            for place in self._charges(key)
        ]
        return self._found

    def _leave(self, key: K, suspect: Suspect) -> None:
        left, now = self._left, self._clock()
        self._left_bytes += _size(suspect)
        left.append((now, key, suspect))
        while left and (
            now - left[0][0] >= LEFT_S
            or len(left) == LEFT_CALLS
            or (self._left_bytes > LEFT_BYTES and len(left) > 1)
        ):
            self._left_bytes -= _size(left.popleft()[2])


def _size(suspect: Suspect) -> int:
    """What a call keeps in memory, in bytes or characters: its body, or its prompt and images."""
    call, size = suspect.call, len(suspect.body)
    if isinstance(call, CompletionCall):
        size += len(call.prompt) + sum(len(image.url) for image in call.images)
    return size


class Blame:
    """Tells all routers of an engine's suspects, before any call fails of its death.

    Args:
        broadcast: sends a frame of the link itself, of a kind and with a payload, to every router.
    """

    def __init__(self, engine: Engine, broadcast: Callable[[Kind, bytes], None], log: Log) -> None:
        self._engine = engine
        self._broadcast = broadcast
        self._log = log
        self._told = 0

    def tell(self) -> None:
        """Tell of the suspects that have not been told of; there are none while it lives."""
        suspects = self._engine.suspects()
        new, self._told = suspects[self._told :], len(suspects)
        convicts = {id(suspect.call): suspect for suspect in new if suspect.place is None}
        if convicts:
            prints = {fingerprint(suspect.call, suspect.body) for suspect in convicts.values()}
            self._broadcast(Kind.SUSPECTS, msgspec.json.encode(list(prints)))
            ids = [suspect.call.request_id for suspect in convicts.values()]
            self._log.error("engine_killed_by_request", request_ids=ids)
        doubted = [suspect for suspect in new if id(suspect.call) not in convicts]
        if doubted:
            doubts = {
                Doubt(fingerprint(call, body), place)
                for call, body, place in doubted
                if place is not None
            }
            self._broadcast(Kind.DOUBTS, msgspec.json.encode(list(doubts)))
            ids = [suspect.call.request_id for suspect in doubted]
            self._log.error("engine_killed_in_step", request_ids=ids)

    def error(self, call: Call, error: EngineFailed) -> ServingError:
        """What a call fails with that ended in `error`: `EngineKilled` if it is convicted."""
        self.tell()
        if any(
            suspect.call is call and suspect.place is None for suspect in self._engine.suspects()
        ):
            return EngineKilled(
                "the engine died of an exception in the step that first ran this request. It was "
                "not sent to another replica, and the same request is refused for a while: change "
                "it, and tell the operator its request ID"
            )
        return error
