"""The ledger: its entries, how far each journal has come, and sums by the hour."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002_usage"
down_revision = "0001_accounts"
branch_labels = None
depends_on = None

_MOMENT = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "usage_entries",
        sa.Column("ended_at", _MOMENT, nullable=False),
        sa.Column("journal", sa.String(32), nullable=False),
        sa.Column("number", sa.BigInteger, nullable=False),
        sa.Column("request_id", sa.String(128), nullable=False),
        sa.Column("account", sa.String(256), nullable=False),
        sa.Column("key_id", sa.String(64), nullable=False),
        sa.Column("model", sa.String(512), nullable=False),
        sa.Column("served_model", sa.String(512), nullable=False),
        sa.Column("version", sa.String(128), nullable=False),
        sa.Column("engine", sa.String(512), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("endpoint", sa.String(128), nullable=False),
        sa.Column("stream", sa.Boolean, nullable=False),
        sa.Column("outcome", sa.String(16), nullable=False),
        sa.Column("status", sa.Integer, nullable=False),
        sa.Column("code", sa.String(64)),
        sa.Column("finish_reason", sa.String(64)),
        sa.Column("usage_known", sa.Boolean, nullable=False),
        sa.Column("prompt_tokens", sa.BigInteger, nullable=False),
        sa.Column("cached_tokens", sa.BigInteger, nullable=False),
        sa.Column("completion_tokens", sa.BigInteger, nullable=False),
        sa.Column("images", sa.Integer, nullable=False),
        sa.Column("queue_s", sa.Float),
        sa.Column("ttft_s", sa.Float),
        sa.Column("total_s", sa.Float, nullable=False),
        sa.Column("replica", sa.String(256), nullable=False),
        sa.Column("retried", sa.Boolean, nullable=False),
        sa.PrimaryKeyConstraint("ended_at", "journal", "number", name="pk_usage_entries"),
        postgresql_partition_by="RANGE (ended_at)",
    )
    op.create_index("ix_usage_entries_account_ended_at", "usage_entries", ["account", "ended_at"])
    op.create_index("ix_usage_entries_request_id", "usage_entries", ["request_id"])
    if op.get_context().dialect.name == "postgresql":
        op.execute("CREATE TABLE usage_entries_rest PARTITION OF usage_entries DEFAULT")
    op.create_table(
        "usage_journals",
        sa.Column("journal", sa.String(32), nullable=False),
        sa.Column("number", sa.BigInteger, nullable=False),
        sa.Column("updated_at", _MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("journal", name="pk_usage_journals"),
    )
    _make_sums("usage_hours")
    _make_sums("usage_days")


def _make_sums(table: str) -> None:
    op.create_table(
        table,
        sa.Column("hour", sa.Integer, nullable=False),
        sa.Column("account", sa.String(256), nullable=False),
        sa.Column("key_id", sa.String(64), nullable=False),
        sa.Column("model", sa.String(512), nullable=False),
        sa.Column("served_model", sa.String(512), nullable=False),
        sa.Column("outcome", sa.String(16), nullable=False),
        sa.Column("requests", sa.BigInteger, nullable=False),
        sa.Column("usage_unknown", sa.BigInteger, nullable=False),
        sa.Column("prompt_tokens", sa.BigInteger, nullable=False),
        sa.Column("cached_tokens", sa.BigInteger, nullable=False),
        sa.Column("completion_tokens", sa.BigInteger, nullable=False),
        sa.Column("images", sa.BigInteger, nullable=False),
        sa.Column("total_s", sa.Float, nullable=False),
        sa.PrimaryKeyConstraint(
            "hour", "account", "key_id", "model", "served_model", "outcome", name=f"pk_{table}"
        ),
    )
    op.create_index(f"ix_{table}_account_hour", table, ["account", "hour"])
    op.create_index(f"ix_{table}_served_model_hour", table, ["served_model", "hour"])


def downgrade() -> None:
    """Drop the tables."""
    for table in ("usage_days", "usage_hours", "usage_journals", "usage_entries"):
        op.drop_table(table)
