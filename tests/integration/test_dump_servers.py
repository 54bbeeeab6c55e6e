"""A store has one export, whichever server it is on."""

from __future__ import annotations

import io
from datetime import UTC, datetime

import pytest

from seeknal.state.backend import create_state_backend
from seeknal.state.dump.importing import import_dump, plan_import
from seeknal.state.dump.reading import Dump
from seeknal.state.dump.writing import export_to_stream
from seeknal.state.memory import MemoryStateBackend
from seeknal.state.transfer import digest_of


def opened(server_store):
    backend = create_state_backend("database", **server_store.options)
    backend.initialize()
    return backend


def exported(store):
    sink = io.BytesIO()
    export_to_stream(store, sink)
    return sink.getvalue()


def filled():
    store = MemoryStateBackend()
    for run in ("b", "a", "é/../x"):
        store.create_run(run, config={"k": run, "n": [1, 1.5, None]})
        for node in ("n1", "N1", "e\u0301", "\U0001f600"):
            store.set_node_state(run, node, status="success", row_count=2**62, error_message="a\nb\\'")
    store.set_node_state("b", "n1", metadata={"ü": {"late": True}})
    for month in (1, 3):
        store.add_completed_interval(
            "b", "n1", datetime(2024, month, 1, tzinfo=UTC), datetime(2024, month, 2, 3, 4, 5, 6)
        )
    store.add_completed_partition("a", "n1", "p", row_count=1, metadata={"m": 1})
    return store


def test_an_export_goes_through_a_server_and_comes_back_byte_for_byte(server_store):
    with filled() as source:
        content = exported(source)
        with opened(server_store) as server:
            report = import_dump(Dump(io.BytesIO(content), "x"), server, batch_rows=4)
            assert digest_of(server) == digest_of(source) == report.state_sha256
            assert server.read_store().store_id == source.read_store().store_id
            back = exported(server)
            *records, logged = back.splitlines()[1:-1]
            assert records == content.splitlines()[1:-1]
            assert b'"action":"import"' in logged
            assert plan_import(Dump(io.BytesIO(back), "x"), server).present == report.written
            server.create_run("next")
            server.set_node_state("next", "n1", status="failed")
            assert server.list_runs()[-1] == "next"
            assert server.get_latest_node_state("n1").run_id == "next"


def test_an_import_that_fails_leaves_nothing_on_a_server(server_store):
    with filled() as source, opened(server_store) as server:
        before, seen = server.read_store(), []

        def fail(stage, done, total):
            seen.append(stage)
            if seen.count("importing") == 3:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            import_dump(Dump(io.BytesIO(exported(source)), "x"), server, batch_rows=4, on_progress=fail)
        assert len(exported(server).splitlines()) == 2
        assert server.read_store() == before
