"""Backends by name, and what naming them loads."""

import importlib.metadata
import subprocess
import sys

import pytest

from seeknal.errors import ConfigurationError, MissingDriverError, UnknownBackendError
from seeknal.state import registry
from seeknal.state.backend import StateBackendFactory, create_state_backend
from seeknal.state.memory import MemoryStateBackend


class Mine(MemoryStateBackend):
    """A backend of somebody else's."""


@pytest.fixture
def names():
    before = dict(StateBackendFactory._registered)
    yield
    StateBackendFactory._registered.clear()
    StateBackendFactory._registered.update(before)


def test_our_own_are_listed():
    assert {"memory", "file", "database", "sqlite"} <= set(StateBackendFactory.list_backends())


def test_an_unknown_name_names_the_known_and_the_nearest():
    with pytest.raises(UnknownBackendError) as caught:
        create_state_backend("memmory")
    assert (caught.value.name, set(caught.value.known)) == ("memmory", set(StateBackendFactory.list_backends()))
    assert "Did you mean memory?" in caught.value.hint
    assert "database" in caught.value.hint


def test_register(names):
    StateBackendFactory.register("mine", Mine)
    assert "mine" in StateBackendFactory.list_backends()
    assert type(create_state_backend("mine")) is Mine
    StateBackendFactory.register("memory", Mine)
    assert type(create_state_backend("memory", busy_timeout_ms=5)) is Mine


@pytest.mark.parametrize(("name", "kind"), [("x", object), ("x", "a.b:C"), ("x", Mine()), ("", Mine), (None, Mine)])
def test_register_refuses_what_is_no_backend(names, name, kind):
    with pytest.raises(ConfigurationError):
        StateBackendFactory.register(name, kind)


def test_an_unknown_option_is_an_error_of_configuration():
    with pytest.raises(ConfigurationError, match="colour"):
        create_state_backend("memory", colour="red")


def test_entry_points_of_installed_packages(monkeypatch):
    points = [
        importlib.metadata.EntryPoint("theirs", "seeknal.state.memory:MemoryStateBackend", registry.ENTRY_POINT_GROUP),
        importlib.metadata.EntryPoint("wrong", "pathlib:Path", registry.ENTRY_POINT_GROUP),
        importlib.metadata.EntryPoint("gone", "psycopg_not_there.x:Y", registry.ENTRY_POINT_GROUP),
        importlib.metadata.EntryPoint("memory", "pathlib:Path", registry.ENTRY_POINT_GROUP),
    ]
    monkeypatch.setattr(registry, "entry_points", lambda group: points)
    assert {"theirs", "wrong"} <= set(StateBackendFactory.list_backends())
    assert type(create_state_backend("theirs")) is MemoryStateBackend
    assert type(create_state_backend("memory")) is MemoryStateBackend
    with pytest.raises(ConfigurationError, match="does not name a StateBackend"):
        create_state_backend("wrong")
    with pytest.raises(MissingDriverError, match="psycopg_not_there"):
        create_state_backend("gone")


@pytest.mark.parametrize(("module", "extra"), registry.EXTRAS.items())
def test_a_missing_driver_names_the_extra(module, extra):
    error = registry.missing_driver("database", ModuleNotFoundError("no", name=f"{module}.sub"))
    assert f"seeknal-state[{extra}]" in error.hint
    assert module in str(error)


@pytest.mark.parametrize("package", ["seeknal", "seeknal.state", "seeknal.state.backend", "seeknal.state.memory"])
def test_importing_loads_no_driver(package):
    program = f"import sys, {package}; print(*sorted(name.partition('.')[0] for name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    heavy = {"sqlalchemy", "alembic", "duckdb", "psycopg", "pymysql", "httpx", "sqlite3", "pytest"}
    assert heavy & set(done.stdout.split()) == set()
