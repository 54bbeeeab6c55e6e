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


DRIVERS = {
    "sqlalchemy",
    "alembic",
    "psycopg",
    "pymysql",
    "httpx",
    "sqlite3",
    "duckdb",
    "sqlglot",
    "dask",
    "distributed",
}
IMPORTED = [
    "seeknal",
    "seeknal.state",
    "seeknal.state.backend",
    "seeknal.state.memory",
    "seeknal.tracking",
    "seeknal.pipeline",
    "seeknal.cli.app",
]


def loaded_by(program: str, *arguments: str) -> set[str]:
    """Return the packages that a program has loaded at its end."""
    telling = "import atexit, sys; atexit.register(lambda: print(*sys.modules, file=sys.stderr)); "
    command = [sys.executable, "-c", telling + program, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return {name.partition(".")[0] for name in done.stderr.split()}


@pytest.mark.parametrize("package", IMPORTED)
def test_importing_loads_no_driver(package):
    loaded = loaded_by(f"import {package}")
    assert "seeknal" in loaded
    assert loaded & (DRIVERS | {"pytest", "rich", "zstandard"}) == set()


@pytest.mark.parametrize("arguments", [["--version"], ["state", "--help"], ["state", "list"]], ids=" ".join)
def test_the_command_loads_no_driver_that_it_has_no_use_for(arguments, tmp_path, monkeypatch):
    for name in ("SEEKNAL_STATE_BACKEND", "SEEKNAL_DATABASE_URL", "TURSO_DATABASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "seeknal_project.yml").write_text("name: small\nversion: 1.0.0\n")
    loaded = loaded_by("from seeknal.cli.app import main; sys.exit(main())", *arguments)
    assert "seeknal" in loaded
    assert loaded & DRIVERS == set()
