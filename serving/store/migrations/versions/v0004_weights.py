"""The weight of an account among others that wait for the same engine."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004_weights"
down_revision = "0003_quotas"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column."""
    op.add_column("accounts", sa.Column("weight", sa.Float))


def downgrade() -> None:
    """Undo that."""
    op.drop_column("accounts", "weight")
