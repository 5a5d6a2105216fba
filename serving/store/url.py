"""The store's address, as people write it, as SQLAlchemy's async engines read it."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

SQLITE, POSTGRESQL = "sqlite", "postgresql"
# What people call PostgreSQL in a URL; the driver is ours to choose.
_POSTGRESQL = ("postgres", POSTGRESQL, f"{POSTGRESQL}+asyncpg")
_SQLITE = (SQLITE, f"{SQLITE}+aiosqlite")
EXAMPLES = "sqlite:////var/lib/serving/store.sqlite3 or postgresql://USER:PASSWORD@HOST/DATABASE"


def store_url(text: str) -> URL:
    """The URL of `SERVING_STORE_URL`.

    libpq's `sslmode` in a PostgreSQL URL becomes asyncpg's `ssl`, which takes the same words.

    Raises:
        ValueError: it is no URL of a database that can be the store. The message has no password.
    """
    try:
        url = make_url(text)
    except ArgumentError:
        raise ValueError(f"SERVING_STORE_URL is no URL; write {EXAMPLES}") from None
    if url.drivername in _SQLITE:
        if not url.database or url.database == ":memory:" or url.database.startswith("file:"):
            raise ValueError(
                "SERVING_STORE_URL names no file: processes share the store; "
                "write sqlite:////path/to/store.sqlite3"
            )
        path = Path(url.database).absolute()
        return url.set(drivername=f"{SQLITE}+aiosqlite", database=str(path))
    if url.drivername in _POSTGRESQL:
        query = dict(url.query)
        if (mode := query.pop("sslmode", None)) is not None:
            query.setdefault("ssl", mode)
        return url.set(drivername=f"{POSTGRESQL}+asyncpg", query=query)
    raise ValueError(f"SERVING_STORE_URL: '{url.drivername}' cannot be the store; write {EXAMPLES}")


def shown(url: URL) -> str:
    """The URL without its password, for people and logs."""
    return url.set(drivername=url.get_backend_name()).render_as_string(hide_password=True)
