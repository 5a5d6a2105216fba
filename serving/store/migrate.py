"""The schema's version: a chain of migrations (Alembic), run by whoever needs the store first.

A migration may run while routers of the version before still work with the store, so it must leave
what they use: add first, and remove one version later. A store that is newer than this program is
therefore taken as it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text

from serving.store.url import POSTGRESQL

FOLDER = Path(__file__).with_name("migrations")
# Of PostgreSQL's advisory lock that whoever migrates holds: "serving" in ASCII.
LOCK = int.from_bytes(b"serving")


class SchemaError(Exception):
    """The schema is older than this program needs, and it may not migrate it."""


@dataclass(frozen=True, slots=True)
class Status:
    """The schema's version and what there is. `current` is empty for an empty database. `missing`
    has the migrations that have not run yet, the first one first; `newer` is true if this program
    does not know the version."""

    current: str
    head: str
    missing: tuple[str, ...]
    newer: bool


def status(connection: Connection) -> Status:
    """Which migrations have run."""
    scripts = ScriptDirectory.from_config(_config())
    head = scripts.get_current_head() or ""
    current = MigrationContext.configure(connection).get_current_revision() or ""
    chain = [script.revision for script in scripts.walk_revisions()][::-1]
    newer = bool(current) and current not in chain
    done = chain.index(current) + 1 if current in chain else 0
    return Status(current, head, () if newer else tuple(chain[done:]), newer)


def upgrade(connection: Connection) -> Status:
    """Run what is missing, in the connection's transaction; how it was before. One process at a
    time: SQLite's transaction is the only writing one, and PostgreSQL's holds a lock."""
    if connection.dialect.name == POSTGRESQL:
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": LOCK})
    before = status(connection)
    if before.missing:
        config = _config()
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
    return before


def check(found: Status) -> None:
    """Raises `SchemaError` if migrations are missing."""
    if found.missing:
        raise SchemaError(
            f"the store's schema lacks {', '.join(found.missing)}; run `serving store upgrade`"
        )


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(FOLDER).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config
