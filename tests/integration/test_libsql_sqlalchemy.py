"""SQLAlchemy and Alembic on a remote libSQL database."""

from __future__ import annotations

import datetime as dt
import gc
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from decimal import Decimal

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column
from sqlalchemy.orm.exc import StaleDataError
from tests.servers.sqld import Sqld

from seeknal.state.sql.libsql import dbapi
from seeknal.state.sql.libsql.dialect import LibSqlDialect
from seeknal.state.sql.libsql.endpoint import endpoint


class Base(DeclarativeBase):
    pass


class Node(Base):
    __tablename__ = "node"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(sa.String(50), unique=True)
    version: Mapped[int] = mapped_column()
    __mapper_args__ = {"version_id_col": version}  # noqa: RUF012 - declarative


META = sa.MetaData()
PARENT = sa.Table(
    "parent",
    META,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("name", sa.String(50), nullable=False),
    sa.Column("at", sa.DateTime),
    sa.Column("document", sa.JSON),
    sa.Column("price", sa.Numeric(10, 2, asdecimal=False)),
    sa.Column("is_open", sa.Boolean),
    sa.Column("content", sa.LargeBinary),
    sa.UniqueConstraint("name", name="uq_parent_name"),
    sa.CheckConstraint("length(name) > 0", name="ck_parent_name"),
)
CHILD = sa.Table(
    "child",
    META,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("parent_id", sa.ForeignKey("parent.id", ondelete="CASCADE"), nullable=False),
    sa.Index("ix_child_parent_id", "parent_id"),
)


@pytest.fixture
def make_engine(private_sqld: Sqld) -> Iterator[Callable[..., sa.Engine]]:
    with closing(dbapi.connect(endpoint(private_sqld.url))) as connection:
        connection.run("PRAGMA foreign_keys = OFF")
        others = "SELECT type, name FROM sqlite_schema WHERE type IN ('table', 'view') AND name NOT LIKE 'sqlite%'"
        for kind, name in connection.run(others).rows:
            connection.run(f'DROP {kind} "{name}"')
    made: list[sa.Engine] = []

    def get(url: str = private_sqld.url, **options: object) -> sa.Engine:
        made.append(
            sa.create_engine("sqlite+seeknal_libsql://", creator=lambda: dbapi.connect(endpoint(url)), **options)
        )
        return made[-1]

    yield get
    for each in made:
        each.dispose()


@pytest.fixture
def engine(make_engine) -> sa.Engine:
    engine = make_engine()
    META.create_all(engine)
    return engine


def names(engine: sa.Engine) -> list[str]:
    with engine.connect() as connection:
        return list(connection.scalars(sa.select(PARENT.c.name).order_by(PARENT.c.name)))


def add(connection: sa.Connection, *each: str) -> None:
    connection.execute(sa.insert(PARENT), [{"name": name} for name in each])


def test_an_engine_is_that_of_sqlite_with_a_pool_of_its_own(make_engine) -> None:
    engine = make_engine()
    assert isinstance(engine.dialect, LibSqlDialect)
    assert (engine.dialect.name, engine.dialect.driver) == ("sqlite", "seeknal_libsql")
    assert isinstance(engine.pool, sa.QueuePool)
    with engine.connect() as connection:
        assert connection.get_isolation_level() == connection.default_isolation_level == "SERIALIZABLE"
    assert engine.dialect.server_version_info >= (3, 45)


def test_a_schema_is_made_and_reflected(engine: sa.Engine) -> None:
    META.create_all(engine)
    inspector = sa.inspect(engine)
    assert set(inspector.get_table_names()) == {"parent", "child"}
    assert [column["name"] for column in inspector.get_columns("parent")] == [column.name for column in PARENT.c]
    assert inspector.get_unique_constraints("parent")[0]["name"] == "uq_parent_name"
    assert inspector.get_check_constraints("parent")[0]["name"] == "ck_parent_name"
    assert inspector.get_indexes("child")[0]["name"] == "ix_child_parent_id"
    assert inspector.get_foreign_keys("child")[0]["referred_table"] == "parent"
    assert set(sa.Table("parent", sa.MetaData(), autoload_with=engine).c.keys()) == set(PARENT.c.keys())
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), META) == []
    META.drop_all(engine)
    assert sa.inspect(engine).get_table_names() == []


