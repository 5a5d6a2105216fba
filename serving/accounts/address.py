"""From where a request comes."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv6Address, ip_address

from starlette.types import Scope

from serving.accounts.key_limits import Address, Network

FORWARDED = b"x-forwarded-for"


def client_address(scope: Scope, proxies: Sequence[Network]) -> Address | None:
    """The address a request comes from: the other end of its connection; if that is a proxy that is
    trusted, the last one in `X-Forwarded-For` that is no such proxy. Each proxy appends the address
    it was called from, so what stands before it may be the caller's own invention. None if nobody
    knows.
    """
    address = _read((scope.get("client") or ("",))[0])
    if address is None or not _is_in(address, proxies):
        return address
    # There may be several such headers; together they are one list (RFC 9110, section 5.3).
    lines = [value.decode("latin-1") for name, value in scope["headers"] if name == FORWARDED]
    for text in reversed(",".join(lines).split(",") if lines else []):
        address = _read(text.strip())
        if address is None or not _is_in(address, proxies):
            return address
    return address


def _read(text: str) -> Address | None:
    """An address; some proxies write the port too."""
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ip_address(text)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


def _is_in(address: Address, networks: Sequence[Network]) -> bool:
    return any(address in network for network in networks)
