"""The kit is tested too: each wrong backend is caught by the case that is named for it."""

import importlib.util
import inspect
import itertools
from functools import partial
from pathlib import Path

import pytest

from seeknal.state.memory import MemoryStateBackend, MemoryStore
from seeknal.state.testing import StateBackendConformance
from seeknal.state.testing.scene import Scene

_spec = importlib.util.spec_from_file_location("broken_backends", Path(__file__).parent / "broken" / "backends.py")
broken = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(broken)

CAUGHT_BY = {
    "DropsRollback": "test_an_exception_rolls_everything_back",
    "SavepointsDoNothing": "test_a_savepoint_rolls_back_alone",
    "IgnoresTheLeaseToken": "test_a_lost_lease_writes_nothing",
    "ComparesTheKeyOnly": "test_a_lost_lease_writes_nothing",
    "FoldsCase": "test_ids_are_kept_apart_byte_for_byte",
    "SanitisesIds": "test_ids_are_kept_apart_byte_for_byte",
    "LimitZeroIsAll": "test_limit_zero_is_none_at_all",
    "TearsABatch": "test_a_refused_commit_writes_none_of_it",
    "ForgetsIntervalsOnDelete": "test_completed_work_survives_its_run",
    "LetsAStaleVersionThrough": "test_read_then_written_meanwhile",
    "IgnoresExpectedVersion": "test_stale_run_version",
    "ReleaseFreesAnybodys": "test_only_its_owner_releases",
    "TokenStandsStill": "test_the_token_grows_by_one",
    "ReEntrant": "test_not_re_entrant",
    "LeaseByWallClock": "test_expiry_with_clocks_that_disagree",
    "ReturnsItsOwn": "test_dictionaries_are_copied",
    "LatestByClock": "test_latest_is_what_was_written_last",
    "DirtyReads": "test_own_writes_are_seen_and_nobody_elses",
    "CleansTheNewestSuccess": "test_the_newest_success_of_a_node_stays",
    "CleansThePinned": "test_a_pinned_run_stays",
    "CleansTheLast": "test_the_newest_runs_stay",
    "CleansTheLocked": "test_a_run_whose_lock_is_held_stays",
    "MergesNothing": "test_touching_and_overlapping_merge",
    "KeepsLocksAtTheEnd": "test_the_end_of_a_run_frees_its_locks",
    "NodesOutliveTheirRun": "test_delete_run",
    "RaisesADriversError": "test_read_then_written_meanwhile",
    "ForgetsOnClose": "test_close_frees",
    "RenumbersOnUpdate": "test_list_runs",
    "LogsBeforeTheCommit": "test_a_change_is_logged_with_its_transaction",
    "BreaksALockSilently": "test_a_broken_lock_is_logged",
    "StampsPartitionsWithNow": "test_a_partition_completed_earlier",
    "ForgetsWhoHasPartitions": "test_worked_nodes",
    "GivesARangeToAnybody": "test_two_workers_get_different_ranges",
    "EndsAClaimThatIsOver": "test_a_claim_ends_once",
    "BuriesNoClaims": "test_the_ranges_of_a_worker_that_is_gone_are_taken_again",
}


def run_case(name, backend_class):
    """Run a case once for each of its parameters, on a fresh store each time."""
    case = getattr(StateBackendConformance, name)
    marks = [mark for mark in getattr(case, "pytestmark", ()) if mark.name == "parametrize"]
    for values in itertools.product(*(mark.args[1] for mark in marks)):
        given = {mark.args[0]: value for mark, value in zip(marks, values, strict=True)}
        scene = Scene(partial(backend_class, MemoryStore()), lambda clock, seconds: clock.advance(seconds=seconds))
        try:
            backend = scene.open()
            known = {"scene": scene, "clock": scene.clock, "backend": backend, "other": scene.open(), **given}
            wanted = list(inspect.signature(case).parameters)[1:]
            case(None, **{fixture: known[fixture] for fixture in wanted})
        finally:
            scene.close()


def test_every_broken_backend_is_listed():
    defined = {
        name
        for name, kind in vars(broken).items()
        if isinstance(kind, type) and issubclass(kind, MemoryStateBackend) and kind is not MemoryStateBackend
    }
    assert defined == set(CAUGHT_BY)


@pytest.mark.parametrize(("wrong", "case"), CAUGHT_BY.items(), ids=list(CAUGHT_BY))
def test_the_case_catches_it(wrong, case):
    run_case(case, MemoryStateBackend)
    with pytest.raises((Exception, pytest.fail.Exception)) as caught:
        run_case(case, getattr(broken, wrong))
    assert not isinstance(caught.value, (TypeError, NameError, AttributeError, KeyError)), "the harness is at fault"
