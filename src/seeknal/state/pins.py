"""Pins: runs that no cleanup removes.

A pin is kept in the metadata of its run, so every store has pins, and every migration and export takes them along. A
store that keeps a log says in it who pinned what.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from seeknal.errors import InvalidFieldError
from seeknal.model.changes import missing_run
from seeknal.state.capabilities import Capability

if TYPE_CHECKING:
    from seeknal.model.records import RunState
    from seeknal.state.contract import StateBackend

PINNED = "pinned"
"""The metadata key of a pin: an object with ``reason`` (text, may be empty) and ``pinned_at`` (ISO 8601, UTC).

Anything else but ``null`` and ``false`` pins a run as well, without a reason. Metadata merges by key and never loses
one, so ``null`` stands where a pin was.
"""


def pin_run(backend: StateBackend, run_id: str, reason: str = "") -> RunState:
    """Pin a run and return it; one that is pinned gets the new reason.

    Raises:
        RunNotFoundError: There is no such run.
        InvalidFieldError: ``reason`` is no text.
    """
    if not isinstance(reason, str):
        raise InvalidFieldError("reason must be text", hint="Pass reason as a str.", field="reason")
    pin = {"reason": reason, "pinned_at": backend.clock.now().isoformat(timespec="seconds").replace("+00:00", "Z")}

    def change() -> RunState:
        run = backend.update_run(run_id, metadata={PINNED: pin})
        _log(backend, "pin", run_id, reason)
        return run

    return backend.run_transaction(change)


def unpin_run(backend: StateBackend, run_id: str) -> bool:
    """Take the pin from a run; return whether it was pinned.

    Raises:
        RunNotFoundError: There is no such run.
    """

    def change() -> bool:
        run = backend.get_run(run_id)
        if run is None:
            raise missing_run(run_id)
        if not is_pinned(run):
            return False
        backend.update_run(run_id, metadata={PINNED: None})
        _log(backend, "unpin", run_id)
        return True

    return backend.run_transaction(change)


def is_pinned(run: RunState) -> bool:
    """Return whether a run is pinned."""
    pin = run.metadata.get(PINNED)
    return pin is not None and pin is not False


def reason_of(run: RunState) -> str:
    """Return why a run is pinned; empty if nobody said so, or it is not."""
    return _text(run, "reason")


def pinned_at(run: RunState) -> str:
    """Return when a run was pinned, in ISO 8601; empty if nobody said so, or it is not."""
    return _text(run, "pinned_at")


def _text(run: RunState, name: str) -> str:
    pin: Any = run.metadata.get(PINNED)
    found = pin.get(name) if isinstance(pin, dict) else None
    return found if isinstance(found, str) else ""


def _log(backend: StateBackend, action: str, run_id: str, reason: str = "") -> None:
    if Capability.LOG in backend.capabilities:
        backend.log_change(action, run_id=run_id, reason=reason)
