"""Alembic's entry: runs the migrations on a connection that `tidings.ledger.migrate` hands over."""

from alembic import context

from tidings.ledger.tables import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
with context.begin_transaction():
    context.run_migrations()
