"""Who may call a router, put together: keys and accounts, what keeps them current, and the admin
API's hands."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

from serving.accounts.admin import Admin
from serving.accounts.book import AccountBook
from serving.accounts.follow import POLL_S, FileFollower, Follower
from serving.accounts.listed import KeysFile, entries_of
from serving.accounts.ring import KeyRing
from serving.observability.logs import Log
from serving.observability.router_metrics import RouterMetrics
from serving.observability.tasks import background, end
from serving.settings import Settings, is_loopback
from serving.store.engine import Store
from serving.store.keys import KeyTables
from serving.store.quota_leases import QuotaLeases

# How long a router that starts waits for the store before it listens without it.
START_S = 10.0


class Keeper:
    """The keys and accounts of one router. `ring` and `book` are what requests are compared with;
    `admin` is None without a store.

    Args:
        poll_s: see `Follower`.

    Raises:
        KeysFileError: the file of keys cannot be read.
    """

    def __init__(
        self,
        settings: Settings,
        store: Store | None,
        metrics: RouterMetrics,
        log: Log,
        *,
        poll_s: float = POLL_S,
        rng: random.Random | None = None,
    ) -> None:
        self.ring = KeyRing(settings.proxies)
        self.book = AccountBook()
        self.book.set_weights(settings.weights)
        self.admin: Admin | None = None
        self._log = log
        self._tasks: list[asyncio.Task[None]] = []
        self._file: FileFollower | None = None
        self._follower: Follower | None = None
        if settings.api_keys_file:
            file = KeysFile(Path(settings.api_keys_file), log, here_only=is_loopback(settings.host))
            self._file = FileFollower(file, settings.keys, self.ring, self.book, poll_s)
        else:
            self.ring.set_listed(entries_of(settings.keys))
        if store is not None:
            tables = KeyTables(store)
            self._follower = Follower(
                tables,
                self.ring,
                self.book,
                metrics,
                log,
                stale_s=settings.keys_stale_s,
                poll_s=poll_s,
                rng=rng,
            )
            self.admin = Admin(tables, QuotaLeases(store, "admin"), self._follower.look)

    async def start(self) -> None:
        """Read the store, if it answers soon, and follow it and the file from now on."""
        if self._follower is not None:
            self._tasks.append(background(self._follower.run(), "follow_keys", self._log))
            await self._follower.looked(START_S)
        if self._file is not None:
            self._tasks.append(background(self._file.run(), "follow_keys_file", self._log))

    async def close(self) -> None:
        """Stop following; write down which keys were used."""
        await end(*self._tasks)
        self._tasks = []
        if self._follower is not None:
            await self._follower.flush()
