"""Fetches what a caller's `https:` URL points to, and nothing a caller should not reach.

A server that fetches URLs for strangers stands inside the network that they want to reach. So: only
hosts that the operator lists; only public addresses, and the address that was checked is the one
connected to, so that a name whose answer changes (DNS rebinding) gains nothing; every redirect is
checked like the first URL; no proxy, no cookies, no credentials; bytes and time are limited.
"""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from serving.catalogue.spec import ImageLimits
from serving.errors import InvalidField, InvalidRequest

MAX_REDIRECTS = 3
MAX_URL = 2048
# Fetches of this replica at the same time; more wait. So at most this many times `max_bytes` bytes
# are in transit at once.
AT_ONCE = 16
READ_BYTES = 64 * 1024
HTTPS_PORT = 443

# A host name. One whose last part is a number is an address in disguise (URL standard, "ends in a
# number"), and for an address aiohttp would not ask the resolver, where addresses are checked.
_NAME = re.compile(r"(?:[a-z0-9_-]+\.)*(?!\d+$|0x[0-9a-f]*$)[a-z0-9_-]+")
_REDIRECTS = frozenset((301, 302, 303, 307, 308))
# IANA's special-purpose registries, and public addresses that mean the machine's own platform:
# 168.63.129.16 is Azure's. `ipaddress.is_global` calls several of these global.
_NOT_PUBLIC_4 = tuple(
    ip_network(block)
    for block in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "168.63.129.16/32",
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.31.196.0/24",
        "192.52.193.0/24",
        "192.88.99.0/24",
        "192.168.0.0/16",
        "192.175.48.0/24",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/3",
    )
)
# Of IPv6 only global unicast is public, without these parts of it: protocol assignments with
# Teredo, documentation, and 6to4, which can hold any IPv4 address.
_GLOBAL_UNICAST = ip_network("2000::/3")
_NOT_PUBLIC_6 = tuple(
    ip_network(block)
    for block in ("2001::/23", "2001:db8::/32", "2002::/16", "2620:4f:8000::/48", "3fff::/20")
)
# NAT64 (RFC 6052): the last four bytes are the IPv4 address that is meant.
_NAT64 = ip_network("64:ff9b::/96")


def is_public(address: str) -> bool:
    """True if an IP address belongs to the public internet; False for anything unclear."""
    try:
        found = ip_address(address)
    except ValueError:
        return False
    if isinstance(found, IPv6Address):
        if found.scope_id is not None:
            return False
        if found.ipv4_mapped is not None:
            found = found.ipv4_mapped
        elif found in _NAT64:
            found = IPv4Address(found.packed[-4:])
        else:
            return found in _GLOBAL_UNICAST and not any(found in net for net in _NOT_PUBLIC_6)
    return not any(found in net for net in _NOT_PUBLIC_4)


class _CheckedResolver(AbstractResolver):
    """Resolves a name only if all its addresses pass `accept`."""

    def __init__(self, inner: AbstractResolver, accept: Callable[[str], bool]) -> None:
        self._inner = inner
        self._accept = accept

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        found = await self._inner.resolve(host, port, family)
        if not all(self._accept(entry["host"]) for entry in found):
            # Not which address: that would map the network for the caller.
            raise InvalidField(f"host '{host}' is not on the public internet")
        return found

    async def close(self) -> None:
        await self._inner.close()


