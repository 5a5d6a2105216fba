"""Takes sessions from a plan a little ahead of time and makes their first requests' bytes.

A prompt may take a millisecond to make. Made when its request is due, it would delay it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator

from loadtests.load.planned import Planned, Turns

DEPTH = 512
BYTES = 32 * 1024 * 1024


class Feed:
    """Sessions with the bytes of their first requests, in the plan's order."""

    def __init__(
        self, sessions: Iterator[Turns], prepare: Callable[[Planned], bytes], depth: int = DEPTH
    ) -> None:
        self._sessions = sessions
        self._prepare = prepare
        self._depth = depth
        self._ready: deque[tuple[Turns, bytes]] = deque()
        self._bytes = 0
        self._filling = False
        self._dry = False
        while self._one():
            pass

    def pop(self) -> tuple[Turns, bytes] | None:
        """Return the next session, or None when there is none any more."""
        if not self._ready:
            self._one()
        if not self._ready:
            return None
        found = self._ready.popleft()
        self._bytes -= len(found[1])
        if not self._filling and not self._dry:
            self._filling = True
            asyncio.get_running_loop().call_soon(self._fill)
        return found

    def _fill(self) -> None:
        # One in each turn of the loop, so that reading goes on between them.
        if self._one():
            asyncio.get_running_loop().call_soon(self._fill)
        else:
            self._filling = False

    def _one(self) -> bool:
        """Make one more ready; False when there are enough, or no more."""
        if self._dry or len(self._ready) >= self._depth or self._bytes >= BYTES:
            return False
        turns = next(self._sessions, None)
        if turns is None:
            self._dry = True
            return False
        request = self._prepare(turns[0])
        self._ready.append((turns, request))
        self._bytes += len(request)
        return True
