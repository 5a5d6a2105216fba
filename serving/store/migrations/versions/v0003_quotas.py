"""How much accounts and keys may use, and what routers have leased of it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0003_quotas"
down_revision = "0002_usage"
branch_labels = None
depends_on = None

_DOCUMENT = sa.JSON().with_variant(JSONB(), "postgresql")


def upgrade() -> None:
    """Add the columns and make the tables."""
    op.add_column("accounts", sa.Column("quota", _DOCUMENT))
    op.add_column("api_keys", sa.Column("quota", _DOCUMENT))
    op.create_table(
        "quota_rates",
        sa.Column("pool", sa.String(600), nullable=False),
        sa.Column("tat", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("pool", name="pk_quota_rates"),
    )
    op.create_table(
        "quota_budgets",
        sa.Column("pool", sa.String(600), nullable=False),
        sa.Column("period", sa.BigInteger, nullable=False),
        sa.Column("router", sa.String(64), nullable=False),
        sa.Column("used", sa.BigInteger, nullable=False),
        sa.Column("granted", sa.BigInteger, nullable=False),
        sa.Column("renewed_at", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("pool", "period", "router", name="pk_quota_budgets"),
    )


def downgrade() -> None:
    """Undo that."""
    op.drop_table("quota_budgets")
    op.drop_table("quota_rates")
    op.drop_column("api_keys", "quota")
    op.drop_column("accounts", "quota")
