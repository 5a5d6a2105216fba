"""The API keys that a router knows: those it was given, and a copy of those in the store.

A request costs one look into a table. Keys are kept as SHA-256 digests, so a dump of this process's
tables shows none. Comparing gives nothing away: the table is searched with half of the digest by
Python's hash of it, which is keyed with a secret of the process (PEP 456), and what is found is
compared in constant time.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from hmac import compare_digest
from math import inf

from starlette.types import Scope

from serving.accounts.address import client_address
from serving.accounts.caller import Caller
from serving.accounts.key_limits import Network
from serving.accounts.secret import PREFIX, is_whole
from serving.errors import Forbidden, KeyExpired, KeyRevoked, StoreUnavailable, Unauthenticated
from serving.http.request import key_of

_INDEX_BYTES = 16
NO_KEY = "no API key: send 'x-api-key: KEY' or 'Authorization: Bearer KEY'"


@dataclass(frozen=True, slots=True)
class Entry:
    """One secret of a key. `expires` is in seconds since 1970; `stored` is true for keys of the
    store."""

    digest: bytes
    caller: Caller
    expires: float = inf
    revoked: bool = False
    stored: bool = False
    # True if there is nothing to look at when it comes.
    always: bool = field(init=False)

    def __post_init__(self) -> None:
        free = self.expires == inf and self.caller.limits.networks is None
        object.__setattr__(self, "always", free and not (self.revoked or self.stored))


class KeyRing:
    """The API keys of an installation. Of two entries with one digest, the one that is not in the
    store counts.

    `away` is why keys of the store are not known now, or no longer: then they are refused for that
    reason, and so are unknown keys, which might be among them. Empty: they are known.

    Args:
        proxies: whose `X-Forwarded-For` is believed.
    """

    def __init__(self, proxies: Sequence[Network] = ()) -> None:
        self._proxies = proxies
        self._listed: dict[bytes, Entry] = {}
        self._stored: dict[str, Sequence[Entry]] = {}
        # All of them, by half of their digest.
        self._entries: dict[bytes, Entry] = {}
        self._used: dict[str, float] = {}
        self.away = ""

    def set_listed(self, entries: Iterable[Entry]) -> None:
        """Set the keys that are not in the store."""
        self._listed = {entry.digest[:_INDEX_BYTES]: entry for entry in entries}
        stored = (entry for each in self._stored.values() for entry in each)
        self._entries = {entry.digest[:_INDEX_BYTES]: entry for entry in stored} | self._listed

    def forget_stored(self, known: Collection[str]) -> None:
        """Forget the keys of the store whose IDs are not among `known`."""
        for key_id in self._stored.keys() - set(known):
            self.set_stored(key_id, ())

    def set_stored(self, key_id: str, entries: Sequence[Entry]) -> None:
        """Set the secrets of one key of the store."""
        for entry in self._stored.pop(key_id, ()):
            if entry.digest[:_INDEX_BYTES] not in self._listed:
                del self._entries[entry.digest[:_INDEX_BYTES]]
        if entries:
            self._stored[key_id] = entries
        for entry in entries:
            self._entries.setdefault(entry.digest[:_INDEX_BYTES], entry)

    def take_used(self) -> dict[str, float]:
        """When each key of the store that was used since the last call was used last, by its ID;
        in seconds since 1970."""
        used, self._used = self._used, {}
        return used

    def authenticate(self, headers: Mapping[bytes, bytes], scope: Scope) -> Caller:
        """The caller of a request.

        Raises:
            Unauthenticated: no key, or an unknown one; KeyExpired, KeyRevoked: it was one.
            Forbidden: the key may not be used from there.
            StoreUnavailable: nobody knows, since the store has been away for too long.
        """
        if not (key := key_of(headers)):
            raise Unauthenticated(NO_KEY)
        digest = sha256(key).digest()
        entry = self._entries.get(digest[:_INDEX_BYTES])
        if entry is None or not compare_digest(entry.digest, digest):
            raise self._unknown(key)
        if entry.always:
            return entry.caller
        now = time.time()
        if now >= entry.expires or entry.revoked:
            raise _over(entry)
        if entry.stored and self.away:
            raise StoreUnavailable(self.away)
        limits = entry.caller.limits
        if limits.networks is not None and not limits.allow_address(
            client_address(scope, self._proxies)
        ):
            raise Forbidden("this API key may not be used from your network")
        if entry.stored:
            self._used[entry.caller.key_id] = now
        return entry.caller

    def _unknown(self, key: bytes) -> Unauthenticated | StoreUnavailable:
        """The refusal of a key that is not known."""
        text = key.decode("latin-1")
        if text.startswith(PREFIX) and not is_whole(text):
            return Unauthenticated(
                "this API key is incomplete or mistyped: its checksum does not match"
            )
        return StoreUnavailable(self.away) if self.away else Unauthenticated("unknown API key")


def _over(entry: Entry) -> Unauthenticated:
    if entry.revoked:
        return KeyRevoked("this API key was revoked")
    at = datetime.fromtimestamp(entry.expires, UTC).strftime("%Y-%m-%d %H:%M:%S")
    return KeyExpired(f"this API key, or this secret of it, expired on {at} UTC")