class Fetcher:
    """Fetches bytes from allowed hosts.

    Args:
        limits: hosts, bytes, and seconds of a fetch with all its redirects.
        resolver: asks DNS; default: the system's.
        accept: which addresses may be connected to.
        trust: whom to trust in TLS; default: the system's authorities.
    """

    def __init__(
        self,
        limits: ImageLimits,
        *,
        resolver: AbstractResolver | None = None,
        accept: Callable[[str], bool] = is_public,
        trust: ssl.SSLContext | None = None,
    ) -> None:
        self._limits = limits
        self._resolver = resolver
        self._accept = accept
        self._trust = trust or ssl.create_default_context()
        self._turns = asyncio.Semaphore(AT_ONCE)

    async def fetch(self, url: str) -> bytes:
        """The content of an `https:` URL.

        Raises:
            InvalidField: the URL, or one it redirects to, may not be fetched, or its content is
                too large.
            InvalidRequest: the host does not deliver.
        """
        at = self._allowed(url)
        try:
            async with self._turns, asyncio.timeout(self._limits.timeout_s):
                return await self._follow(at)
        except TimeoutError:
            raise InvalidRequest(
                f"host '{at.raw_host}' did not deliver within {self._limits.timeout_s:g} s"
            ) from None
        except aiohttp.ClientSSLError:
            raise InvalidRequest(f"host '{at.raw_host}' has no certificate to trust") from None
        except (aiohttp.ClientError, OSError):
            # Not the cause: "refused" and "unreachable" are what a port scan asks for.
            raise InvalidRequest(f"host '{at.raw_host}' cannot be reached") from None

    def _allowed(self, url: str) -> URL:
        """The parsed URL, if it may be fetched. The same object is checked and requested, so they
        cannot differ."""
        if len(url) > MAX_URL:
            raise InvalidField(f"a URL has at most {MAX_URL} characters")
        try:
            parsed = URL(url)
            host, port = (parsed.raw_host or "").lower(), parsed.port
        except ValueError:
            raise InvalidField("this is no valid URL") from None
        if parsed.scheme != "https":
            raise InvalidField("only `data:` and `https:` URLs are taken")
        too_long = len(host) > 253 or any(len(label) > 63 for label in host.split("."))
        if too_long or _NAME.fullmatch(host) is None or port is None:
            raise InvalidField("a URL has a host, given by its name and not by its address")
        if parsed.user is not None or parsed.password is not None:
            raise InvalidField("a URL must not hold credentials")
        if not any(_matches(pattern, host, port) for pattern in self._limits.allowed_hosts):
            name = host if port == HTTPS_PORT else f"{host}:{port}"
            raise InvalidField(
                f"host '{name}' is not allowed: the operator lists hosts in "
                "`images.allowed_hosts` of the models file; or send the image as a `data:` URL"
            )
        return parsed

    async def _follow(self, at: URL) -> bytes:
        resolver = _CheckedResolver(self._resolver or aiohttp.ThreadedResolver(), self._accept)
        # A connection serves one URL and is closed: none outlives the check of its address.
        connector = aiohttp.TCPConnector(
            resolver=resolver, ssl=self._trust, force_close=True, use_dns_cache=False
        )
        async with aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"accept": "image/*", "accept-encoding": "identity"},
            skip_auto_headers=("user-agent",),
            auto_decompress=False,
            trust_env=False,
        ) as session:
            for _ in range(MAX_REDIRECTS + 1):
                async with session.get(at, allow_redirects=False) as response:
                    if response.status not in _REDIRECTS:
                        return await self._read(response)
                    at = self._allowed(_target(at, response.headers.get("location", "")))
        raise InvalidField(f"more than {MAX_REDIRECTS} redirects")

    async def _read(self, response: aiohttp.ClientResponse) -> bytes:
        if response.status != 200:
            raise InvalidRequest(
                f"host '{response.url.raw_host}' answered with status {response.status}"
            )
        if response.headers.get("content-encoding", "identity").lower() != "identity":
            raise InvalidField("the host compressed the image although it was told not to")
        too_large = InvalidField(f"an image has at most {self._limits.max_bytes} bytes")
        if (response.content_length or 0) > self._limits.max_bytes:
            raise too_large
        content = bytearray()
        async for part in response.content.iter_chunked(READ_BYTES):
            content += part
            if len(content) > self._limits.max_bytes:
                raise too_large
        return bytes(content)


def _target(at: URL, location: str) -> str:
    """Where a redirect leads, as text that has not been checked yet."""
    try:
        return str(at.join(URL(location)))
    except ValueError:
        raise InvalidField("redirected to what is no valid URL") from None


def _matches(pattern: str, host: str, port: int) -> bool:
    """True if the pattern covers a host. A pattern is a host, `*.domain` or `*`, with `:port`
    unless the port is 443."""
    name, _, given = pattern.lower().partition(":")
    if port != (int(given) if given.isdecimal() else HTTPS_PORT):
        return False
    if name.startswith("*."):
        return host.endswith(name[1:]) and len(host) > len(name[1:])
    return name in ("*", host)
