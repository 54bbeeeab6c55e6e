"""What a run that did not end in success had been asked for, and what of that is done."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import msgspec

from seeknal.errors import ConfigurationError
from seeknal.model.records import RunState
from seeknal.pipeline.nodes import Project
from seeknal.runner.begin import TAKEN_BACK_KEY
from seeknal.runner.plan import Asked
from seeknal.runner.ranges import Window
from seeknal.state.contract import StateBackend

RESUMES_KEY = "resumes"
"""Under which the metadata of a run has the id of the run that it goes on with."""


class Unfinished(msgspec.Struct, frozen=True):
    """A run to go on with: its id, and what it was asked for less what is done of it."""

    run_id: str
    asked: Asked


def find_unfinished(project: Project, backend: StateBackend) -> Unfinished | None:
    """Return the newest run of a project, if it did not succeed; ``None`` if it did, or if there is none.

    A run that went on with another one counts together with that.

    Raises:
        ConfigurationError: The project has none of the nodes any more that the run was asked for.
    """
    for run_id in backend.list_runs(newest_first=True):
        run = backend.get_run(run_id)
        if run is not None and _is_of(run, project):
            return None if run.status == "success" else Unfinished(run_id, _asked(run, project, backend))
    return None


def _is_of(run: RunState, project: Project) -> bool:
    return isinstance(run.config, Mapping) and run.config.get("project") == project.name and "full" in run.config


def _asked(run: RunState, project: Project, backend: StateBackend) -> Asked:
    done: set[str] = set()
    chain: RunState | None = run
    seen: set[str] = set()
    while chain is not None and chain.run_id not in seen:
        seen.add(chain.run_id)
        for node_id, state in backend.get_all_node_states(chain.run_id).items():
            # Of a node that has ranges, what is left is what is not completed, once the rest was taken back.
            if state.status == "success" or state.metadata.get(TAKEN_BACK_KEY) is True:
                done.add(node_id)
        before = chain.metadata.get(RESUMES_KEY)
        chain = backend.get_run(before) if isinstance(before, str) else None
    return msgspec.structs.replace(asked_of(run.config or {}, project), is_done=frozenset(done))


def asked_of(config: Mapping[str, Any], project: Project) -> Asked:
    """Return what a run was asked for, as its config has it; nodes that the project has no more are left out.

    Raises:
        ConfigurationError: It has none of them.
    """
    selected = config.get("selected")
    gone = sorted(set(selected or ()) - project.nodes.keys())
    if gone and len(gone) == len(selected or ()):
        raise ConfigurationError(
            f"the run to resume was asked for {', '.join(gone)}, which the project has no more",
            hint="Run without --resume, with --nodes for what is to run.",
        )
    partitions = config.get("partitions")
    return Asked(
        full=bool(config.get("full")),
        selected=None if selected is None else frozenset(selected) & project.nodes.keys(),
        window=Window(
            start=_instant(config.get("start")),
            end=_instant(config.get("end")),
            partitions=None if partitions is None else tuple(partitions),
            restates=bool(config.get("restate")),
        ),
        is_shared=bool(config.get("backfill")),
    )


def config_of(asked: Asked, project: Project) -> dict[str, Any]:
    """Return the config of a run that is asked for this; what was not asked for is left out."""
    window = asked.window
    found: dict[str, Any] = {"project": project.name, "full": asked.full}
    if asked.selected is not None:
        found["selected"] = sorted(asked.selected)
    if window.start is not None:
        found["start"] = window.start.isoformat()
    if window.end is not None:
        found["end"] = window.end.isoformat()
    if window.partitions is not None:
        found["partitions"] = list(window.partitions)
    return found | ({"restate": True} if window.restates else {}) | ({"backfill": True} if asked.is_shared else {})


def _instant(text: object) -> datetime | None:
    return datetime.fromisoformat(text) if isinstance(text, str) else None
