"""Users who may not do everything: what is missing is named, and what they may do works."""

from __future__ import annotations

from contextlib import contextmanager
from urllib.parse import urlsplit

import pytest
from tests.servers.stores import ServerStore
from tests.servers.stores import new_schema as new_user

from seeknal.errors import AccessDeniedError
from seeknal.state.backend import create_state_backend
from seeknal.state.backup.making import back_up
from seeknal.state.backup.restoring import restore

RIGHTS = ("SELECT", "INSERT", "UPDATE", "DELETE")


class Guest:
    """A user of a server, who at first may do nothing but log in."""

    def __init__(self, store: ServerStore) -> None:
        self.store = store
        self.name = new_user()
        parts = urlsplit(store.url)
        host = f"{parts.hostname}:{parts.port}" if parts.port else parts.hostname
        self.url = parts._replace(netloc=f"{self.name}@{host}").geturl()

    @property
    def options(self) -> dict[str, str]:
        return self.store.options_at(self.url)

    def may(self, right: str, table: str) -> None:
        self.store.run(f"GRANT {right} ON {self.store.table(table)} TO {self.who}")

    def may_not(self, right: str, table: str) -> None:
        self.store.run(f"REVOKE {right} ON {self.store.table(table)} FROM {self.who}")

    def may_use_the_tables(self, *rights: str) -> None:
        """Grant rights on all tables that a store uses."""
        for table in self.store.tables():
            if not table.endswith("alembic_version"):
                self.store.run(f"GRANT {', '.join(rights)} ON {table} TO {self.who}")

    def may_see_the_place(self) -> None:
        raise NotImplementedError

    def may_number(self) -> None:
        """Grant what numbers receipts, where that is an object of its own."""


class PostgresGuest(Guest):
    def __init__(self, store: ServerStore) -> None:
        super().__init__(store)
        self.who = self.name
        store.run(f"CREATE ROLE {self.name} LOGIN")

    def leave(self) -> None:
        self.store.run(f"DROP OWNED BY {self.name}", f"DROP ROLE {self.name}")

    def may_see_the_place(self) -> None:
        self.store.run(f"CREATE SCHEMA IF NOT EXISTS {self.store.schema}")
        self.store.run(f"GRANT USAGE ON SCHEMA {self.store.schema} TO {self.name}")

    def may_number(self) -> None:
        self.store.run(f"GRANT USAGE ON SEQUENCE {self.store.table('receipts_number_seq')} TO {self.name}")


class MysqlGuest(Guest):
    def __init__(self, store: ServerStore) -> None:
        super().__init__(store)
        self.who = f"'{self.name}'@'%'"
        store.run(f"CREATE USER {self.who}")

    def leave(self) -> None:
        self.store.run(f"DROP USER {self.who}")

    def may_see_the_place(self) -> None:
        """Let them into the database, which takes a right on anything there."""
        table = f"{self.store.schema}_orders"
        self.store.run(f"CREATE TABLE {table} (id INTEGER)", f"GRANT SELECT ON {table} TO {self.who}")


@contextmanager
def guest_of(store: ServerStore):
    guest = {"postgresql": PostgresGuest, "mysql": MysqlGuest}[store.kind](store)
    try:
        yield guest
    finally:
        guest.leave()


@pytest.fixture(params=["postgresql", "mysql"])
def store(request, shared_store):
    return shared_store(request.param)


@pytest.fixture
def guest(store, places):
    return places.enter_context(guest_of(store))


@pytest.fixture
def made(store):
    """Return a store that an admin has made, by the printed SQL, and put a run into."""
    with create_state_backend("database", **store.options) as backend:
        statements = [each.strip() for each in backend.schema_sql().split(";")]
        store.run(*(each for each in statements if each not in ("", "BEGIN", "COMMIT")))
        backend.initialize()
        backend.create_run("run")
    return store


def refusal_of(guest: Guest) -> AccessDeniedError:
    with create_state_backend("database", **guest.options) as backend:
        with pytest.raises(AccessDeniedError) as caught:
            backend.initialize()
        return caught.value


def test_a_user_without_any_right_is_told_who_can_help(guest) -> None:
    assert refusal_of(guest).hint
    assert guest.store.tables() == []


def test_a_user_who_may_make_no_table_is_told_of_the_sql_for_somebody_who_may(guest) -> None:
    guest.may_see_the_place()
    error = refusal_of(guest)
    assert "no store yet" in str(error)
    assert "seeknal state schema --sql" in (error.hint or "")


def test_a_user_of_the_tables_alone_can_do_everything_in_a_store_that_was_made(made, guest) -> None:
    guest.may_see_the_place()
    guest.may_use_the_tables(*RIGHTS)
    guest.may_number()
    with create_state_backend("database", **guest.options) as backend:
        backend.initialize()
        backend.create_run("mine")
        with backend.lock("mine", "node") as lease, backend.transaction(lease=lease):
            backend.set_node_state("mine", "node", status="success")
            backend.add_completed_interval("mine", "node", backend.clock.now().replace(year=2020), backend.clock.now())
            backend.add_completed_partition("mine", "node", "part")
        for number in range(300):  # and to put away what is left behind on the way
            backend.set_node_state("mine", "node", row_count=number)
        backend.restate_partition("node", "part")
        assert backend.delete_run("mine")
        assert backend.schema_report().missing_rights == []


def test_a_user_of_the_tables_alone_can_back_up_and_is_told_why_not_restore(made, guest, tmp_path) -> None:
    guest.may_see_the_place()
    guest.may_use_the_tables(*RIGHTS)
    guest.may_number()
    with create_state_backend("database", **guest.options) as backend:
        backend.initialize()
        backup = back_up(backend, tmp_path, kind="database")
        backend.create_run("mine")
        with pytest.raises(AccessDeniedError, match="tables that new content is put into") as caught:
            restore(backend, backup, kind="database")
        assert "who may make tables" in (caught.value.hint or "")
        assert backend.list_runs() == ["run", "mine"]
        assert backend.list_locks() == []


@pytest.mark.parametrize("table", ["runs", "node_states", "locks", "receipts", "worked_nodes", "store"])
@pytest.mark.parametrize("right", RIGHTS)
def test_a_single_right_that_is_missing_is_named(made, guest, right: str, table: str) -> None:
    guest.may_see_the_place()
    guest.may_use_the_tables(*RIGHTS)
    guest.may_number()
    guest.may_not(right, table)
    error = refusal_of(guest)
    assert f"{right} on {made.table(table)}" in str(error)
    assert error.hint


def test_a_right_on_the_numbers_that_is_missing_is_named(postgres_store, places) -> None:
    guest = places.enter_context(guest_of(postgres_store))
    with create_state_backend("database", **postgres_store.options) as backend:
        backend.initialize()
    guest.may_see_the_place()
    guest.may_use_the_tables(*RIGHTS)
    assert "USAGE on sequence" in str(refusal_of(guest))


def test_a_user_who_may_read_alone_reads_and_is_refused_to_write(made, guest) -> None:
    guest.may_see_the_place()
    guest.may_use_the_tables("SELECT")
    with create_state_backend("database", **guest.options) as backend:
        backend.initialize()
        assert backend.list_runs() == ["run"]
        assert backend.list_locks() == []
        with pytest.raises(AccessDeniedError):
            backend.create_run("mine")
        with pytest.raises(AccessDeniedError):
            backend.acquire_lock("run")
        assert backend.list_runs() == ["run"]
