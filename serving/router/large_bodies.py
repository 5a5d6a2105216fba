"""Reads large bodies one at a time, so that other requests get a turn between them.

A body of 30 MB takes up to 30 ms of the event loop. Eight of them that arrive together would take
all of that in one turn of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

from serving.api.structure import SMALL, BodyShape, check_structure

T = TypeVar("T")


class LargeBodies:
    """The bodies that wait to be read by one router."""

    def __init__(self, most: BodyShape) -> None:
        self._most = most
        self._turn = asyncio.Lock()

    async def read(self, body: bytes, parse: Callable[[], T]) -> T:
        """What `parse` makes of `body`; at once, if it is small.

        Raises:
            InvalidRequest: there is too much in it.
            ServingError: as `parse`.
        """
        if len(body) <= SMALL:
            return parse()
        async with self._turn:
            check_structure(body, self._most)
            await asyncio.sleep(0)
            asked = parse()
            # The next one has the next turn of the event loop.
            await asyncio.sleep(0)
            return asked
