"""What is measured at ten million node states is a store as the product writes it."""

from __future__ import annotations

import pytest
from benchmarks.workloads.filling import fill, past, store_at

from seeknal.state.batch import Batch
from seeknal.state.transfer import digest_of

RUNS, NODES = 210, 7


@pytest.fixture(params=["sqlite", "postgresql"])
def options(request, tmp_path, emptied_store):
    return {"db_path": tmp_path / "filled.db"} if request.param == "sqlite" else emptied_store(request.param).options


def test_a_filled_store_is_one_that_was_written(options, tmp_path) -> None:
    fill(options, RUNS * NODES, NODES)
    with store_at({"db_path": tmp_path / "written.db"}) as written, store_at(options) as filled:
        for run, states in (past(number, NODES) for number in range(RUNS)):
            written.commit(Batch(runs=[run], nodes=states))
        assert digest_of(filled) == digest_of(written)
        filled.create_run("next")
        assert filled.list_runs(newest_first=True, limit=1) == ["next"]