def test_the_types_of_python_come_back(engine: sa.Engine) -> None:
    row = {
        "id": 2**53 + 1,
        "name": "é\0\U0001f600",
        "at": dt.datetime(2024, 1, 10, 12, 30, 0, 123456),
        "document": {"a": [1, 2.5, None, "x"]},
        "price": 12.25,
        "is_open": True,
        "content": b"\0\xff",
    }
    with engine.begin() as connection:
        connection.execute(sa.insert(PARENT), row)
        assert dict(connection.execute(sa.select(PARENT)).one()._mapping) == row
        assert connection.scalar(sa.select(sa.cast("1.50", sa.Numeric(10, 2)))) == Decimal("1.50")


def test_a_block_commits_or_rolls_back(engine: sa.Engine) -> None:
    with engine.begin() as connection:
        add(connection, "kept")
    with pytest.raises(ZeroDivisionError), engine.begin() as connection:
        add(connection, "dropped")
        raise ZeroDivisionError
    with engine.connect() as connection:
        add(connection, "forgotten")
    assert names(engine) == ["kept"]


def test_savepoints_roll_back_a_part(engine: sa.Engine) -> None:
    with engine.begin() as connection:
        add(connection, "a")
        nested = connection.begin_nested()
        add(connection, "b")
        nested.rollback()
        with connection.begin_nested():
            add(connection, "c")
    assert names(engine) == ["a", "c"]


def test_rowcounts_serve_compare_and_set(engine: sa.Engine) -> None:
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        add(connection, "a")
        update = sa.update(PARENT).where(PARENT.c.name == sa.bindparam("old")).values(name=sa.bindparam("new"))
        counts = [
            connection.execute(update, {"old": old, "new": new}).rowcount
            for old, new in (("a", "b"), ("a", "c"), ("b", "d"))
        ]
    assert counts == [1, 0, 1]


def test_upserts_and_returning_work(engine: sa.Engine) -> None:
    with engine.begin() as connection:
        statement = insert(PARENT).values(id=1, name="a", price=1)
        upsert = statement.on_conflict_do_update(index_elements=["id"], set_={"price": PARENT.c.price + 1})
        prices = [connection.execute(upsert.returning(PARENT.c.price)).scalar_one() for _ in range(3)]
        assert prices == [1, 2, 3]
        assert connection.execute(statement.on_conflict_do_nothing()).rowcount == 0
        assert connection.execute(sa.insert(PARENT).values(name="b")).inserted_primary_key == (2,)
        assert connection.execute(sa.delete(PARENT).returning(PARENT.c.id)).all() == [(1,), (2,)]


def test_many_rows_are_inserted_with_and_without_their_ids(engine: sa.Engine) -> None:
    rows = [{"name": f"n{number}"} for number in range(1200)]
    with engine.begin() as connection:
        ids = connection.scalars(sa.insert(PARENT).returning(PARENT.c.id, sort_by_parameter_order=True), rows).all()
        assert ids == list(range(1, 1201))
        assert connection.execute(sa.delete(PARENT)).rowcount == 1200
        assert connection.execute(sa.insert(PARENT), rows).rowcount == 1200


def test_errors_are_those_of_sqlalchemy(engine: sa.Engine) -> None:
    with engine.connect() as connection:
        with pytest.raises(sa.exc.IntegrityError) as caught:
            connection.execute(sa.insert(PARENT), [{"name": ""}])
        assert isinstance(caught.value.orig, dbapi.IntegrityError)
        assert not caught.value.connection_invalidated
        connection.rollback()
        with pytest.raises(sa.exc.ProgrammingError):
            connection.execute(sa.text("SELECT * FROM absent"))
    assert names(engine) == []


def test_an_error_that_is_swallowed_leaves_no_stray_write(engine: sa.Engine) -> None:
    with pytest.raises(sa.exc.OperationalError), engine.begin() as connection:
        add(connection, "a")
        with pytest.raises(sa.exc.IntegrityError):
            add(connection, "a")
        add(connection, "stray")
    assert names(engine) == []


