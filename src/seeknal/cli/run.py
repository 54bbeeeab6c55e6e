"""``seeknal run``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from seeknal.cli.options import Backend, DatabaseUrl, Debug, Output, ProjectPath, Quiet, opened
from seeknal.cli.output import Format, Printer
from seeknal.cli.run_watch import watched
from seeknal.cli.why import Plan, looked_at, need_runner, print_plan


def run(
    full: Annotated[bool, typer.Option("--full", help="Run what is selected, also what is up to date.")] = False,
    nodes: Annotated[
        list[str] | None,
        typer.Option(
            "--nodes", help="Only these: ids, names, patterns; +name: with all it needs, name+: with its users."
        ),
    ] = None,
    tags: Annotated[list[str] | None, typer.Option("--tags", help="Only nodes that have one of these tags.")] = None,
    exclude: Annotated[list[str] | None, typer.Option("--exclude", help="Not these; as --nodes.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", "--show-plan", help="Print what would run, and why; run nothing.")
    ] = False,
    parallel: Annotated[int, typer.Option("--parallel", min=1, metavar="N", help="Nodes that run at once.")] = 1,
    continue_on_error: Annotated[
        bool, typer.Option("--continue-on-error", help="After a failure, run what does not need the node that failed.")
    ] = False,
    project_path: ProjectPath = Path(),
    backend: Backend = None,
    database_url: DatabaseUrl = None,
    output: Output = Format.TABLE,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Run the pipeline: what changed or was never finished, and what comes after it."""
    # Imported here: most commands do without what the runner brings.
    need_runner("`seeknal run`")
    from seeknal.pipeline.load import load_project
    from seeknal.runner.execute import run_project
    from seeknal.runner.plan import Asked
    from seeknal.runner.selection import select

    printer = Printer(output, quiet=quiet)
    if dry_run:
        with looked_at(project_path, backend, database_url) as seen:
            project = load_project(project_path)
            selected = select(project.nodes, nodes or (), tags or (), exclude or ())
            plan = Plan(project, seen, Asked(full=full, selected=selected))
        print_plan(plan, printer)
        return
    with opened(project_path, backend, database_url) as store:
        project = load_project(project_path)
        selected = select(project.nodes, nodes or (), tags or (), exclude or ())
        chosen = {
            node_id: node.inputs for node_id, node in project.nodes.items() if selected is None or node_id in selected
        }
        with watched(store, chosen, printer, parallel=parallel) as followed:
            report = run_project(
                project,
                store,
                full=full,
                selected=selected,
                parallel=parallel,
                continue_on_error=continue_on_error,
                on_event=followed.tell,
            )
            followed.begin(report.run_id)
