"""Make the tables of the first release. Never edited once released, and so without a look at `tables`."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Create everything."""
    op.create_table(
        "store",
        sa.Column("one", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("store_id", sa.String(36), nullable=False),
        sa.Column("schema_version", sa.Integer, nullable=False),
        sa.Column("superseded_by", sa.Text),
    )
    op.create_table(
        "runs",
        sa.Column("run_id", sa.String(190), primary_key=True),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("started_us", sa.BigInteger),
        sa.Column("finished_us", sa.BigInteger),
        sa.Column("config", sa.Text, nullable=False),
        sa.Column("metadata", sa.Text, nullable=False),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.Column("sequence", sa.BigInteger, nullable=False),
    )
    op.create_index("runs_by_sequence", "runs", ["sequence"])
    op.create_index("runs_by_finish", "runs", ["finished_us"])
    op.create_table(
        "node_states",
        sa.Column("run_id", sa.String(190), sa.ForeignKey("runs.run_id"), primary_key=True),
        sa.Column("node_id", sa.String(190), primary_key=True),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("started_us", sa.BigInteger),
        sa.Column("finished_us", sa.BigInteger),
        sa.Column("duration_ms", sa.BigInteger),
        sa.Column("row_count", sa.BigInteger),
        sa.Column("fingerprint", sa.Text),
        sa.Column("error_message", sa.Text),
        sa.Column("attempt", sa.BigInteger, nullable=False),
        sa.Column("metadata", sa.Text, nullable=False),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.Column("sequence", sa.BigInteger, nullable=False),
    )
    op.create_index("node_states_by_status", "node_states", ["node_id", "status", "sequence"])
    op.create_table(
        "completed_intervals",
        sa.Column("node_id", sa.String(190), primary_key=True),
        sa.Column("start_us", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("end_us", sa.BigInteger, nullable=False),
        sa.Column("run_id", sa.String(190), nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "partitions",
        sa.Column("node_id", sa.String(190), primary_key=True),
        sa.Column("partition", sa.String(190), primary_key=True),
        sa.Column("run_id", sa.String(190), nullable=False),
        sa.Column("completed_us", sa.BigInteger, nullable=False),
        sa.Column("row_count", sa.BigInteger),
        sa.Column("metadata", sa.Text, nullable=False),
    )
    op.create_table(
        "locks",
        sa.Column("run_id", sa.String(190), primary_key=True),
        sa.Column("node_id", sa.String(190), primary_key=True),
        sa.Column("token", sa.BigInteger, nullable=False),
        sa.Column("owner", sa.String(64), nullable=False),
        sa.Column("host", sa.Text, nullable=False),
        sa.Column("pid", sa.BigInteger, nullable=False),
        sa.Column("acquired_us", sa.BigInteger, nullable=False),
        sa.Column("expires_at_us", sa.BigInteger, nullable=False),
        sa.Column("ttl_ms", sa.BigInteger, nullable=False),
        sa.Column("expires_us", sa.BigInteger, nullable=False),
        sa.Column("is_free", sa.Integer, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
    )
