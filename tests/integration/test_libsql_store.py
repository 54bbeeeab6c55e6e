"""A store on a libSQL server: tokens, addresses, replicas, and the timers of the server."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
import time
import traceback
from contextlib import closing
from pathlib import Path

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from seeknal.errors import AccessDeniedError, BackendUnavailableError, ConfigurationError
from seeknal.state.backend import create_state_backend
from seeknal.state.sql.libsql import dbapi
from seeknal.state.sql.libsql.endpoint import endpoint

KEY = Ed25519PrivateKey.generate()
MAY_WRITE = {"a": "rw"}


def token(key: Ed25519PrivateKey = KEY, lives_s: int = 3600, **claims: str) -> str:
    return jwt.encode({"exp": int(time.time()) + lives_s, **(claims or MAY_WRITE)}, key, algorithm="EdDSA")


@pytest.fixture
def guarded(start_sqld, tmp_path):
    """A server that asks for tokens."""
    public = tmp_path / "public.pem"
    public.write_bytes(KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return start_sqld(jwt_key_file=public)


def opened(url: str, **options):
    backend = create_state_backend("database", url=url, **options)
    backend.initialize()
    return backend


@pytest.mark.parametrize(
    ("what", "given"),
    [
        ("no token", None),
        ("one that has expired", token(lives_s=-120)),
        ("one of another server", token(Ed25519PrivateKey.generate())),
        ("no token at all", "garbage"),
    ],
)
def test_a_token_that_is_not_good_is_refused_and_not_shown(guarded, caplog, what, given):
    caplog.set_level(logging.DEBUG)
    backend = create_state_backend("database", url=guarded.url, token=given)
    with backend, pytest.raises(AccessDeniedError) as caught:
        backend.initialize()
    told = "".join(traceback.format_exception(caught.value)) + caught.value.hint + repr(backend) + caplog.text
    assert "TURSO_AUTH_TOKEN" in caught.value.hint
    assert caught.value.outcome == "not applied"
    assert given is None or given not in told


def test_a_token_that_may_only_read_opens_the_store_and_writes_nothing(guarded):
    with opened(guarded.url, token=token()) as writer:
        writer.create_run("r")
        writer.set_node_state("r", "n", status="success")
        with opened(guarded.url, token=token(a="ro")) as reader:
            assert reader.list_runs() == ["r"]
            assert reader.get_latest_node_state("n").status == "success"
            for write in (
                lambda: reader.create_run("s"),
                lambda: reader.set_node_state("r", "n", status="failed"),
                lambda: reader.add_completed_partition("r", "n", "p"),
                lambda: reader.acquire_lock("r"),
            ):
                with pytest.raises(AccessDeniedError):
                    write()
        assert writer.list_runs() == ["r"]
        assert writer.get_node_state("r", "n").version == 1
        assert writer.list_locks() == []


def test_a_token_that_may_only_read_cannot_make_a_store_and_is_told_how_to(guarded):
    with create_state_backend("database", url=guarded.url, token=token(a="ro")) as backend:
        with pytest.raises(AccessDeniedError, match="no store yet") as caught:
            backend.initialize()
        assert "state schema --sql" in caught.value.hint


@pytest.mark.parametrize(
    "form",
    [
        "http://{host}",
        "HTTP://{host}/",
        " http://{host} ",
        "ws://{host}",
        "libsql://{host}?tls=0",
        "turso://{host}?tls=0",
        "http://{token}@{host}",
        "libsql://{token}@{host}?tls=0",
        "http://{host}?authToken={token}",
        "libsql://{host}?tls=0&authToken={token}",
    ],
)
def test_every_form_of_the_address_works(guarded, form):
    url = form.format(host=guarded.url.removeprefix("http://"), token=token())
    given = {} if "{token}" in form else {"token": token()}
    with opened(url, **given) as backend:
        backend.create_run("r")
        assert backend.list_runs() == ["r"]


def test_the_variables_of_turso_open_a_project_and_nothing_shows_the_token(guarded, tmp_path):
    (tmp_path / "seeknal_project.yml").write_text("name: p\nstate_backend: database\n")
    secret = token()
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("SEEKNAL_", "TURSO_"))}
    environment |= {"TURSO_DATABASE_URL": guarded.url, "TURSO_AUTH_TOKEN": secret, "SEEKNAL_LOG": "debug"}

    def seeknal(*arguments: str, **changed: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "seeknal.cli.app", *arguments],
            cwd=tmp_path,
            env=environment | changed,
            capture_output=True,
            text=True,
            timeout=50,
            stdin=subprocess.DEVNULL,
        )

    done = seeknal("state", "list")
    assert (done.returncode, done.stderr) == (0, "no runs\n")
    wrong = token(Ed25519PrivateKey.generate())
    failed = seeknal("state", "list", "--debug", TURSO_AUTH_TOKEN=wrong)
    assert failed.returncode == 4
    assert "TURSO_AUTH_TOKEN" in failed.stderr
    assert wrong not in failed.stdout + failed.stderr
    written = [path.read_bytes() for path in Path(tmp_path).rglob("*") if path.is_file()]
    assert not any(each.encode() in content for content in written for each in (secret, wrong))


def test_a_token_never_crosses_a_network_unencrypted():
    for url in ("http://{token}@db.example", "http://db.example:8080", "libsql://db.example?tls=0"):
        secret = token()
        with pytest.raises(ConfigurationError) as caught:
            create_state_backend("database", url=url.format(token=secret), token=None if "@" in url else secret)
        assert secret not in str(caught.value) + caught.value.hint


@pytest.fixture
def pair(start_sqld):
    primary = start_sqld(is_primary=True)
    return primary, start_sqld(replica_of=primary)


def test_no_decision_rests_on_what_a_replica_has_not_heard_yet(pair):
    primary, replica = pair
    with opened(primary.url) as ahead, opened(replica.url) as behind:
        for number in range(60):
            run = f"r{number}"
            writer, reader = (ahead, behind) if number % 2 else (behind, ahead)
            writer.create_run(run)
            assert reader.exists(run)
            assert reader.update_run(run, metadata={"seen": number}).version == 2
            writer.set_node_state(run, "n", status="running")
            assert reader.set_node_state(run, "n", status="success", row_count=number).version == 2
            assert writer.get_latest_node_state("n").row_count == number
            with writer.lock(run) as lease, writer.transaction(lease=lease):
                writer.set_node_state(run, "n", metadata={"number": number})
            assert not reader.list_locks()
            assert reader.delete_node_state(run, "n")
            assert not writer.delete_node_state(run, "n")


def test_a_lock_that_is_held_too_long_is_taken_by_the_server_and_the_store_waits_for_it(private_sqld):
    """Source: the server lets another writer have the lock of a transaction that was open for five seconds."""
    with opened(private_sqld.url, schema="held") as backend, closing(dbapi.connect(endpoint(private_sqld.url))) as raw:
        raw.run("BEGIN IMMEDIATE")
        raw.run("CREATE TABLE IF NOT EXISTS somebody (x)")
        backend.create_run("r")
        assert backend.get_run("r").version == 1
        with pytest.raises(dbapi.TransactionLostError):
            raw.run("INSERT INTO somebody VALUES (1)")


def test_readers_do_not_wait_for_a_writer(private_sqld):
    with opened(private_sqld.url, schema="reads") as backend, closing(dbapi.connect(endpoint(private_sqld.url))) as raw:
        backend.create_run("r")
        raw.run("BEGIN IMMEDIATE")
        raw.run("UPDATE reads_runs SET status = 'failed'")
        assert backend.get_run("r").status == "running"
        raw.rollback()


def test_what_is_not_a_libsql_server_is_told_as_that(private_postgres):
    host = private_postgres.url.split("@")[-1].split("/")[0]
    backend = create_state_backend("database", url=f"http://{host}")
    with backend, pytest.raises((BackendUnavailableError, ConfigurationError)):
        backend.initialize()


def test_a_web_server_that_knows_no_hrana_is_told_as_that():
    from http.server import BaseHTTPRequestHandler, HTTPServer

    with HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server:
        server.RequestHandlerClass.log_message = lambda *_: None
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            url = f"http://127.0.0.1:{server.server_port}"
            assert httpx.post(url).status_code == 501
            backend = create_state_backend("database", url=f"{url}/prefix")
            with backend, pytest.raises((BackendUnavailableError, ConfigurationError)) as caught:
                backend.initialize()
            assert caught.value.hint
        finally:
            server.shutdown()
            thread.join()
