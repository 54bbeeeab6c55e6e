"""How a store is made on a server: by many at once, beside others, after a kill, or by somebody else's hand."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from sqlalchemy import Inspector, Integer, String, Table, inspect
from tests.conftest import KINDS, available
from tests.processes import PROCESSES
from tests.servers.stores import SERVERS, Server, ServerStore, fresh_store, new_schema

from seeknal.errors import CorruptStateError, SchemaVersionError
from seeknal.state.backend import create_state_backend
from seeknal.state.sql.backend import DatabaseStateBackend
from seeknal.state.sql.schema import used_tables

IDS = {"run_id", "node_id", "partition"}
BYTEWISE = {"postgresql": {"C"}, "mysql": {"utf8mb4_nopad_bin", "utf8mb4_0900_bin"}}


def opened(options: dict[str, object]) -> DatabaseStateBackend:
    backend = create_state_backend("database", **options)
    assert isinstance(backend, DatabaseStateBackend)
    backend.initialize()
    return backend


def work_once(options: dict[str, object], run_id: str = "run") -> None:
    """Use every table of a store."""
    with opened(options) as backend:
        backend.create_run(run_id)
        backend.set_node_state(run_id, "node", status="success")
        backend.add_completed_interval(run_id, "node", backend.clock.now().replace(year=2020), backend.clock.now())
        backend.add_completed_partition(run_id, "node", "part")
        assert backend.acquire_lock(run_id)
        assert backend.release_lock(run_id)
        assert backend.get_latest_node_state("node").run_id == run_id
        assert len(backend.get_completed_intervals("node")) == len(backend.list_partitions("node")) == 1


def statements_of(sql: str) -> list[str]:
    """Return the statements of a printed schema, without those that begin and end the transaction."""
    return [each.strip() for each in sql.split(";") if each.strip() not in ("", "BEGIN", "COMMIT")]


def printed(store: ServerStore) -> str:
    with create_state_backend("database", **store.options) as backend:
        return backend.schema_sql()


@contextmanager
def database_of_its_own(server: Server):
    """Give a database for a store without a schema, which the tests of a shared one would get in the way of."""
    name = new_schema()
    server.run(f"CREATE DATABASE {name}" + (" CHARACTER SET latin1" if server.kind == "mysql" else ""))
    try:
        yield type(server)(urlsplit(server.url)._replace(path=f"/{name}").geturl())
    finally:
        server.run(f"DROP DATABASE {name}" + (" WITH (FORCE)" if server.kind == "postgresql" else ""))


@pytest.fixture(params=KINDS)
def own_database(request, shared_server, places):
    """Return a server with a database in which there is nothing."""
    if request.param == "libsql":
        return SERVERS["libsql"](request.getfixturevalue("start_sqld")().url)
    return places.enter_context(database_of_its_own(available(request, lambda: shared_server(request.param))))


# ---- many at once ----


def initialize_and_tell(options: dict[str, object], told: Path) -> None:
    with opened(options) as backend:
        told.write_text(backend.read_store().store_id)


def test_eight_processes_make_one_store(server_store, tmp_path: Path) -> None:
    told = [tmp_path / str(number) for number in range(8)]
    workers = [PROCESSES.Process(target=initialize_and_tell, args=(server_store.options, path)) for path in told]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(50)
        assert worker.exitcode == 0, "a worker raised, or hangs"
    assert len({path.read_text() for path in told}) == 1
    work_once(server_store.options)


# ---- beside others ----


def test_stores_of_one_database_never_see_each_other(server_store) -> None:
    longer = ServerStore(server_store.server, f"{server_store.schema}_x")  # begins as the other does
    try:
        with opened(server_store.options) as ours, opened(longer.options) as theirs:
            ours.create_run("run")
            ours.set_node_state("run", "node", status="success")
            assert ours.acquire_lock("run")
            assert theirs.list_runs() == []
            assert theirs.list_locks() == []
            assert theirs.get_latest_node_state("node") is None
            assert ours.read_store().store_id != theirs.read_store().store_id
            assert theirs.acquire_lock("run")
            theirs.create_run("run")
            theirs.delete_run("run")
            assert ours.list_nodes("run") == ["node"]
            ours.write_successor(ours.read_store().store_id, "elsewhere")
            theirs.create_run("goes on")
    finally:
        longer.server.drop(longer.schema)


def test_a_store_stands_beside_tables_of_others(own_database) -> None:
    own_database.run("CREATE TABLE orders (id INTEGER)", "INSERT INTO orders VALUES (1)")
    work_once({"url": own_database.url})
    assert own_database.run("SELECT id FROM orders") == [(1,)]


@pytest.mark.parametrize("name", ["runs", "store", "locks"])
def test_a_table_of_somebody_else_under_one_of_our_names_is_left_alone(own_database, name: str) -> None:
    own_database.run(f"CREATE TABLE {name} (id INTEGER)", f"INSERT INTO {name} VALUES (1)")
    with create_state_backend("database", url=own_database.url) as backend:
        with pytest.raises(CorruptStateError, match=name) as caught:
            backend.initialize()
        assert "schema" in (caught.value.hint or "")
    assert own_database.run(f"SELECT id FROM {name}") == [(1,)]
    work_once({"url": own_database.url, "schema": "mine"})


# ---- what cannot be used ----


def test_a_store_of_a_newer_program_is_refused(server_store) -> None:
    opened(server_store.options).close()
    server_store.run(f"UPDATE {server_store.table('store')} SET schema_version = 99")
    backend = create_state_backend("database", **server_store.options)
    with backend, pytest.raises(SchemaVersionError, match="newer") as caught:
        backend.initialize()
    assert caught.value.found == "99"


def test_a_store_that_lost_its_row_is_not_taken_for_a_new_one(server_store) -> None:
    work_once(server_store.options)
    server_store.run(f"DELETE FROM {server_store.table('store')}")
    backend = create_state_backend("database", **server_store.options)
    with backend, pytest.raises(CorruptStateError, match="lost the row"):
        backend.initialize()
    assert server_store.run(f"SELECT run_id FROM {server_store.table('runs')}") == [("run",)]


# ---- by hand, and by halves ----


def test_what_is_printed_makes_a_store_that_is_used_as_it_is(server_store) -> None:
    server_store.run(*statements_of(printed(server_store)))
    store_id = server_store.run(f"SELECT store_id FROM {server_store.table('store')}")
    work_once(server_store.options)
    assert server_store.run(f"SELECT store_id FROM {server_store.table('store')}") == store_id


def test_a_store_whose_making_was_cut_short_anywhere_is_finished(mysql_store) -> None:
    """Each change of a table commits by itself there, so a kill leaves what came before it."""
    work_once(mysql_store.options)
    whole = {name.removeprefix(mysql_store.schema) for name in mysql_store.tables()}
    indexes = indexes_of(mysql_store)
    statements = statements_of(printed(mysql_store))
    for done in range(1, len(statements)):
        with fresh_store(mysql_store.server) as half:
            mysql_store.run(*(each.replace(mysql_store.schema, half.schema) for each in statements[:done]))
            work_once(half.options)
            assert {name.removeprefix(half.schema) for name in half.tables()} == whole
            assert indexes_of(half) == indexes


# ---- what stands there ----


def indexes_of(store: ServerStore) -> list[tuple[str, ...]]:
    rows = store.run(
        "SELECT table_name, index_name, column_name, seq_in_index FROM information_schema.statistics "
        f"WHERE table_schema = DATABASE() AND table_name LIKE '{store.schema}%'"
    )
    return sorted(tuple(str(value).replace(store.schema, "") for value in row) for row in rows)


def test_the_tables_are_those_that_the_statements_are_made_for(server_store) -> None:
    """`tables` says what statements are built from, the revisions say what is made: they must be the same."""
    with opened(server_store.options) as backend:
        wanted = used_tables(backend._database.target)
        backend._database.change_schema(lambda connection: compare(inspect(connection), wanted))


def compare(found: Inspector, wanted: list[Table]) -> None:
    for table in wanted:
        place = {"table_name": table.name, "schema": table.schema}
        columns = {each["name"]: each for each in found.get_columns(**place)}
        assert list(columns) == [column.name for column in table.c], table.name
        for column in table.c:
            there = columns[column.name]
            assert there["nullable"] is column.nullable, f"{table.name}.{column.name}"
            assert kind_of(there["type"]) == kind_of(column.type), f"{table.name}.{column.name}"
        assert found.get_pk_constraint(**place)["constrained_columns"] == [each.name for each in table.primary_key]
        keys = {tuple(each["constrained_columns"]) for each in found.get_foreign_keys(**place)}
        assert keys == {(each.parent.name,) for each in table.foreign_keys}
        indexes = {each["name"]: each["column_names"] for each in found.get_indexes(**place)}
        for index in table.indexes:
            assert indexes[index.name] == [each.name for each in index.columns]


def kind_of(column_type) -> tuple[type, int | None]:
    """Return the kind and the length of a column; what each database calls it does not matter."""
    return (Integer, None) if isinstance(column_type, Integer) else (String, column_type.length)


@pytest.mark.parametrize("kind", BYTEWISE)
def test_ids_are_compared_byte_by_byte_whatever_the_database_does(kind: str, request, shared_server) -> None:
    server = available(request, lambda: shared_server(kind))
    with database_of_its_own(server) as own:
        work_once({"url": own.url})
        rows = own.run(
            "SELECT table_name, column_name, collation_name FROM information_schema.columns "
            f"WHERE table_schema = {'DATABASE()' if kind == 'mysql' else 'current_schema()'}"
        )
    collations = {collation for _, column, collation in rows if column in IDS}
    assert collations <= BYTEWISE[kind]
    assert len(collations) == 1
