"""The keys a router knows."""

from __future__ import annotations

import hmac
import time
from contextlib import nullcontext
from typing import Any

import pytest

from serving.accounts.caller import Caller
from serving.accounts.key_limits import KeyLimits
from serving.accounts.listed import entries_of, entry_of
from serving.accounts.ring import Entry, KeyRing
from serving.accounts.secret import digest_of, new_secret
from serving.errors import (
    Forbidden,
    KeyExpired,
    KeyRevoked,
    StoreUnavailable,
    Unauthenticated,
)

SCOPE: dict[str, Any] = {"client": ("10.1.2.3", 1), "headers": []}


def ring_of(**keys: str | None) -> KeyRing:
    ring = KeyRing()
    ring.set_listed(entries_of({f"sk-{name}": account for name, account in keys.items()}))
    return ring


def stored(key: str, **more: Any) -> Entry:
    return Entry(digest_of(key.encode()), Caller("svk_x", "acme"), stored=True, **more)


def ask(ring: KeyRing, key: str) -> Caller:
    return ring.authenticate({b"x-api-key": key.encode()}, SCOPE)


RING = ring_of(any=None, acme="acme")


@pytest.mark.parametrize(
    "headers",
    [
        {b"x-api-key": b"sk-acme"},
        {b"authorization": b"Bearer sk-acme"},
        {b"authorization": b"bearer  sk-acme "},
        {b"x-api-key": b"sk-acme", b"authorization": b"Basic xxx"},
    ],
)
def test_both_headers(headers: dict[bytes, bytes]) -> None:
    assert RING.authenticate(headers, SCOPE).account == "acme"


def test_a_key_without_an_account() -> None:
    assert ask(RING, "sk-any").account is None


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {b"x-api-key": b""},
        {b"x-api-key": b"sk-other"},
        {b"x-api-key": b"sk-acme:acme"},
        {b"x-api-key": b"\xff\xfe"},
        {b"x-api-key": b"sk-other", b"authorization": b"Bearer sk-acme"},
        {b"authorization": b"sk-acme"},
        {b"authorization": b"Basic sk-acme"},
        {b"authorization": b"Bearer "},
    ],
)
def test_strangers(headers: dict[bytes, bytes]) -> None:
    with pytest.raises(Unauthenticated) as caught:
        RING.authenticate(headers, SCOPE)
    assert "sk-" not in caught.value.message
    assert caught.value.code == "unauthenticated"


def test_no_keys_let_nobody_in() -> None:
    with pytest.raises(Unauthenticated):
        KeyRing().authenticate({b"x-api-key": b""}, SCOPE)


def test_no_key_is_kept() -> None:
    assert b"sk-acme" not in repr(vars(RING)).encode()


def test_half_of_a_digest_is_not_enough() -> None:
    ring = KeyRing()
    digest = digest_of(b"sk-real")
    ring.set_listed([Entry(digest[:16] + bytes(16), Caller("k", None))])
    with pytest.raises(Unauthenticated):
        ask(ring, "sk-real")


def test_a_digest_is_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """How long `==` takes tells how much of the digest was right."""
    asked: list[tuple[bytes, bytes]] = []

    def compare(one: bytes, other: bytes) -> bool:
        asked.append((one, other))
        return hmac.compare_digest(one, other)

    monkeypatch.setattr("serving.accounts.ring.compare_digest", compare)
    digest = digest_of(b"sk-real")
    almost = digest[:16] + bytes(16)
    for kept in (digest, almost):
        ring = KeyRing()
        ring.set_listed([Entry(kept, Caller("k", None))])
        with nullcontext() if kept == digest else pytest.raises(Unauthenticated):
            ask(ring, "sk-real")
    assert asked == [(digest, digest), (almost, digest)]


def test_a_mistyped_key_is_told_from_an_unknown_one() -> None:
    key = new_secret("svk_0123456789AB")
    with pytest.raises(Unauthenticated, match="unknown"):
        ask(RING, key)
    with pytest.raises(Unauthenticated, match="checksum") as caught:
        ask(RING, key[:-3])
    assert key[:20] not in caught.value.message


def test_the_time_decides_at_each_request(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1_000.0
    monkeypatch.setattr("serving.accounts.ring.time.time", lambda: now)
    ring = KeyRing()
    ring.set_listed([entry_of("sk-a", None, expires=1_001.0)])
    assert ask(ring, "sk-a")
    now = 1_001.0
    with pytest.raises(KeyExpired, match="expired on 1970-01-01 00:16:41 UTC"):
        ask(ring, "sk-a")


def test_networks() -> None:
    ring = KeyRing()
    for network, may in (("10.0.0.0/8", True), ("10.0.0.0/16", False)):
        ring.set_listed([entry_of("sk-a", None, limits=KeyLimits(networks=(network,)))])
        if may:
            assert ask(ring, "sk-a")
        else:
            with pytest.raises(Forbidden, match="network"):
                ask(ring, "sk-a")


def test_keys_of_the_store_come_and_go() -> None:
    ring = ring_of(any=None)
    ring.set_stored("svk_x", [stored("old"), stored("new")])
    assert ask(ring, "old") == ask(ring, "new") == Caller("svk_x", "acme")
    ring.set_stored("svk_x", [stored("old", expires=1.0), stored("new")])
    with pytest.raises(KeyExpired):
        ask(ring, "old")
    ring.set_stored("svk_x", [stored("new", revoked=True)])
    with pytest.raises(KeyRevoked):
        ask(ring, "new")
    with pytest.raises(Unauthenticated, match="unknown"):
        ask(ring, "old")
    ring.forget_stored(())
    with pytest.raises(Unauthenticated, match="unknown"):
        ask(ring, "new")
    assert ask(ring, "sk-any")


def test_a_listed_key_counts_before_one_of_the_store() -> None:
    ring = ring_of(same="listed")
    ring.set_stored("svk_x", [stored("sk-same")])
    assert ask(ring, "sk-same").account == "listed"
    ring.set_listed([])
    assert ask(ring, "sk-same").account == "acme"
    ring.set_listed(entries_of({"sk-same": "listed"}))
    ring.set_stored("svk_x", [])
    assert ask(ring, "sk-same").account == "listed"


def test_without_the_store_its_keys_and_unknown_ones_are_refused_for_that() -> None:
    ring = ring_of(any=None)
    ring.set_stored("svk_x", [stored("known")])
    ring.away = "the store is away"
    for key in ("known", "unknown", new_secret("svk_0123456789AB")):
        with pytest.raises(StoreUnavailable, match="away"):
            ask(ring, key)
    assert ask(ring, "sk-any")
    with pytest.raises(Unauthenticated):
        ring.authenticate({}, SCOPE)
    ring.away = ""
    assert ask(ring, "known")


def test_the_use_of_stored_keys_is_told_once() -> None:
    ring = ring_of(any=None)
    ring.set_stored("svk_x", [stored("a"), stored("b")])
    before = time.time()
    ask(ring, "a")
    ask(ring, "b")
    ask(ring, "sk-any")
    used = ring.take_used()
    assert used.keys() == {"svk_x"}
    assert before <= used["svk_x"] <= time.time()
    assert ring.take_used() == {}
