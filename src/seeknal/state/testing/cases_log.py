"""Cases about the change log, for backends that keep one."""
# ruff: noqa: PT012 - what must raise is the whole `with` block of a transaction

from __future__ import annotations

import os
from datetime import timedelta
from typing import Any

import pytest

from seeknal.clock import FakeClock
from seeknal.errors import InvalidFieldError, InvalidIdError
from seeknal.state.capabilities import Capability
from seeknal.state.contract import StateBackend
from seeknal.state.lease import this_host
from seeknal.state.testing.clauses import clause, needs
from seeknal.state.testing.factories import BAD_IDS, NODE
from seeknal.state.testing.scene import Scene


def actions(backend: StateBackend, **asked: Any) -> list[str]:
    """Return the words of the log."""
    return [change.action for change in backend.list_changes(**asked)]


class LogCases:
    """Cases about the change log."""

    @needs(Capability.LOG)
    @clause("LOG-1")
    def test_a_change_is_logged(self, backend: StateBackend, other: StateBackend, clock: FakeClock) -> None:
        """With who did it, where, when and why; the run need not exist."""
        detail = {"kept": ["a", None], "n": 1.5}
        logged = backend.log_change("clean-up", run_id="r", node_id=NODE, reason="caf\u00e9\n\x00", detail=detail)
        (found,) = other.list_changes()
        assert found == logged
        assert (found.action, found.run_id, found.node_id) == ("clean-up", "r", NODE)
        assert (found.reason, found.detail, found.at) == ("caf\u00e9\n\x00", detail, clock.now())
        assert (found.host, found.pid) == (this_host(), os.getpid())
        assert found.actor

    @needs(Capability.LOG)
    @clause("LOG-1")
    def test_what_is_not_said_is_empty(self, backend: StateBackend, other: StateBackend) -> None:
        """Neither run nor node, no reason, no detail."""
        backend.log_change("x")
        (found,) = other.list_changes()
        assert (found.run_id, found.node_id, found.reason, found.detail) == (None, None, "", {})

    @needs(Capability.LOG)
    @clause("LOG-1", "RUN-12")
    def test_the_log_outlives_its_run(self, backend: StateBackend, other: StateBackend) -> None:
        """A run that is deleted takes no entry with it."""
        backend.create_run("r")
        backend.log_change("pin", run_id="r")
        backend.delete_run("r")
        assert actions(other, run_id="r") == ["pin"]

    @needs(Capability.LOG)
    @clause("LOG-1", "FACT-2")
    def test_the_detail_is_copied(self, backend: StateBackend) -> None:
        """What is done to it afterwards never reaches the store."""
        detail: dict[str, Any] = {"a": [1]}
        backend.log_change("x", detail=detail).detail["a"].append(2)
        detail["a"].append(3)
        backend.list_changes()[0].detail["a"].append(4)
        assert backend.list_changes()[0].detail == {"a": [1]}

    @needs(Capability.LOG)
    @clause("LOG-2", "TX-1", "TX-2", "TX-3", "TX-4", "TX-5")
    def test_a_change_is_logged_with_its_transaction(self, backend: StateBackend, other: StateBackend) -> None:
        """Seen inside, by nobody else before the commit, and gone with what is rolled back."""
        backend.log_change("before")
        with pytest.raises(ZeroDivisionError), backend.transaction():
            backend.create_run("r")
            backend.log_change("undone", run_id="r")
            raise ZeroDivisionError
        with backend.transaction():
            backend.create_run("r")
            backend.log_change("outer", run_id="r")
            with pytest.raises(ZeroDivisionError), backend.transaction():
                backend.log_change("inner")
                raise ZeroDivisionError
            assert actions(backend) == ["before", "outer"]
            assert actions(backend, newest_first=True, limit=1) == ["outer"]
            assert actions(other) == ["before"]
        assert actions(other) == ["before", "outer"]
        assert other.exists("r")

    @needs(Capability.LOG)
    @clause("LOG-2")
    def test_a_transaction_may_log_and_do_nothing_else(self, backend: StateBackend, other: StateBackend) -> None:
        """It commits."""
        with backend.transaction():
            backend.log_change("x")
        assert actions(other) == ["x"]

    @needs(Capability.LOG)
    @clause("LOG-3", "ID-1", "ERR-1")
    def test_what_is_not_logged(self, backend: StateBackend) -> None:
        """A bad word, id, reason or detail is refused, and the field is named."""
        for bad in BAD_IDS:
            for field in ("run_id", "node_id"):
                if bad is not None:
                    with pytest.raises(InvalidIdError):
                        backend.log_change("x", **{field: bad})
        for action in ("", "Two words", "UNLOCK", "1x", "x" * 41, "\u00e9", None, 7):
            with pytest.raises(InvalidFieldError) as caught:
                backend.log_change(action)  # type: ignore[arg-type]
            assert caught.value.field == "action"
        wrong: list[dict[str, Any]] = [{"reason": None}, {"reason": "\ud800"}, {"detail": [1]}, {"detail": {"a": {1}}}]
        for given in wrong:
            with pytest.raises(InvalidFieldError) as caught:
                backend.log_change("x", **given)
            assert caught.value.field in given
        assert backend.list_changes() == []

    @needs(Capability.LOG)
    @clause("LOG-4")
    def test_changes_are_listed_by_time(self, backend: StateBackend, other: StateBackend, clock: FakeClock) -> None:
        """Either way round, as many as asked for, of one run, node or action; all of one instant in their order."""
        for number in range(7):
            each = backend if number % 2 else other
            clock.advance(seconds=number % 2)
            each.log_change(f"a{number}", run_id="r" if number < 3 else "R", node_id=NODE if number > 4 else None)
        everything = [f"a{number}" for number in range(7)]
        assert actions(backend) == actions(other) == everything
        assert actions(backend, newest_first=True) == everything[::-1]
        assert actions(backend, limit=2) == everything[:2]
        assert actions(backend, newest_first=True, limit=2) == everything[:-3:-1]
        assert actions(backend, limit=0) == actions(backend, newest_first=True, limit=0) == []
        assert actions(backend, run_id="r") == everything[:3]
        assert actions(backend, run_id="R", node_id=NODE) == everything[5:]
        assert actions(backend, action="a4", newest_first=True, limit=9) == ["a4"]
        assert actions(backend, run_id="nobody") == []

    @needs(Capability.LOG)
    @clause("LOG-4")
    def test_a_change_id_is_unique_and_grows(self, backend: StateBackend, clock: FakeClock) -> None:
        """With time, and within one instant with the order of the calls."""
        changes = [backend.log_change("x") for _ in range(20)]
        clock.advance(seconds=timedelta(days=1).total_seconds())
        changes.append(backend.log_change("x"))
        ids = [change.change_id for change in changes]
        assert ids == sorted(set(ids))

    @needs(Capability.LOG)
    @clause("LOG-4", "ERR-1")
    @pytest.mark.parametrize("bad", [-1, 1.5, "1"], ids=str)
    def test_a_bad_limit_of_changes(self, backend: StateBackend, bad: Any) -> None:
        """Is refused."""
        with pytest.raises(InvalidFieldError):
            backend.list_changes(limit=bad)

    @needs(Capability.LOG)
    @clause("LOG-5", "LOCK-10")
    def test_a_broken_lock_is_logged(self, backend: StateBackend, other: StateBackend, scene: Scene) -> None:
        """With the reason and who held it; nothing is logged where nobody held it."""
        assert backend.acquire_lock("r", NODE)
        (holder,) = backend.list_locks()
        assert other.break_lock("r", reason="another key") is None
        with other.transaction():
            other.break_lock("r", NODE, reason="its owner hangs")
        other.break_lock("r", NODE, reason="again")
        (logged,) = scene.open().list_changes()
        assert (logged.action, logged.run_id, logged.node_id) == ("unlock", "r", NODE)
        assert logged.reason == "its owner hangs"
        assert logged.detail["token"] == holder.token
        assert (logged.detail["host"], logged.detail["pid"]) == (holder.host, holder.pid)
