"""What Alembic runs: the revisions, on the connection that `schema` has open, or as text for somebody to run."""

from alembic import context

given = context.config.attributes
names = given["tables"]
options = {
    "target_metadata": names.metadata,
    "version_table": f"{names.prefix}alembic_version",
    "version_table_schema": names.metadata.schema,
    "tables": names,
    "is_shared": given["is_shared"],
    "locks_rows": given["locks_rows"],
    "collation": given["collation"],
}
if context.is_offline_mode():
    context.configure(dialect_name=given["dialect"], literal_binds=True, **options)
else:
    context.configure(connection=given["connection"], **options)
context.run_migrations()
