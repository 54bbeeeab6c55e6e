"""Which database a URL names, and what is said when it names none."""

from __future__ import annotations

import subprocess
import sys

import pytest

from seeknal.errors import ConfigurationError, InvalidStateUrlError, SeeknalError
from seeknal.state.sql.address import address_of, table_names

SECRET = "s3kret"


@pytest.mark.parametrize(
    ("url", "kind", "location"),
    [
        ("sqlite:////tmp/x.db", "sqlite", "/tmp/x.db"),
        ("postgresql://me@h/d", "postgresql", "postgresql://me@h/d"),
        ("postgres://me@h:6432/d?sslmode=require", "postgresql", "postgresql://me@h:6432/d?sslmode=require"),
        ("POSTGRESQL+psycopg://h/d", "postgresql", "postgresql://h/d"),
        ("postgresql://a:1,b:2/d?target_session_attrs=read-write", "postgresql", "postgresql://a:1,b:2/d"),
        ("mysql://me@h/d", "mysql", "mysql://me@h/d"),
        ("mariadb://h:3307/d?charset=utf8mb4", "mysql", "mysql://h:3307/d?charset=utf8mb4"),
        ("mysql+pymysql://h/d?ssl_mode=VERIFY_CA&ssl_ca=/ca.pem", "mysql", "mysql://h/d"),
        ("libsql://h", "libsql", "https://h"),
        ("http://127.0.0.1:8080", "libsql", "http://127.0.0.1:8080"),
    ],
)
def test_the_scheme_says_what_it_is(url, kind, location):
    found = address_of(None, url)
    assert (found.kind, found.location.partition("?")[0]) == (kind, location.partition("?")[0])


def test_the_parts_of_a_mysql_url_are_decoded():
    found = address_of(None, f"mysql://me%40here:{SECRET}%2F@h/my%20db?ssl_mode=required&unix_socket=/s")
    assert found.options == {
        "host": "h",
        "port": 3306,
        "user": "me@here",
        "password": f"{SECRET}/",
        "database": "my db",
        "ssl_mode": "required",
        "unix_socket": "/s",
    }
    assert SECRET not in repr(found) + found.location


@pytest.mark.parametrize(
    ("url", "message"),
    [
        (f"postgresql://me:{SECRET}@h", "names no database"),
        (f"postgresql://me:{SECRET}@[h/d", "cannot be read"),
        (f"postgresql://me:{SECRET}/x@h/d", "cannot be read"),
        (f"postgresql://me:x@{SECRET}@h/d", "cannot be read"),
        (f"mysql://me:x#{SECRET}@h/d", "cannot be read"),
        (f"mysql://me:{SECRET}@h/", "names no database"),
        (f"mysql://me:{SECRET}@h:x/d", "cannot be read"),
        (f"mysql://me:{SECRET}@h/d?charset=latin1", "'charset'"),
        (f"mysql://me:{SECRET}@h/d?ssl_mode=maybe", "'ssl_mode'"),
        (f"mysql://me:{SECRET}@h/d?passwd={SECRET}", "'passwd'"),
        (f"oracle://me:{SECRET}@h/d", "names no database that can hold a state"),
        (f"me:{SECRET}@h/d", "is not a state URL"),
        ("host:8080", "is not a state URL"),
        (f"libsql://{SECRET}@h?tls=2", "tls"),
        ("sqlite://x.db", "names no file"),
        ("sqlite:///x.db?mode=ro", "parameters"),
        ("sqlite:///:memory:", "memory"),
    ],
)
def test_what_cannot_be_used_is_named_without_its_secret(url, message):
    with pytest.raises(ConfigurationError, match=message) as caught:
        address_of(None, url)
    assert SECRET not in str(caught.value) + caught.value.hint
    assert caught.value.hint


def test_a_path_and_a_url_contradict_each_other():
    with pytest.raises(ConfigurationError, match="together"):
        address_of("a.db", "sqlite:///b.db")


def test_a_schema_is_one_or_a_prefix():
    assert table_names(None, has_schemas=True) == (None, "")
    assert table_names("orders", has_schemas=True) == ("orders", "")
    assert table_names("orders", has_schemas=False) == (None, "orders_")


@pytest.mark.parametrize("name", ["", "Orders", "1st", "a-b", "a b", 'a"; DROP TABLE runs; --', "x" * 32, 7, "public."])
def test_a_schema_that_is_no_name_is_refused(name):
    with pytest.raises(ConfigurationError, match="schema"):
        table_names(name, has_schemas=True)


@pytest.mark.parametrize(
    ("url", "module", "extra"),
    [
        ("postgresql://h/d", "psycopg", "postgres"),
        ("mysql://h/d", "pymysql", "mysql"),
        ("libsql://h", "httpx", "turso"),
    ],
)
def test_a_missing_driver_names_the_extra(url, module, extra):
    program = f"""
import sys
sys.modules[{module!r}] = None
from seeknal.errors import MissingDriverError
from seeknal.state.backend import create_state_backend
create_state_backend("database", db_path="unused.db")
try:
    create_state_backend("database", url={url!r})
except MissingDriverError as error:
    assert {module!r} in str(error), error
    assert "seeknal-state[{extra}]" in error.hint, error.hint
else:
    raise SystemExit("it was created")
"""
    assert subprocess.run([sys.executable, "-c", program], check=False, timeout=50).returncode == 0


def test_a_store_in_sqlite_loads_no_driver_of_a_server():
    program = """
import sys, tempfile
from seeknal.state.backend import create_state_backend
with create_state_backend("database", db_path=f"{tempfile.mkdtemp()}/s.db") as backend:
    backend.initialize()
loaded = {"psycopg", "pymysql", "httpx", "duckdb"} & set(sys.modules)
assert not loaded, loaded
"""
    assert subprocess.run([sys.executable, "-c", program], check=False, timeout=50).returncode == 0


def test_every_refusal_is_typed():
    for url in ("postgresql:", "mysql", "://", "libsql://", "http://"):
        with pytest.raises(SeeknalError) as caught:
            address_of(None, url)
        assert isinstance(caught.value, ConfigurationError | InvalidStateUrlError)
