"""Keeps a router's copy of keys and accounts as the store has them.

Each second the store is asked for one number (`KeyTables.news`), so a key that is revoked is
refused everywhere within two seconds. While the store is away a router goes on with what it knows,
for a limited time: then it refuses the store's keys, since any of them may have been revoked. A
router that starts while the store is away knows none of them; it answers with the keys that need no
store, and refuses others with 503, since they may be good.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from math import inf
from typing import Any

from serving.accounts.book import Account, AccountBook, Enforcement
from serving.accounts.caller import Caller, Role
from serving.accounts.key_limits import KeyLimits
from serving.accounts.listed import KeysFile, entries_of
from serving.accounts.ring import Entry, KeyRing
from serving.catalogue.quota import Quota
from serving.observability.logs import Log
from serving.observability.router_metrics import RouterMetrics
from serving.store.engine import StoreAway
from serving.store.key_rows import AccountRow, KeyRow, News
from serving.store.keys import KeyTables
from serving.store.migrate import SchemaError

POLL_S = 1.0
# A store that takes longer to say one number is away.
ANSWER_S = 5.0
# Keys that are taken over at a time; requests get their turn in between.
BATCH = 500
# How coarse the last use of a key is, and how often routers look whether there is one to write.
USE_S, FLUSH_S = 3600.0, 60.0
NOT_KNOWN = "the store of API keys cannot be reached, and this router has not read it yet"
TOO_LONG = "the store of API keys has been away for too long to trust what is known of its keys"


class Follower:
    """Follows the store.

    Args:
        tables: where keys are.
        stale_s: how long keys are good without the store, in seconds.
        poll_s: the longest time between two looks, in seconds.
    """

    def __init__(
        self,
        tables: KeyTables,
        ring: KeyRing,
        book: AccountBook,
        metrics: RouterMetrics,
        log: Log,
        *,
        stale_s: float,
        poll_s: float = POLL_S,
        rng: random.Random | None = None,
    ) -> None:
        self._tables = tables
        self._ring = ring
        self._book = book
        self._metrics = metrics
        self._log = log
        self.stale_s = stale_s
        self._poll_s = poll_s
        self._rng = rng or random.Random()
        self._version: int | None = None
        self._is_away = False
        self._current = time.monotonic()
        # When keys were last written down as used, by ID, and when that was last looked at.
        self._written: dict[str, float] = {}
        self._flushed = time.time()
        self._looked = asyncio.Event()
        # Changes of the admin API look too.
        self._one_at_a_time = asyncio.Lock()
        ring.away = NOT_KNOWN
        metrics.store_up.set(0)

    async def run(self) -> None:
        """Follow the store for ever."""
        while True:
            await self.look()
            # Jittered, so that a fleet's routers do not ask at the same moment.
            await asyncio.sleep(self._poll_s * self._rng.uniform(0.5, 1.0))

    async def looked(self, within_s: float) -> None:
        """Return when the store was looked at once, or after `within_s` seconds."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await self._looked.wait()

    async def look(self) -> None:
        """Look once."""
        async with self._one_at_a_time:
            await self._look()
        self._looked.set()

    async def _look(self) -> None:
        try:
            async with asyncio.timeout(ANSWER_S if self._version is not None else None):
                news = await self._tables.news(self._version)
            if news is not None:
                await self._take(news)
        except (StoreAway, SchemaError, TimeoutError) as error:
            self._went_away(error)
            return
        except Exception as error:  # noqa: BLE001 - it must go on, or no key would ever be revoked
            self._log.exception("keys_not_followed", error)
            self._went_away(error)
            return
        self._came_back()
        if time.time() - self._flushed >= FLUSH_S:
            await self.flush()

    async def flush(self) -> None:
        """Write down when keys were used, those that were not in the last hour's."""
        self._flushed = now = time.time()
        used = self._ring.take_used()
        due = {k: at for k, at in used.items() if at - self._written.get(k, 0.0) >= USE_S}
        if not due:
            return
        try:
            await self._tables.note_use(
                {key_id: datetime.fromtimestamp(at, UTC) for key_id, at in due.items()}
            )
        except (StoreAway, SchemaError) as error:
            self._log.warning("key_use_not_written", reason=str(error))
            return
        self._written = {k: at for k, at in self._written.items() if now - at < USE_S} | due

    def _went_away(self, error: Exception) -> None:
        away_s = time.monotonic() - self._current
        self._metrics.store_up.set(0)
        if not self._is_away:
            self._is_away = True
            reason = str(error) or type(error).__name__
            self._log.error("store_away", reason=reason, keys_good_for_s=self.stale_s)
        if self._version is not None and away_s > self.stale_s and not self._ring.away:
            self._ring.away = TOO_LONG
            self._log.error("keys_too_old", away_s=round(away_s))

    def _came_back(self) -> None:
        now = time.monotonic()
        if self._is_away:
            self._is_away = False
            self._log.info("store_back", away_s=round(now - self._current, 1))
        self._current = now
        self._ring.away = ""
        self._metrics.store_up.set(1)

    async def _take(self, news: News) -> None:
        accounts = [_account(row) for row in news.accounts]
        if news.whole:
            self._book.replace(accounts)
            self._ring.forget_stored({row.id for row in news.keys})
        else:
            self._book.update(accounts)
        for start in range(0, len(news.keys), BATCH):
            for row in news.keys[start : start + BATCH]:
                self._ring.set_stored(row.id, entries_of_row(row))
            await asyncio.sleep(0)
        self._version = news.version
        self._log.info(
            "keys_taken", version=news.version, keys=len(news.keys), accounts=len(news.accounts)
        )


class FileFollower:
    """Follows the file of keys, and puts them into the ring beside those of the setting, and
    accounts' limits into the book."""

    def __init__(
        self,
        file: KeysFile,
        keys: dict[str, str | None],
        ring: KeyRing,
        book: AccountBook,
        poll_s: float = POLL_S,
    ) -> None:
        self._file = file
        self._keys = keys
        self._ring = ring
        self._book = book
        self._poll_s = poll_s
        self._take()

    async def run(self) -> None:
        """Follow the file for ever."""
        while True:
            await asyncio.sleep(self._poll_s)
            if self._file.changed():
                self._take()

    def _take(self) -> None:
        self._ring.set_listed([*self._file.entries, *entries_of(self._keys)])
        self._book.set_listed(self._file.quotas)


def entries_of_row(row: KeyRow) -> Sequence[Entry]:
    """What the ring has of a key of the store. One whose limits this router does not understand, as
    a newer one may have written them, is not let in."""
    try:
        quota = _quota(row.quota)
        caller = Caller(row.id, row.account_id, Role(row.role), KeyLimits.of(row.limits), quota)
    except ValueError:
        return ()
    ends = _seconds(row.expires_at)
    return [
        Entry(
            secret.digest,
            caller,
            expires=min(ends, _seconds(secret.expires_at)),
            revoked=row.revoked_at is not None,
            stored=True,
        )
        for secret in row.secrets
    ]


def _account(row: AccountRow) -> Account:
    modes = {mode.value: mode for mode in Enforcement}
    enforcement = modes.get(row.enforcement or "")
    try:
        quota = _quota(row.quota)
    except ValueError:  # as a newer one may have written it
        quota = None
    return Account(row.id, enforcement, row.disabled, quota, row.weight or 1.0)


def _quota(stored: Mapping[str, Any] | None) -> Quota | None:
    """
    Raises:
        ValueError: this router does not understand it.
    """
    return Quota.model_validate(stored) if stored else None


def _seconds(at: datetime | None) -> float:
    return inf if at is None else at.timestamp()
