"""``seeknal run --dry-run`` and ``seeknal state why``: what would run, and why."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from seeknal.cli.listing import terminal_width
from seeknal.cli.options import Backend, DatabaseUrl, Debug, Output, ProjectPath, Quiet
from seeknal.cli.output import LEAST_WIDTH, Format, Printer, cells, shortened, shown
from seeknal.errors import MissingDriverError

if TYPE_CHECKING:
    from seeknal.pipeline.nodes import Node, Project
    from seeknal.runner.plan import Asked, Observed, Planned
    from seeknal.state.contract import StateBackend

PLAN_COLUMNS = ("node_id", "action", "why")
PART_COLUMNS = ("part", "then", "now", "differs")


class Plan:
    """A project, what is known about its nodes, and what a run would do."""

    def __init__(self, project: Project, store: StateBackend | None, asked: Asked | None = None) -> None:
        from seeknal.clock import SystemClock
        from seeknal.runner.observe import observe
        from seeknal.runner.plan import ALL, plan_nodes
        from seeknal.runner.selection import check_parents, check_window

        asked = asked or ALL
        if asked.selected is not None:
            check_parents(project, store, asked.selected)
        now = (store.clock if store is not None else SystemClock()).now()
        check_window(project, store, asked, now)
        self.project = project
        self.observed: dict[str, Observed] = {
            node_id: observe(node, project.path, store) for node_id, node in project.nodes.items()
        }
        self.planned: dict[str, Planned] = plan_nodes(project.nodes, self.observed, now=now, asked=asked)


def print_plan(plan: Plan, printer: Printer) -> None:
    """Print what would be done with each node, and how many would run."""
    from seeknal.runner.plan import RUN

    if printer.style is Format.TABLE:
        rows = [[each.node_id, each.action, shown(each.why)] for each in plan.planned.values()]
        _print_table(printer, rows)
    else:
        printer.rows([_record(each) for each in plan.planned.values()], (), empty="no nodes")
    count = sum(each.action == RUN for each in plan.planned.values())
    printer.note(f"{count} of {len(plan.planned)} nodes would run; nothing was run")


def why(
    node: Annotated[str, typer.Argument(help="A node of the project: kind.name, or its name if no other has it.")],
    project_path: ProjectPath = Path(),
    backend: Backend = None,
    database_url: DatabaseUrl = None,
    output: Output = Format.TABLE,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Tell why a node would run or not: what it is made of now, and what it was when it succeeded last.

    Nothing is run, and nothing is changed.
    """
    printer = Printer(output, quiet=quiet)
    need_runner("`seeknal state why`")
    from seeknal.pipeline.load import load_project
    from seeknal.runner.selection import find_node

    with looked_at(project_path, backend, database_url) as store:
        project = load_project(project_path)
        node_id = find_node(project.nodes, node)
        plan = Plan(project, store)
    _print_why(plan, project.nodes[node_id], printer)


def need_runner(what: str) -> None:
    """Import the runner, which brings DuckDB and sqlglot.

    Args:
        what: The command that needs it.

    Raises:
        MissingDriverError: One of them is not installed; the hint names the extra.
    """
    import importlib

    try:
        importlib.import_module("seeknal.runner.execute")
    except ModuleNotFoundError as error:
        raise MissingDriverError(
            f"{what} needs {error.name}, which is not installed", hint="pip install 'seeknal-state[run]'."
        ) from error


@contextmanager
def looked_at(project_path: Path, backend: str | None, database_url: str | None) -> Iterator[StateBackend | None]:
    """Yield the project's store, open, without making or changing it; ``None`` if there is none yet.

    Raises:
        SchemaVersionError: Opening it would bring it up to date.
    """
    from seeknal.cli.stores import can_tell, check_unchanged
    from seeknal.state.record_store import RecordStore
    from seeknal.state.registry import StateBackendFactory
    from seeknal.state.settings import load_settings

    settings = load_settings(project_path, backend=backend, database_url=database_url)
    with ExitStack() as stack:
        store = stack.enter_context(StateBackendFactory.create(settings.backend, **settings.options))
        if isinstance(store, RecordStore) and can_tell(store) and store.peek_store() is None:
            yield None
            return
        check_unchanged(store, settings.where)
        store.initialize()
        yield store


