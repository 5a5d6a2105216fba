"""What the connections of one server share."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import Protocol

from serving.http.request import Headers


class Member(Protocol):
    """A connection, as far as the end of its server goes."""

    def leave(self, idle_s: float) -> None:
        """End with the answer to the request that runs, or to the next one within `idle_s`."""


@dataclass(slots=True)
class Books:
    """What is open at one server.

    Attributes:
        connections: all of them.
        tasks: the requests that are being answered.
        leaving: the server is being closed: a connection ends with the answer to its next request.
    """

    connections: set[Member] = field(default_factory=set)
    tasks: set[asyncio.Task[None]] = field(default_factory=set)
    leaving: bool = False
    _second: int = 0
    _headers: Headers = field(default_factory=list)

    @property
    def headers(self) -> Headers:
        """What every response has: the date (RFC 9110, section 6.6.1)."""
        if (second := int(time.time())) != self._second:
            self._second = second
            self._headers = [(b"date", formatdate(second, usegmt=True).encode())]
        return self._headers
