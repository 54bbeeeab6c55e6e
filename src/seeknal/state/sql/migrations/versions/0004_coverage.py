"""Add which run completed each part of the intervals, the partitions that are expected, and the numbers of claims.

Of what is there, all that is known is the run that an interval names. It may run again where MySQL has made a table and
a process was killed before the revision was written down. Never edited once released.
"""

from typing import Any

import sqlalchemy as sa
from alembic import context, op
from sqlalchemy.dialects import postgresql

revision = "0004"
down_revision = "0003"

ID = sa.String(190).with_variant(postgresql.VARCHAR(190, collation="C"), "postgresql")


def upgrade() -> None:
    """Create the tables; those who upgrade at once wait for each other."""
    _create(
        "interval_provenance",
        sa.Column("node_id", ID, primary_key=True),
        sa.Column("start_us", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("end_us", sa.BigInteger, nullable=False),
        sa.Column("run_id", ID, nullable=False),
    )
    _create(
        "expected_partitions",
        sa.Column("node_id", ID, primary_key=True),
        sa.Column("partition", ID, primary_key=True),
    )
    given = context.get_context().opts["tables"]
    claims, schema = f"{given.prefix}claims", given.metadata.schema
    is_there = False  # as who prints the statements for somebody else has to believe
    if not context.is_offline_mode():
        is_there = any(column["name"] == "sequence" for column in sa.inspect(op.get_bind()).get_columns(claims, schema))
    if not is_there:
        sequence = sa.Column("sequence", sa.BigInteger, nullable=False, server_default="0")
        op.add_column(claims, sequence, schema=schema)
    if context.is_offline_mode():  # else it is a part of the transaction that sets the version of the store
        spans = given.completed_intervals
        columns = [column.name for column in spans.c]
        op.execute(given.interval_provenance.insert().from_select(columns, sa.select(spans)))


def _create(name: str, *columns: Any) -> None:
    given = context.get_context().opts
    names, collation = given["tables"], given["collation"]
    charset = {"mysql_engine": "InnoDB", "mysql_charset": "utf8mb4", "mysql_collate": collation}
    maria = {key.replace("mysql", "mariadb"): value for key, value in charset.items()}
    options = {**charset, **maria} if collation else {}
    op.create_table(f"{names.prefix}{name}", *columns, schema=names.metadata.schema, if_not_exists=True, **options)