def _record(planned: Planned) -> dict[str, Any]:
    batches = planned.ranges.batches
    return {
        "node_id": planned.node_id,
        "action": planned.action,
        "reasons": [{"reason": each.reason, "detail": each.detail} for each in planned.reasons],
        "why": planned.why,
        "fingerprint": planned.made_of.fingerprint if planned.made_of is not None else None,
        "is_anew": planned.is_anew,
        "intervals": [{"start": each.start, "end": each.end} for each in batches if not isinstance(each, str)],
        "partitions": [each for each in batches if isinstance(each, str)],
    }


def _print_table(printer: Printer, rows: Sequence[list[str]]) -> None:
    """Print a plan: on a terminal no line is wider than it, elsewhere each is whole."""
    if sys.stdout.isatty():
        columns = zip(PLAN_COLUMNS, *rows, strict=True)
        used = sum(max(map(cells, column)) + 2 for column in list(columns)[:2])
        room = max(LEAST_WIDTH, terminal_width() - used)
        rows = [[*row[:2], shortened(row[2], room, "...")] for row in rows]
    printer.rows([dict(zip(PLAN_COLUMNS, row, strict=True)) for row in rows], PLAN_COLUMNS, empty="no nodes")


def _print_why(plan: Plan, node: Node, printer: Printer) -> None:
    from seeknal.runner.outputs import output_path, parts_folder
    from seeknal.runner.plan import RUN, parts_then

    planned, observed = plan.planned[node.node_id], plan.observed[node.node_id]
    newest = observed.newest
    then = parts_then(newest) if newest is not None else {}
    now = planned.made_of.short if planned.made_of is not None else {}
    parts = [
        {
            "part": name,
            "then": then.get(name),
            "now": now.get(name),
            "differs": then.get(name) != now.get(name) if then else None,
        }
        for name in {**now, **then}
    ]
    where = parts_folder if node.is_ranged else output_path
    path = where(plan.project.path, node.node_id) if node.has_output else None
    is_there = bool(observed.done.parts) if node.is_ranged else observed.has_output
    note = planned.made_of.note if planned.made_of is not None else observed.problem
    parents = [plan.planned[input_id] for input_id in node.inputs if plan.planned[input_id].action == RUN]
    record = _record(planned) | {
        "last_success": {
            "run_id": newest.run_id,
            "finished_at": newest.finished_at,
            "fingerprint": newest.fingerprint,
        }
        if newest is not None
        else None,
        "parts": parts,
        "parents_that_run": [{"node_id": each.node_id, "why": each.why} for each in parents],
        "output": {"path": str(path), "is_there": is_there} if path is not None else None,
        "note": note,
    }
    lines: list[tuple[str, Any]] = [
        ("node", node.node_id),
        ("defined in", node.file),
        ("would run", "yes" if planned.action == RUN else "no"),
        ("why", planned.why),
        ("last success", f"{newest.run_id}, {shown(newest.finished_at)}" if newest is not None else "none"),
        ("fingerprint then", newest.fingerprint if newest is not None else None),
        ("fingerprint now", record["fingerprint"]),
        ("output", "none" if path is None else f"{path}{'' if is_there else ' is missing'}"),
    ]
    lines += [("parent that runs", f"{each.node_id}: {each.why}") for each in parents]
    lines += [("note", note)] if note else []
    printer.thing(record, lines)
    if printer.style is Format.TABLE and parts:
        sys.stdout.write("\n")
        marked = [each | {"differs": "differs" if each["differs"] else ""} for each in parts]
        printer.rows(marked, PART_COLUMNS, empty="")
