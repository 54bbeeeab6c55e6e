"""A store whose content cannot be read is restored: over it where that is possible, else beside it."""

from __future__ import annotations

import pytest

from seeknal.errors import CorruptStateError
from seeknal.state.backend import create_state_backend
from seeknal.state.backup.generations import generations
from seeknal.state.backup.making import back_up
from seeknal.state.backup.restoring import plan_restore, restore
from seeknal.state.transfer import digest_of


@pytest.fixture
def damaged(tmp_path):
    """Return a backup of a file store, its digest, and the path of the file that was spoilt since."""
    with create_state_backend("file", base_path=tmp_path / "target", checkpoint_bytes=1) as store:
        store.initialize()
        for run_id in ("first", "second"):
            store.create_run(run_id)
            store.set_node_state(run_id, "n", status="success")
        made, before = back_up(store, tmp_path / "b", kind="file"), digest_of(store)
    path = next(
        path
        for path in (tmp_path / "target" / "run_state").rglob("*.json")
        if b'"first"' in path.read_bytes() and path.parent.name == "runs"
    )
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    return made, before, path


def test_a_preview_over_a_damaged_store_says_so_and_goes_on(damaged, tmp_path):
    made, _, path = damaged
    with create_state_backend("file", base_path=tmp_path / "target") as store:
        store.initialize()
        plan = plan_restore(store, made)
    assert (plan.present, plan.lost_runs, plan.counts.runs, plan.refused) == (None, None, 2, [])
    assert str(path) in plan.problem, "it names the file of the store, not of a copy that is gone"


def test_what_cannot_be_backed_up_is_not_replaced_unless_that_is_asked_for(damaged, tmp_path):
    made, before, path = damaged
    with create_state_backend("file", base_path=tmp_path / "target") as store:
        store.initialize()
        with pytest.raises(CorruptStateError, match="what is there cannot be backed up") as refused:
            restore(store, made, kind="file", undo_in=tmp_path / "b")
        assert "--no-backup" in refused.value.hint
        assert refused.value.location == str(path)
        assert [each.name for each in generations(tmp_path / "b")] == [made.name]
        restore(store, made, kind="file")
        assert digest_of(store) == before