def test_the_orm_finds_stale_versions(make_engine) -> None:
    engine = make_engine()
    Base.metadata.create_all(engine)
    with Session(engine) as session:
        session.add_all([Node(name="a"), Node(name="b")])
        session.commit()
    with Session(engine, expire_on_commit=False) as mine:
        node = mine.scalars(sa.select(Node).where(Node.name == "a")).one()
        mine.commit()
        with Session(engine) as theirs:
            theirs.scalars(sa.select(Node).where(Node.name == "a")).one().name = "theirs"
            theirs.commit()
        node.name = "mine"
        with pytest.raises(StaleDataError):
            mine.commit()


def test_autocommit_costs_one_request_and_a_transaction_two(make_engine, private_sqld, through_proxy) -> None:
    url, proxy = through_proxy(private_sqld.url)
    engine = make_engine(url)
    with engine.connect() as connection:
        connection.execute(sa.text("SELECT 1"))
    with proxy.counting() as count, engine.connect() as connection:
        connection.execute(sa.text("SELECT 1"))
    assert (count.round_trips, count.connections) == (2, 0)
    autocommit = engine.execution_options(isolation_level="AUTOCOMMIT")
    with proxy.counting() as count, autocommit.connect() as connection:
        connection.execute(sa.text("SELECT 1"))
    assert (count.round_trips, count.connections) == (1, 0)
    with engine.connect() as connection:
        assert connection.get_isolation_level() == "SERIALIZABLE"


def test_a_pool_survives_its_server(engine: sa.Engine, private_sqld: Sqld) -> None:
    with engine.begin() as connection:
        add(connection, "a")
    private_sqld.kill()
    private_sqld.start()
    assert names(engine) == ["a"]
    with pytest.raises(sa.exc.OperationalError), engine.begin() as connection:
        add(connection, "b")
        private_sqld.kill()
        private_sqld.start()
        add(connection, "c")
    assert names(engine) == ["a"]


def test_a_connection_that_is_forgotten_is_rolled_back(engine: sa.Engine) -> None:
    def forget() -> None:
        connection = engine.connect()
        add(connection, "forgotten")

    forget()
    gc.collect()
    begun = time.monotonic()
    with engine.begin() as connection:
        add(connection, "a")
    assert time.monotonic() - begun < 3
    assert names(engine) == ["a"]


# ---- Alembic ----


@pytest.mark.parametrize("foreign_keys", ["OFF", "ON"])
def test_migrations_make_and_change_tables(engine: sa.Engine, foreign_keys: str) -> None:
    with engine.connect() as connection:
        connection.connection.run(f"PRAGMA foreign_keys = {foreign_keys}")
        with connection.begin():
            operations = Operations(MigrationContext.configure(connection))
            add(connection, "a")
            connection.execute(sa.insert(CHILD), {"parent_id": 1})
            operations.create_table("made", sa.Column("id", sa.Integer, primary_key=True), sa.Column("x", sa.Text))
            operations.create_index("ix_made_x", "made", ["x"], unique=True)
            operations.add_column("made", sa.Column("y", sa.Integer, server_default="7"))
            operations.execute("INSERT INTO made (x) VALUES ('kept')")
            with operations.batch_alter_table("made") as batch:
                batch.alter_column("x", new_column_name="z", nullable=False)
                batch.drop_column("y")
                batch.create_check_constraint("ck_made_z", "length(z) < 10")
            with operations.batch_alter_table("parent", recreate="always") as batch:
                batch.alter_column("name", type_=sa.Text())
    inspector = sa.inspect(engine)
    assert [column["name"] for column in inspector.get_columns("made")] == ["id", "z"]
    assert [index["name"] for index in inspector.get_indexes("made")] == ["ix_made_x"]
    with engine.connect() as connection:
        assert connection.scalar(sa.text("SELECT z FROM made")) == "kept"
        # With foreign keys on, to drop the old table deletes what refers to its rows, as SQLite does anywhere.
        children = connection.scalar(sa.select(sa.func.count()).select_from(CHILD))
        assert children == (1 if foreign_keys == "OFF" else 0)
    with engine.begin() as connection:
        operations = Operations(MigrationContext.configure(connection))
        operations.drop_index("ix_made_x", "made")
        operations.drop_table("made")
    assert names(engine) == ["a"]
