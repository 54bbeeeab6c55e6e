"""Which store a project uses, and what is said when that cannot be known."""

from __future__ import annotations

import pytest

from seeknal.errors import ConfigurationError
from seeknal.state.settings import edit_project, load_settings
from seeknal.state.url import has_secret, redact


@pytest.fixture
def project(tmp_path):
    def write(text):
        (tmp_path / "seeknal_project.yml").write_text(text)
        return tmp_path

    return write


def test_the_default_is_the_file_store(project):
    path = project("name: p\n")
    found = load_settings(path, environ={})
    assert (found.backend, found.options, found.decided_by) == ("file", {"base_path": str(path / "target")}, "default")


def test_a_project_file_of_the_published_platform_is_read_and_its_own_keys_stay(project):
    path = project("name: p\nversion: 1.0.0\nprofile: default\nconfig-version: 1\nstate_backend: file\n")
    assert load_settings(path, environ={}).backend == "file"
    edit_project(path, {"state_backend": "database"})
    text = (path / "seeknal_project.yml").read_text()
    assert text == "name: p\nversion: 1.0.0\nprofile: default\nconfig-version: 1\nstate_backend: database\n"


@pytest.mark.parametrize(
    ("text", "env", "given", "backend", "place"),
    [
        ("state_backend: database\n", {}, {}, "database", "target/state.db"),
        ("state_backend: sqlite\n", {}, {}, "database", "target/state.db"),
        ("state_backend: database\nstate_options: {db_path: a.db}\n", {}, {}, "database", "a.db"),
        ("database_url: mysql://h/d\n", {}, {}, "database", "mysql://h/d"),
        ("database_url: sqlite:///x.db\n", {}, {}, "database", "x.db"),
        ("state_backend: database\n", {"SEEKNAL_STATE_BACKEND": "file"}, {}, "file", "target"),
        ("state_backend: file\n", {"SEEKNAL_DATABASE_URL": "mysql://e/d"}, {}, "database", "mysql://e/d"),
        ("", {"SEEKNAL_STATE_BACKEND": "database"}, {"backend": "file"}, "file", "target"),
        ("database_url: mysql://f/d\n", {"SEEKNAL_DATABASE_URL": "mysql://e/d"}, {}, "database", "mysql://e/d"),
        ("database_url: mysql://f/d\n", {}, {"database_url": "mysql://c/d"}, "database", "mysql://c/d"),
        ("state_backend: database\n", {"TURSO_DATABASE_URL": "libsql://t"}, {}, "database", "libsql://t"),
        ("", {"TURSO_DATABASE_URL": "libsql://t"}, {}, "file", "target"),
        ("database_url: mysql://${HOST}/d\n", {"HOST": "h"}, {}, "database", "mysql://h/d"),
    ],
)
def test_the_highest_level_decides(project, text, env, given, backend, place):
    found = load_settings(project(text), environ=env, **given)
    assert (found.backend, found.where) == (backend, f"{backend} {place}")


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("state_backnd: file\n", "'state_backnd'", "state_backend"),
        ("a: b: c\n", "line 1", "YAML"),
        ("name: p\nname: q\n", "line 2", "YAML"),
        ("- a\n", "not a mapping", "state_backend"),
        ("state_options: 3\n", "state_options must be a mapping", ""),
        ("state_backend: file\ndatabase_url: mysql://h/d\n", "takes no database URL", "database"),
        ("database_url: ${NOWHERE}\n", "NOWHERE is not set", "NOWHERE"),
    ],
)
def test_what_cannot_be_used_is_named(project, text, message, hint):
    with pytest.raises(ConfigurationError) as error:
        load_settings(project(text), environ={})
    assert message in str(error.value)
    assert "seeknal_project.yml" in str(error.value)
    assert hint in error.value.hint


def test_a_missing_project_is_told_how_to_begin(tmp_path):
    with pytest.raises(ConfigurationError) as error:
        load_settings(tmp_path, environ={})
    assert "seeknal init" in error.value.hint


def test_secrets_are_never_shown(project):
    env = {"TURSO_AUTH_TOKEN": "sesame"}
    found = load_settings(project("database_url: libsql://host\n"), environ=env)
    assert (found.options["url"], found.options["token"]) == ("libsql://host", "sesame")
    assert "sesame" not in repr(found) + found.where


def test_an_edit_keeps_comments_order_and_mode(project):
    path = project("# top\nversion: 1  # one\nname: 'p'\nstate_backend: file # here\n")
    file = path / "seeknal_project.yml"
    file.chmod(0o644)
    edit_project(path, {"state_backend": "database", "database_url": "mysql://h/d"})
    assert file.read_text() == (
        "# top\nversion: 1  # one\nname: 'p'\nstate_backend: database # here\ndatabase_url: mysql://h/d\n"
    )
    assert file.stat().st_mode & 0o777 == 0o644
    assert [each.name for each in path.iterdir()] == ["seeknal_project.yml"]


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://u:p%40@h/d", "postgresql://u:***@h/d"),
        ("postgresql://u:p@x@h/d?sslpassword=z&a=b", "postgresql://u:***@h/d?sslpassword=***&a=***"),
        ("postgresql://u@h/d", "postgresql://u@h/d"),
        ("libsql://token@host", "libsql://***@host"),
        ("libsql://host?authToken=abc", "libsql://host?authToken=***"),
    ],
)
def test_redact(url, shown):
    assert redact(url) == shown
    assert has_secret(url) is (url != shown)


@pytest.mark.parametrize(
    "text",
    [
        "database_url: libsql://a@host\n",
        "database_url: https://host?authToken=a\n",
        "database_url: mysql://host/d\n",
        "state_backend: file\n",
    ],
)
def test_a_token_of_the_environment_is_for_a_libsql_url_that_has_none(project, text):
    assert "token" not in load_settings(project(text), environ={"TURSO_AUTH_TOKEN": "sesame"}).options


@pytest.mark.parametrize("scheme", ["libsql", "turso", "https", "wss", "http", "LIBSQL"])
def test_every_scheme_of_libsql_takes_the_token_of_the_environment(project, scheme):
    environ = {"TURSO_DATABASE_URL": f"{scheme}://127.0.0.1", "TURSO_AUTH_TOKEN": "sesame"}
    assert load_settings(project("state_backend: database\n"), environ=environ).options["token"] == "sesame"


def test_a_token_of_the_project_wins_over_that_of_the_environment(project):
    path = project("database_url: libsql://host\nstate_options:\n  token: ${MINE}\n")
    found = load_settings(path, environ={"TURSO_AUTH_TOKEN": "sesame", "MINE": "open"})
    assert found.options["token"] == "open"
