"""The store: one database, one pool of connections to it, and its schema brought up to date.

The modules beside this one have the SQL, one for each owner of tables; nothing else of the project
writes SQL. A request's path never waits for the store: who needs something of it at once keeps a
copy (`serving/accounts/`).

SQLite, for one machine: WAL mode, so that readers and the one writer do not wait for each other.
`synchronous` stays FULL: what is committed survives a power cut. Transactions are begun by us and
not by Python's driver, whose deferred ones fail at once (`SQLITE_BUSY`, without waiting) when they
read first and write then (sqlite.org/isolation.html). PostgreSQL: READ COMMITTED, its default.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as NoConnection
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from serving.store import migrate
from serving.store.url import SQLITE, shown, store_url

CONNECT_S = 5.0
# How long a statement may take; a poll of a router has a shorter limit of its own.
STATEMENT_S = 30.0
# How long a writer of SQLite waits for another one.
BUSY_MS = 10_000
POOL_SIZE, POOL_MORE = 2, 8
_BEGIN = "serving_begin"
# SQLSTATE classes: connection, resources, operator intervention, system error
# (postgresql.org/docs/18/errcodes-appendix.html).
_AWAY_CLASSES = ("08", "53", "57", "58")
# SQLITE_ERROR: the statement is wrong, which is our bug and no trouble of the database.
_SQLITE_WRONG = 1


class StoreAway(Exception):
    """The store does not answer, or cannot do what it is asked now: nobody is there, it is shutting
    down, its disk is full. Trying again later may help."""


class Store:
    """One database.

    Args:
        url: as `SERVING_STORE_URL`.
        migrates: bring the schema up to date before it is first used; otherwise somebody else does
            that with `serving store upgrade`.

    Raises:
        ValueError: see `url.store_url`.
    """

    def __init__(self, url: str, *, migrates: bool = True) -> None:
        self.url = store_url(url)
        self._migrates = migrates
        self._prepared = False
        self._preparing = asyncio.Lock()
        self._engine = _engine(self.url)

    @property
    def kind(self) -> str:
        """`sqlite` or `postgresql`."""
        return self.url.get_backend_name()

    @property
    def shown(self) -> str:
        """Where it is, without a password."""
        return shown(self.url)

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[AsyncConnection]:
        """A transaction that only reads.

        Raises:
            StoreAway: see there; also from within the block.
            SchemaError: the schema is not as this program needs it.
        """
        await self.prepare()
        with _Told():
            async with self._begun("BEGIN") as connection:
                yield connection

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[AsyncConnection]:
        """A transaction that may write, committed if the block ends well. On SQLite it is the only
        one at a time, from its beginning on. Raises as `reading`."""
        await self.prepare()
        with _Told():
            async with self._begun("BEGIN IMMEDIATE") as connection:
                yield connection

    async def prepare(self) -> None:
        """Make sure, once, that the schema is what this program needs. Raises as `reading`."""
        if self._prepared:
            return
        async with self._preparing:
            if not self._prepared:
                if self._migrates:
                    await self.upgrade()
                else:
                    migrate.check(await self.status())
                self._prepared = True

    async def upgrade(self) -> migrate.Status:
        """Bring the schema up to date; how it was before. Many processes may call this at once: one
        does it, and the others find it done. Raises `StoreAway`."""
        self._make_file()
        with _Told():
            async with self._begun("BEGIN IMMEDIATE") as connection:
                return await connection.run_sync(migrate.upgrade)

    async def status(self) -> migrate.Status:
        """Which version the schema has. Raises `StoreAway`."""
        self._make_file()
        with _Told():
            async with self._begun("BEGIN") as connection:
                return await connection.run_sync(migrate.status)

    async def close(self) -> None:
        """Close every connection. SQLite's have a thread each, which this ends."""
        await self._engine.dispose()

    @asynccontextmanager
    async def _begun(self, begin: str) -> AsyncIterator[AsyncConnection]:
        engine = self._engine.execution_options(**{_BEGIN: begin})
        async with engine.begin() as connection:
            yield connection

    def _make_file(self) -> None:
        """Make SQLite's file, for its owner alone, and the folder; SQLite gives the files beside it
        the same rights.

        Raises:
            StoreAway: it cannot be made.
        """
        path = Path(self.url.database or "")
        # A file that is there is not even opened: closing it would drop the locks that SQLite has
        # on it in this process (sqlite.org/howtocorrupt.html, 2.2).
        if self.kind != SQLITE or path.exists():
            return
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            _make_sqlite(path)
        except (OSError, sqlite3.Error) as error:
            raise StoreAway(f"{path}: {error}") from error


class _Told:
    """Turns what a database's drivers raise while it is away into `StoreAway`."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, OSError | TimeoutError | NoConnection):
            raise StoreAway(str(error) or type(error).__name__) from error
        if isinstance(error, DBAPIError) and _is_away(error):
            raise StoreAway(str(error.orig)) from error


def _is_away(error: DBAPIError) -> bool:
    original = error.orig
    if error.connection_invalidated:
        return True
    if (code := getattr(original, "sqlite_errorcode", None)) is not None:
        return type(original).__name__ == "OperationalError" and code != _SQLITE_WRONG
    state = getattr(original, "sqlstate", None) or ""
    return state.startswith(_AWAY_CLASSES)


def _engine(url: URL) -> AsyncEngine:
    # Parameters stay out of messages: they are what logs must not have.
    if url.get_backend_name() == SQLITE:
        engine = create_async_engine(url, hide_parameters=True, pool_size=1, max_overflow=POOL_MORE)
        event.listen(engine.sync_engine, "connect", _prepare_sqlite)
        event.listen(engine.sync_engine, "begin", _begin_sqlite)
        return engine
    timeouts = {"timeout": CONNECT_S, "command_timeout": STATEMENT_S}
    return create_async_engine(
        url,
        hide_parameters=True,
        pool_size=POOL_SIZE,
        max_overflow=POOL_MORE,
        pool_pre_ping=True,
        pool_timeout=CONNECT_S,
        connect_args={**timeouts, "server_settings": {"application_name": "serving"}},
    )


def _make_sqlite(path: Path) -> None:
    """Make an empty database in WAL mode. It is there at once: who opens one at the moment in which
    another process changes its mode is refused without waiting."""
    flags = os.O_CREAT | os.O_RDWR | os.O_CLOEXEC
    held = os.open(path.with_name(f"{path.name}.lock"), flags, 0o600)
    try:
        fcntl.flock(held, fcntl.LOCK_EX)
        if path.exists():
            return
        new = path.with_name(f".{path.name}.new")
        new.unlink(missing_ok=True)
        os.close(os.open(new, flags, 0o600))
        connection = sqlite3.connect(new)
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        finally:
            connection.close()
        new.rename(path)
    finally:
        os.close(held)


def _prepare_sqlite(connection: Any, record: object) -> None:
    """Set up a new connection of SQLite's. Without `isolation_level` its driver begins nothing."""
    connection.isolation_level = None
    cursor = connection.cursor()
    for pragma in (f"busy_timeout = {BUSY_MS}", "journal_mode = WAL", "foreign_keys = ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    connection.exec_driver_sql(connection.get_execution_options()[_BEGIN])
