"""Add the log of what people and commands did to the store. Never edited once released.

It may run again where MySQL has made the table and a process was killed before the revision was written down.
"""

import sqlalchemy as sa
from alembic import context, op
from sqlalchemy.dialects import mysql, postgresql

revision = "0002"
down_revision = "0001"

ID = sa.String(190).with_variant(postgresql.VARCHAR(190, collation="C"), "postgresql")
CHANGE_ID = sa.String(36).with_variant(postgresql.VARCHAR(36, collation="C"), "postgresql")
TEXT = sa.Text().with_variant(mysql.LONGTEXT(), "mysql", "mariadb")


def upgrade() -> None:
    """Create the table; those who upgrade at once wait for each other."""
    given = context.get_context().opts
    names, collation = given["tables"], given["collation"]
    charset = {"mysql_engine": "InnoDB", "mysql_charset": "utf8mb4", "mysql_collate": collation}
    maria = {key.replace("mysql", "mariadb"): value for key, value in charset.items()}
    options = {**charset, **maria} if collation else {}
    op.create_table(
        f"{names.prefix}change_log",
        sa.Column("change_id", CHANGE_ID, primary_key=True),
        sa.Column("at_us", sa.BigInteger, nullable=False),
        sa.Column("action", sa.String(40), nullable=False),
        sa.Column("run_id", ID),
        sa.Column("node_id", ID),
        sa.Column("reason", TEXT, nullable=False),
        sa.Column("detail", TEXT, nullable=False),
        sa.Column("actor", TEXT, nullable=False),
        sa.Column("host", TEXT, nullable=False),
        sa.Column("pid", sa.BigInteger, nullable=False),
        schema=names.metadata.schema,
        if_not_exists=True,
        **options,
    )
