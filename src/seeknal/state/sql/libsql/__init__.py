"""libSQL and Turso: a client for Hrana over HTTP, a DB-API module on it, and a dialect for SQLAlchemy."""
