"""``seeknal state list`` and ``show``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from seeknal.cli.options import Backend, DatabaseUrl, Debug, Output, ProjectPath, Quiet, opened
from seeknal.cli.output import Format, Printer, shown
from seeknal.cli.which_node import nearest_node
from seeknal.errors import ConfigurationError, NodeNotFoundError, RunNotFoundError

if TYPE_CHECKING:
    from seeknal.model.records import NodeState

RUN_COLUMNS = ("run_id", "status", "started_at", "finished_at")
NODE_COLUMNS = ("node_id", "status", "duration_ms", "row_count", "finished_at")


def list_runs(
    limit: Annotated[int, typer.Option("--limit", min=0, help="At most so many runs.")] = 20,
    status: Annotated[str | None, typer.Option("--status", help="Only runs of this status.")] = None,
    project_path: ProjectPath = Path(),
    backend: Backend = None,
    database_url: DatabaseUrl = None,
    output: Output = Format.TABLE,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """List runs, the newest first."""
    with opened(project_path, backend, database_url) as store:
        ids = store.list_runs(status=status, newest_first=True, limit=limit)
        runs = [run for run in map(store.get_run, ids) if run is not None]
    Printer(output, quiet=quiet).rows(runs, RUN_COLUMNS, empty="no runs")


def show(
    run: Annotated[str | None, typer.Argument(help="The run; the latest when left out.")] = None,
    node: Annotated[str | None, typer.Argument(help="A node of it.")] = None,
    log: Annotated[bool, typer.Option("--log", help="Print what the node said, instead of its state.")] = False,
    project_path: ProjectPath = Path(),
    backend: Backend = None,
    database_url: DatabaseUrl = None,
    output: Output = Format.TABLE,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Show a run and its nodes, or one node of it."""
    printer = Printer(output, quiet=quiet)
    if log and node is None:
        raise ConfigurationError(
            "--log is about a node", hint="Name a run and a node of it: `seeknal state show RUN NODE --log`."
        )
    with opened(project_path, backend, database_url) as store:
        run_id = run if run is not None else next(iter(store.list_runs(newest_first=True, limit=1)), None)
        found = store.get_run(run_id) if run_id is not None else None
        if run_id is None or found is None:
            raise RunNotFoundError(
                f"there is no run {run_id!a}" if run_id is not None else "there are no runs yet",
                hint="List what there is with `seeknal state list`, or run the pipeline with `seeknal run`.",
                run_id=run_id or "",
            )
        if node is not None:
            state = store.get_node_state(run_id, node)
            if state is None:
                raise NodeNotFoundError(
                    f"run {run_id!a} has no node {node!a}",
                    hint=f"{nearest_node(node, store.list_nodes(run_id))}"
                    f"List its nodes with `seeknal state show {run_id}`.",
                    run_id=run_id,
                    node_id=node,
                )
            if log:
                _print_log(state, project_path, printer)
            else:
                printer.thing(state, _fields(state))
            return
        nodes = store.get_all_node_states(run_id)
    if output is not Format.TABLE:
        import msgspec

        printer.thing({**msgspec.structs.asdict(found), "nodes": nodes}, [])
        return
    printer.thing(found, _fields(found))
    sys.stdout.write("\n")
    printer.rows(list(nodes.values()), NODE_COLUMNS, empty="no nodes")
    failed = [state for state in nodes.values() if state.status == "failed" and state.error_message]
    for state in failed:
        _print_error(state)


def _print_error(state: NodeState) -> None:
    """Print all that the error of a failed node says, and where there is more."""
    from seeknal.runner.capture import LOG_KEY, log_file

    first, *others = (state.error_message or "").strip().splitlines() or [""]
    lines = [f"{shown(state.node_id)} failed: {shown(first)}", *(f"  {shown(line.expandtabs())}" for line in others)]
    if LOG_KEY in state.metadata:
        lines.append(f"  log: {log_file(state.run_id, state.node_id)}")
    sys.stdout.write("\n" + "".join(f"{line}\n" for line in lines))


def _print_log(state: NodeState, project_path: Path, printer: Printer) -> None:
    from seeknal.cli.node_logs import opened_log

    with opened_log(project_path, state) as (name, file):
        if printer.style is Format.TABLE:
            for line in file:
                sys.stdout.write(f"{shown(line.rstrip().expandtabs())}\n")
        else:
            record = {"run_id": state.run_id, "node_id": state.node_id, "log": name, "text": file.read()}
            printer.thing(record, [])


def _fields(record: Any) -> list[tuple[str, Any]]:
    return [(name, getattr(record, name)) for name in record.__struct_fields__ if name != "sequence"]
