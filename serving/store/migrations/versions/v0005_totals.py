"""Sums of all accounts and keys together, by the hour."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005_totals"
down_revision = "0004_weights"
branch_labels = None
depends_on = None

_KEYS = "hour, model, served_model, outcome"
_SUMS = (
    "requests",
    "usage_unknown",
    "prompt_tokens",
    "cached_tokens",
    "completion_tokens",
    "images",
    "total_s",
)
# So many hours are filled at a time: a statement may not take long (`serving/store/engine.py`).
_WEEK_H = 7 * 24


def upgrade() -> None:
    """Make the table, with what there is."""
    op.create_table(
        "usage_totals",
        sa.Column("hour", sa.Integer, nullable=False),
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
        sa.PrimaryKeyConstraint("hour", "model", "served_model", "outcome", name="pk_usage_totals"),
    )
    sums = ", ".join(f"sum({name})" for name in _SUMS)
    fill = sa.text(
        f"INSERT INTO usage_totals ({_KEYS}, {', '.join(_SUMS)}) "
        f"SELECT {_KEYS}, {sums} FROM usage_hours "
        f"WHERE hour >= :first AND hour < :last GROUP BY {_KEYS}"
    )
    connection = op.get_bind()
    span = connection.execute(sa.text("SELECT min(hour), max(hour) FROM usage_hours")).one()
    if span[0] is not None:
        for first in range(span[0], span[1] + 1, _WEEK_H):
            connection.execute(fill, {"first": first, "last": first + _WEEK_H})


def downgrade() -> None:
    """Drop the table."""
    op.drop_table("usage_totals")
