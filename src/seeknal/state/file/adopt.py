"""State that stands where a new store is to be made: it is taken in, so that nothing is lost.

It comes from the published Seeknal platform (`seeknal.state.published`), or is the ``run_state.json`` of a store
of ours whose directory was deleted.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from seeknal.state.batch import Batch
from seeknal.state.file import durable
from seeknal.state.file.layout import Layout


def adopted(found: dict[str, Any] | None, layout: Layout, now: datetime) -> Batch | None:
    """Return the runs that stand beside a store that is new, or ``None`` if there are none.

    Args:
        found: What ``run_state.json`` holds; ``None`` if there is no such file.
        layout: Where to look.
        now: What a run gets as its time that has none.

    Raises:
        CorruptStateError: Something cannot be understood; the message names the file and the field.
        SchemaVersionError: A newer platform wrote it.
    """
    # Imported here: a store that stands already has nothing to take in.
    from seeknal.state.published.directory import take
    from seeknal.state.published.documents import run_in
    from seeknal.state.published.records import joined

    is_empty = not found or not (found.get("run_id") or found.get("nodes", True))
    taken = take(layout.base, now, also=None if is_empty or found is None else run_in(found, str(layout.view)))
    return None if taken is None else joined(taken.batches)


def keep_original(layout: Layout) -> None:
    """Copy a ``run_state.json`` of the published platform beside, byte for byte: its name is ours from now on.

    Raises:
        BackendUnavailableError: It could not be copied; it stands as it was.
    """
    from seeknal.state.published.directory import KEPT
    from seeknal.state.published.documents import is_run_state, read_document

    kept = layout.view.with_name(layout.view.name + KEPT)
    if not layout.view.is_file() or kept.exists() or not is_run_state(read_document(layout.view)):
        return
    with durable.unavailable(kept, "write"):
        durable.replace_file(kept, layout.view.read_bytes())
        durable.sync_directory(layout.base)
