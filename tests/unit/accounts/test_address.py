"""From where a request comes, whatever it says."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from serving.accounts.address import client_address

PROXIES = (ip_network("10.0.0.0/8"), ip_network("fd00::/8"))


def address(peer: str | None, *forwarded: str) -> str:
    headers = [(b"host", b"x"), *((b"x-forwarded-for", line.encode()) for line in forwarded)]
    scope = {"client": (peer, 1234) if peer is not None else None, "headers": headers}
    return str(client_address(scope, PROXIES))


@pytest.mark.parametrize(
    ("peer", "forwarded", "expected"),
    [
        ("1.2.3.4", [], "1.2.3.4"),
        # Nobody is believed who is no proxy.
        ("1.2.3.4", ["9.9.9.9"], "1.2.3.4"),
        ("10.0.0.1", ["9.9.9.9"], "9.9.9.9"),
        # What the caller wrote stands before what the proxy appended.
        ("10.0.0.1", ["6.6.6.6, 9.9.9.9"], "9.9.9.9"),
        ("10.0.0.1", ["6.6.6.6", "9.9.9.9"], "9.9.9.9"),
        ("10.0.0.1", ["6.6.6.6, 9.9.9.9, 10.0.0.2"], "9.9.9.9"),
        ("10.0.0.1", ["6.6.6.6", "9.9.9.9", "10.0.0.2"], "9.9.9.9"),
        ("10.0.0.1", ["9.9.9.9:1234"], "9.9.9.9"),
        ("10.0.0.1", ["[2001:db8::1]:1234"], "2001:db8::1"),
        ("10.0.0.1", ["2001:db8::1"], "2001:db8::1"),
        ("10.0.0.1", ["::ffff:9.9.9.9"], "9.9.9.9"),
        ("::ffff:10.0.0.1", ["9.9.9.9"], "9.9.9.9"),
        ("fd00::1", ["9.9.9.9"], "9.9.9.9"),
        # All are proxies: the one furthest away.
        ("10.0.0.1", ["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", ["nonsense"], "None"),
        ("10.0.0.1", ["9.9.9.9, "], "None"),
        ("10.0.0.1", [""], "None"),
        ("", ["9.9.9.9"], "None"),
        (None, ["9.9.9.9"], "None"),
    ],
)
def test_the_address(peer: str | None, forwarded: list[str], expected: str) -> None:
    assert address(peer, *forwarded) == expected
