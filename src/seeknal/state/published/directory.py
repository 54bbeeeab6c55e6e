"""All that the published platform left in a directory, as batches of records."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import msgspec

from seeknal.state.batch import Batch
from seeknal.state.image import Image
from seeknal.state.published.database import is_published_database, runs_in_database
from seeknal.state.published.documents import (
    is_execution_state,
    is_run_state,
    read_document,
    run_in,
    run_in_execution_state,
    runs_in_folder,
    schema_of,
)
from seeknal.state.published.found import FoundRun, merged
from seeknal.state.published.records import batches_of, joined

KEPT = ".published"
"""What is added to the name of an original that gave its name to ours."""


class Form(msgspec.Struct, frozen=True, kw_only=True):
    """One file or folder of the platform, and what it holds."""

    what: str
    path: str
    runs: int
    node_states: int


class Taken(msgspec.Struct, frozen=True, kw_only=True):
    """What can be taken in: where it stands, and a batch for each run, in the order of their start."""

    forms: list[Form]
    batches: list[Batch]

    @property
    def run_ids(self) -> list[str]:
        """The runs, in the order of their start."""
        return [run.run_id for batch in self.batches for run in batch.runs]

    def counts(self) -> dict[str, int]:
        """Return how many records of each kind a store holds that takes this in."""
        image, whole = Image(), joined(self.batches)
        image.apply(image.numbered(whole))
        return {
            "runs": len(whole.runs),
            "node_states": len(whole.nodes),
            "intervals": sum(len(work.intervals) for work in image.work.values()),
            "partitions": sum(len(work.partitions) for work in image.work.values()),
        }


def take(directory: Path, now: datetime, *, database: Path | None = None, also: FoundRun | None = None) -> Taken | None:
    """Return what the platform left in a directory, or ``None`` if it left nothing.

    Args:
        directory: The platform's target directory, as ``target`` or ``target/envs/dev``.
        now: What a run gets as its time that has none.
        database: Where a database may stand beside ``state.db`` in this directory.
        also: A run that is known to stand in ``run_state.json``.

    Raises:
        CorruptStateError: A file of it is damaged; the message names it.
        SchemaVersionError: A newer platform wrote it.
        BackendUnavailableError: A file cannot be read.
    """
    forms: list[Form] = []
    runs: list[FoundRun] = [] if also is None else [also]
    for what, path, held in _found(directory, database):
        ids = {run.run_id for run in held}
        nodes = {(run.run_id, node_id) for run in held for node_id in run.nodes}
        forms.append(Form(what=what, path=_name(path, directory), runs=len(ids), node_states=len(nodes)))
        runs += held
    if not runs:
        return None
    return Taken(forms=forms, batches=batches_of(merged(runs), now))


def _name(path: Path, directory: Path) -> str:
    return str(path.relative_to(directory) if path.is_relative_to(directory) else path)


def _found(directory: Path, database: Path | None) -> Iterator[tuple[str, Path, list[FoundRun]]]:
    """Yield each form; of equally old copies of one run, the one that comes first is taken."""
    latest = directory / "run_state.json"
    backups = sorted(directory.glob("run_state.json.bak*"), reverse=True)
    for path in (latest, latest.with_name(latest.name + KEPT), *backups):
        if path.is_file():
            document = read_document(path)
            if is_run_state(document):
                what = "a backup" if path in backups else "the latest run"
                yield f"{what}, schema {schema_of(document) or '1.0'}", path, [run_in(document, str(path))]
    for folder in sorted(path for path in directory.iterdir() if path.is_dir()):
        held = runs_in_folder(folder)
        if held:
            yield "a run", folder, held
    places = [directory / "state.db", *([] if database is None else [database])]
    for path in dict.fromkeys(path for place in places for path in (place, place.with_name(place.name + KEPT))):
        if is_published_database(path):
            yield "a database", path, runs_in_database(path)
    path = directory / "state" / "execution_state.json"
    if path.is_file():
        document = read_document(path)
        if is_run_state(document) or is_execution_state(document):
            yield "an execution state", path, [run_in_execution_state(document, str(path))]
