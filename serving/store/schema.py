"""The tables. `migrations/` has how they came about; a test holds the two together."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Dialect,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    TypeDecorator,
)
from sqlalchemy.dialects.postgresql import JSONB

# Constraints have names, so that a migration can change them.
METADATA = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)


class Moment(TypeDecorator[datetime]):
    """A point in time, always with a time zone in Python. SQLite has no such type: there it is
    text, in UTC, so that it sorts."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """See SQLAlchemy. Raises `ValueError` for a time without a zone."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a time without a zone")
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """See SQLAlchemy."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


DOCUMENT = JSON().with_variant(JSONB(), "postgresql")
# SQLite numbers rows by itself only in a column of this type.
ROW_NUMBER = BigInteger().with_variant(Integer(), "sqlite")

# A number for each thing that routers keep a copy of. Who changes one of its rows counts it up in
# the same transaction, first of all, and writes the new number into the row. That update locks the
# row here, so that numbers are committed in their order: who has seen number N and finds a higher
# one here misses nothing in rows above N.
versions = Table(
    "versions",
    METADATA,
    Column("name", String(32), primary_key=True),
    Column("number", BigInteger, nullable=False),
)

accounts = Table(
    "accounts",
    METADATA,
    Column("id", String(256), primary_key=True),
    Column("name", String(256), nullable=False),
    # off, warn, enforce; null: as the installation's.
    Column("enforcement", String(16)),
    Column("disabled", Boolean, nullable=False),
    Column("created_at", Moment, nullable=False),
    # How much may be used (`catalogue/quota.py`); null: no limit.
    Column("quota", DOCUMENT),
    # Its share of an engine's turns, as a multiple of others'; null: 1.
    Column("weight", Float),
    Column("version", BigInteger, nullable=False, index=True),
)

api_keys = Table(
    "api_keys",
    METADATA,
    # What a key's text says of itself, and what logs and lists show.
    Column("id", String(64), primary_key=True),
    # Null: the key may use any account.
    Column("account_id", ForeignKey("accounts.id"), index=True),
    Column("name", String(256), nullable=False),
    Column("role", String(16), nullable=False),
    # What it is limited to, each a list or null: models, endpoints, networks.
    Column("limits", DOCUMENT, nullable=False),
    # How much it may use.
    Column("quota", DOCUMENT),
    Column("created_at", Moment, nullable=False),
    Column("expires_at", Moment),
    Column("revoked_at", Moment),
    # Within an hour: routers do not write at each request.
    Column("last_used_at", Moment),
    Column("version", BigInteger, nullable=False, index=True),
)

# The secrets of a key: one, and while it is being rotated those before it.
api_key_secrets = Table(
    "api_key_secrets",
    METADATA,
    # SHA-256 of the whole text.
    Column("digest", LargeBinary(32), primary_key=True),
    Column("key_id", ForeignKey("api_keys.id"), nullable=False, index=True),
    Column("created_at", Moment, nullable=False),
    # Null: as long as the key.
    Column("expires_at", Moment),
)

audit = Table(
    "audit",
    METADATA,
    Column("number", ROW_NUMBER, primary_key=True, autoincrement=True),
    Column("at", Moment, nullable=False),
    # The ID of the key that asked for it, or who did it on the machine itself.
    Column("actor", String(256), nullable=False),
    Column("action", String(64), nullable=False),
    Column("subject", String(256), nullable=False),
    Column("request_id", String(128), nullable=False),
    Column("detail", DOCUMENT, nullable=False),
    Index(None, "subject"),
)

# The ledger (`serving/accounts/ledger/`): an entry for each admitted request. On PostgreSQL a table
# for each month, which `usage.py` makes ahead and drops when it is old.
usage_entries = Table(
    "usage_entries",
    METADATA,
    Column("ended_at", Moment, primary_key=True),
    Column("journal", String(32), primary_key=True),
    Column("number", BigInteger, primary_key=True),
    Column("request_id", String(128), nullable=False),
    Column("account", String(256), nullable=False),
    Column("key_id", String(64), nullable=False),
    Column("model", String(512), nullable=False),
    Column("served_model", String(512), nullable=False),
    Column("version", String(128), nullable=False),
    Column("engine", String(512), nullable=False),
    Column("kind", String(16), nullable=False),
    Column("endpoint", String(128), nullable=False),
    Column("stream", Boolean, nullable=False),
    Column("outcome", String(16), nullable=False),
    Column("status", Integer, nullable=False),
    Column("code", String(64)),
    Column("finish_reason", String(64)),
    Column("usage_known", Boolean, nullable=False),
    Column("prompt_tokens", BigInteger, nullable=False),
    Column("cached_tokens", BigInteger, nullable=False),
    Column("completion_tokens", BigInteger, nullable=False),
    Column("images", Integer, nullable=False),
    Column("queue_s", Float),
    Column("ttft_s", Float),
    Column("total_s", Float, nullable=False),
    Column("replica", String(256), nullable=False),
    Column("retried", Boolean, nullable=False),
    Index(None, "account", "ended_at"),
    Index(None, "request_id"),
    postgresql_partition_by="RANGE (ended_at)",
)

# How far each journal has been shipped.
usage_journals = Table(
    "usage_journals",
    METADATA,
    Column("journal", String(32), primary_key=True),
    Column("number", BigInteger, nullable=False),
    Column("updated_at", Moment, nullable=False),
)


def _sums_of(name: str, *parts: Column[Any], indexes: Sequence[Index] = ()) -> Table:
    return Table(
        name,
        METADATA,
        # The first hour of what is summed, counted since 1970, UTC.
        Column("hour", Integer, primary_key=True),
        *parts,
        Column("model", String(512), primary_key=True),
        Column("served_model", String(512), primary_key=True),
        Column("outcome", String(16), primary_key=True),
        Column("requests", BigInteger, nullable=False),
        Column("usage_unknown", BigInteger, nullable=False),
        Column("prompt_tokens", BigInteger, nullable=False),
        Column("cached_tokens", BigInteger, nullable=False),
        Column("completion_tokens", BigInteger, nullable=False),
        Column("images", BigInteger, nullable=False),
        Column("total_s", Float, nullable=False),
        *indexes,
    )


def _sums_by_key(name: str) -> Table:
    return _sums_of(
        name,
        Column("account", String(256), primary_key=True),
        Column("key_id", String(64), primary_key=True),
        indexes=(Index(None, "account", "hour"), Index(None, "served_model", "hour")),
    )


# The sums of entries that usage is read from: of each key by the hour and by the day, and of all
# keys by the hour. Each batch of entries adds to them in its own transaction, so that they are
# always equal.
usage_hours = _sums_by_key("usage_hours")
usage_days = _sums_by_key("usage_days")
usage_totals = _sums_of("usage_totals")

# Limits that routers share (`quota_leases.py`). `tat` is when a rate's bucket will be empty, in
# nanoseconds since 1970.
quota_rates = Table(
    "quota_rates",
    METADATA,
    Column("pool", String(600), primary_key=True),
    Column("tat", BigInteger, nullable=False),
)

# What each router has used of a budget in a period, which is known by its beginning in seconds
# since 1970, and up to where it may go; when it last said so, in nanoseconds since 1970. Money is
# in billionths.
quota_budgets = Table(
    "quota_budgets",
    METADATA,
    Column("pool", String(600), primary_key=True),
    Column("period", BigInteger, primary_key=True),
    Column("router", String(64), primary_key=True),
    Column("used", BigInteger, nullable=False),
    Column("granted", BigInteger, nullable=False),
    Column("renewed_at", BigInteger, nullable=False),
)
