"""Whatever a store may hold comes back equal through an export, into every kind of store on this machine."""

from __future__ import annotations

import io
import string
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from seeknal.model.ids import MAX_ID_BYTES
from seeknal.state.backend import create_state_backend
from seeknal.state.dump.importing import import_dump
from seeknal.state.dump.reading import Dump
from seeknal.state.dump.writing import export_to_stream
from seeknal.state.memory import MemoryStateBackend
from seeknal.state.transfer import digest_of

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
ids = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=MAX_ID_BYTES // 4) | st.sampled_from(
    [*string.ascii_letters[:3], "e\u0301", "\u00e9", "../x", "\U0001f600", "\u2028", '"\\']
)
numbers = st.integers(-(2**63), 2**63 - 1)
values = st.recursive(
    st.none() | st.booleans() | numbers | st.floats(allow_nan=False, allow_infinity=False) | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=8,
)
objects = st.dictionaries(text, values, max_size=3)
moments = st.none() | st.datetimes(datetime(1, 1, 3), datetime(9999, 12, 29), timezones=st.just(UTC))
nodes = st.fixed_dictionaries(
    {"status": st.sampled_from(["pending", "running", "success", "failed", "skipped", "cached"])},
    optional={
        "started_at": moments,
        "finished_at": moments,
        "duration_ms": st.none() | st.integers(0, 2**63 - 1),
        "row_count": st.none() | st.integers(0, 2**63 - 1),
        "fingerprint": st.none() | text,
        "error_message": st.none() | text,
        "attempt": st.integers(1, 2**63 - 1),
        "metadata": objects,
    },
)
spans = st.tuples(st.datetimes(datetime(1900, 1, 1), datetime(2200, 1, 1)), st.integers(1, 10**12))
stores = st.lists(
    st.tuples(
        ids,
        objects,
        st.lists(st.tuples(ids, nodes), max_size=4),
        st.lists(st.tuples(ids, spans), max_size=3),
        st.lists(st.tuples(ids, ids, objects), max_size=3),
    ),
    max_size=4,
    unique_by=lambda run: run[0],
)


def filled(runs):
    store = MemoryStateBackend()
    for run_id, config, states, work, partitions in runs:
        store.create_run(run_id, config=config, metadata=config)
        for node_id, fields in states:
            store.set_node_state(run_id, node_id, **fields)
        for node_id, (start, us) in work:
            store.add_completed_interval(run_id, node_id, start, start + timedelta(microseconds=us))
        for node_id, partition, metadata in partitions:
            store.add_completed_partition(run_id, node_id, partition, metadata=metadata)
    return store


def exported(store):
    sink = io.BytesIO()
    export_to_stream(store, sink)
    return sink.getvalue()


def records_of(content):
    """The lines between the first and the last one, without what the import itself has logged."""
    lines = content.splitlines(keepends=True)[1:-1] if b"\r" not in content else content.split(b"\n")[1:-2]
    return [line for line in lines if not line.startswith(b'{"kind":"change",')]


@given(stores, st.integers(1, 7))
def test_any_store_comes_back_through_memory(runs, rows):
    with filled(runs) as source, MemoryStateBackend() as target:
        content = exported(source)
        report = import_dump(Dump(io.BytesIO(content), "x"), target, batch_rows=rows)
        assert digest_of(target) == digest_of(source) == report.state_sha256
        assert records_of(exported(target)) == records_of(content)


@settings(max_examples=25)
@given(stores)
def test_any_store_comes_back_through_files_and_sqlite(runs):
    with tempfile.TemporaryDirectory() as folder, filled(runs) as source:
        content, expected = exported(source), digest_of(source)
        for kind, place in (("file", {"base_path": folder}), ("database", {"db_path": Path(folder) / "s.db"})):
            with create_state_backend(kind, **place) as target:
                target.initialize()
                import_dump(Dump(io.BytesIO(content), "x"), target)
            with create_state_backend(kind, **place) as again:
                again.initialize()
                assert digest_of(again) == expected, kind
                assert records_of(exported(again)) == records_of(content), kind
