"""Add the claims of intervals and partitions, and the version that a node's stand at. Never edited once released.

It may run again where MySQL has made a table and a process was killed before the revision was written down.
"""

from typing import Any

import sqlalchemy as sa
from alembic import context, op
from sqlalchemy.dialects import mysql, postgresql

revision = "0003"
down_revision = "0002"

ID = sa.String(190).with_variant(postgresql.VARCHAR(190, collation="C"), "postgresql")
RANGE_KEY = sa.String(200).with_variant(postgresql.VARCHAR(200, collation="C"), "postgresql")
TEXT = sa.Text().with_variant(mysql.LONGTEXT(), "mysql", "mariadb")


def upgrade() -> None:
    """Create the tables; those who upgrade at once wait for each other."""
    _create(
        "claims",
        sa.Column("node_id", ID, primary_key=True),
        sa.Column("range_key", RANGE_KEY, primary_key=True),
        sa.Column("start_us", sa.BigInteger),
        sa.Column("end_us", sa.BigInteger),
        sa.Column("partition", ID),
        sa.Column("run_id", ID, nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("attempt", sa.BigInteger, nullable=False),
        sa.Column("max_attempts", sa.BigInteger, nullable=False),
        sa.Column("error_message", TEXT),
        sa.Column("since_us", sa.BigInteger, nullable=False),
        sa.Column("lease_run_id", ID, nullable=False),
        sa.Column("lease_node_id", ID, nullable=False),
        sa.Column("lease_token", sa.BigInteger, nullable=False),
        sa.Column("lease_owner", sa.String(64), nullable=False),
    )
    _create(
        "claim_sets",
        sa.Column("node_id", ID, primary_key=True),
        sa.Column("version", sa.BigInteger, nullable=False),
    )


def _create(name: str, *columns: Any) -> None:
    given = context.get_context().opts
    names, collation = given["tables"], given["collation"]
    charset = {"mysql_engine": "InnoDB", "mysql_charset": "utf8mb4", "mysql_collate": collation}
    maria = {key.replace("mysql", "mariadb"): value for key, value in charset.items()}
    options = {**charset, **maria} if collation else {}
    op.create_table(f"{names.prefix}{name}", *columns, schema=names.metadata.schema, if_not_exists=True, **options)
