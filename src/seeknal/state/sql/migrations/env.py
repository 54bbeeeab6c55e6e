"""What Alembic runs: the revisions, on the connection and in the transaction that `schema` has open."""

from alembic import context

from seeknal.state.sql.tables import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
context.run_migrations()
