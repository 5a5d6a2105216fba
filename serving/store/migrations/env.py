"""Run by Alembic for each command, with the connection that `serving/store/migrate.py` has begun a
transaction on."""

from __future__ import annotations

from alembic import context

from serving.store.schema import METADATA

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=METADATA,
    # SQLite's are transactional too, if the transaction is begun by hand.
    transactional_ddl=True,
    # SQLite changes a table by copying it.
    render_as_batch=True,
)
context.run_migrations()
