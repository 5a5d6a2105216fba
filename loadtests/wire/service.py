"""Where a service is: its URL taken apart, its addresses, its TLS."""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from typing import Any
from urllib.parse import urlsplit

# Names are looked up again at most so often: a service's addresses change as its pods do, and a
# look-up for each connection would load the resolver in the place of the service.
LOOKUP_S = 10.0

# A family of addresses, and one as the functions of `socket` take it.
Address = tuple[socket.AddressFamily, Any]


class Service:
    """An HTTP service at a URL.

    The URL may end in `/v1`, as OpenAI's clients have it. Raises ValueError where the URL is none.
    """

    def __init__(self, url: str, verify: bool = True) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"{url!r} is no URL of a service, as http://127.0.0.1:8000 is one")
        self.host = parts.hostname
        self.tls = _context(verify) if parts.scheme == "https" else None
        self.port = parts.port or (443 if self.tls else 80)
        self.prefix = parts.path.rstrip("/")
        # As it was written: with the brackets of IPv6, and without a port that was not named.
        self.authority = parts.netloc.rpartition("@")[2]
        self._addresses: list[Address] = []
        self._looked_up = float("-inf")
        self._lookup: asyncio.Task[None] | None = None

    def path(self, path: str) -> str:
        """Return the whole path of an endpoint."""
        if self.prefix.endswith("/v1") and path.startswith("/v1/"):
            return self.prefix + path.removeprefix("/v1")
        return self.prefix.removesuffix("/v1") + path

    async def addresses(self) -> list[Address]:
        """Return where to connect, in the order to try. Raises OSError for an unknown name.

        Only the first look-up is waited for; later ones go on beside the requests.
        """
        if self._lookup is None and time.monotonic() - self._looked_up > LOOKUP_S:
            self._lookup = asyncio.create_task(self._refresh())
        if not self._addresses and self._lookup is not None:
            await asyncio.shield(self._lookup)
        return self._addresses

    async def _refresh(self) -> None:
        try:
            found = await asyncio.get_running_loop().getaddrinfo(
                self.host, self.port, type=socket.SOCK_STREAM
            )
            self._addresses = [(socket.AddressFamily(each[0]), each[4]) for each in found]
            self._looked_up = time.monotonic()
        except OSError:
            if not self._addresses:
                raise
            self._looked_up = time.monotonic()  # those of before may still answer
        finally:
            self._lookup = None

    def prefer(self, address: Address) -> None:
        """Try this address first from now on: it answered when one before it did not."""
        if self._addresses and self._addresses[0] != address:
            self._addresses = [address, *(each for each in self._addresses if each != address)]


def _context(verify: bool) -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
