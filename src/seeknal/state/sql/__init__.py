"""The database backend: SQLAlchemy Core for tables and dialects, Alembic for the schema."""
