"""``seeknal run``."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from urllib.parse import urlsplit

import typer

from seeknal.cli.bounds import bounds
from seeknal.cli.options import Backend, DatabaseUrl, Debug, Output, ProjectPath, Quiet, opened
from seeknal.cli.output import Format, Printer
from seeknal.cli.run_watch import watched
from seeknal.cli.times import From, Timezone, To, as_length, as_zone
from seeknal.cli.turn import taking_turns
from seeknal.cli.why import Plan, looked_at, need_runner, print_plan
from seeknal.errors import ConfigurationError

if TYPE_CHECKING:
    from seeknal.pipeline.nodes import Project
    from seeknal.runner.executors import Workers
    from seeknal.runner.plan import Asked
    from seeknal.state.contract import StateBackend

RESUME_WAIT = "45s"
"""What ``--resume`` waits by default: longer than the lease of a process that was killed lives on."""


class Executors(StrEnum):
    """Where nodes are computed."""

    THREADS = "threads"
    PROCESSES = "processes"
    DASK = "dask"


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
    start: From = None,
    end: To = None,
    timezone: Timezone = None,
    partition: Annotated[
        list[str] | None, typer.Option("--partition", metavar="KEY", help="Only this partition; may be repeated.")
    ] = None,
    restate: Annotated[
        bool, typer.Option("--restate", help="Do again what is completed, from --start to --end or of --partition.")
    ] = False,
    backfill: Annotated[
        bool, typer.Option("--backfill", help="Share what is missing with other processes that do the same.")
    ] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with what the last run was asked for, if it did not succeed.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", "--show-plan", help="Print what would run, and why; run nothing.")
    ] = False,
    parallel: Annotated[
        int, typer.Option("--parallel", min=1, metavar="N", help="Nodes and ranges that run at once.")
    ] = 1,
    executor: Annotated[
        Executors, typer.Option("--executor", help="Where nodes run.", show_choices=True)
    ] = Executors.THREADS,
    dask_address: Annotated[
        str | None,
        typer.Option("--dask-address", metavar="URL", help="The Dask scheduler, like tcp://10.0.0.7:8786."),
    ] = None,
    continue_on_error: Annotated[
        bool, typer.Option("--continue-on-error", help="After a failure, run what does not need the node that failed.")
    ] = False,
    wait: Annotated[
        str | None,
        typer.Option("--wait", metavar="TIME", help="How long to wait for another run of the project, like 10m."),
    ] = None,
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
    from seeknal.runner.execute import check_asked, run_project
    from seeknal.runner.plan import Asked
    from seeknal.runner.ranges import Window
    from seeknal.runner.selection import select

    printer = Printer(output, quiet=quiet)
    asks = {"--full": full, "--nodes": nodes, "--tags": tags, "--exclude": exclude, "--start": start, "--end": end}
    asks |= {"--timezone": timezone, "--partition": partition, "--restate": restate, "--backfill": backfill}
    _check_together([option for option, value in asks.items() if value], resume=resume)
    _check_address(executor, dask_address)
    low, high = bounds(start, end, as_zone(timezone))
    keys = tuple(partition) if partition else None
    wait_ms = int(as_length(wait or (RESUME_WAIT if resume else "0s"), "--wait").total_seconds() * 1000)

    def asked_of(project: Project) -> Asked:
        asked = Asked(
            full=full,
            selected=select(project.nodes, nodes or (), tags or (), exclude or ()),
            window=Window(start=low, end=high, partitions=keys, restates=restate),
            is_shared=backfill,
        )
        check_asked(asked)
        return asked

    if dry_run:
        with looked_at(project_path, backend, database_url) as seen:
            project = load_project(project_path)
            asked = asked_of(project)
            plan = Plan(project, seen, _resumed(project, seen, asked) if resume else asked)
        print_plan(plan, printer)
        return
    with opened(project_path, backend, database_url) as store:
        project = load_project(project_path)
        asked = asked_of(project)
        likely = _resumed(project, store, asked) if resume else asked
        chosen = {node_id: node.inputs for node_id, node in project.nodes.items() if likely.takes(node_id)}
        is_waiting = wait_ms > 0 and (resume or not backfill)
        with (
            _workers(executor, dask_address, parallel, debug=debug) as workers,
            watched(store, chosen, printer, parallel=parallel, project_path=project_path) as followed,
            taking_turns(project, store, printer, project_path, is_waiting=is_waiting),
        ):

            def begin(run_id: str) -> None:
                followed.begin(run_id)
                if resume:
                    printer.note(_told_what_is_resumed(store, run_id))

            run_project(
                project,
                store,
                full=full,
                selected=asked.selected,
                window=asked.window,
                backfill=backfill,
                resume=resume,
                parallel=parallel,
                continue_on_error=continue_on_error,
                executor=workers,
                wait_ms=wait_ms,
                on_event=followed.tell,
                on_run=begin,
            )


def _check_together(asks: list[str], *, resume: bool) -> None:
    """Refuse options that say nothing, or two things, together.

    Args:
        asks: Those that were given of what says which work is to be done.
        resume: Whether the last run says so.

    Raises:
        ConfigurationError: Naming them.
    """
    if resume and asks:
        raise ConfigurationError(
            f"--resume takes what the last run was asked for, so it does not go together with {', '.join(asks)}",
            hint=f"Leave {'it' if len(asks) == 1 else 'them'} out, or run without --resume.",
        )
    has_span = not {"--start", "--end"}.isdisjoint(asks)
    if "--timezone" in asks and not has_span:
        raise ConfigurationError("--timezone says nothing without --start or --end", hint="Give one of them, too.")
    if "--restate" in asks and "--full" in asks:
        raise ConfigurationError(
            "--full and --restate do not go together: the one does all again, the other a part",
            hint="Leave --full out to do the part again.",
        )
    if "--restate" in asks and not has_span and "--partition" not in asks:
        raise ConfigurationError(
            "--restate needs to know what", hint="Add --start and --end, or --partition; --full does all again."
        )


def _told_what_is_resumed(store: StateBackend, run_id: str) -> str:
    """Return what a run that has just begun with ``--resume`` goes on with, as its record says."""
    from seeknal.runner.resume import RESUMES_KEY

    begun = store.get_run(run_id)
    before = begun.metadata.get(RESUMES_KEY) if begun is not None else None
    return f"going on with {before}" if before else "there was nothing to resume"


def _check_address(executor: Executors, address: str | None) -> None:
    """Refuse the address of a scheduler that cannot be one.

    Raises:
        ConfigurationError: It is not like ``tcp://host:port``, or not for this executor.
    """
    if address is None:
        return
    if executor is not Executors.DASK:
        raise ConfigurationError("--dask-address is given without --executor dask", hint="Add --executor dask.")
    try:
        parts = urlsplit(address)
        is_whole = bool(parts.scheme and parts.hostname and parts.port) and parts.path in ("", "/")
    except ValueError:  # the port is no number of one
        is_whole = False
    if not is_whole:
        raise ConfigurationError(
            f"--dask-address {address!a} is not SCHEME://HOST:PORT", hint="Write it like tcp://10.0.0.7:8786."
        )


def _resumed(project: Project, store: StateBackend | None, asked: Asked) -> Asked:
    """Return what a run that resumes would be asked for."""
    from seeknal.runner.resume import find_unfinished

    unfinished = find_unfinished(project, store) if store is not None else None
    return unfinished.asked if unfinished is not None else asked


@contextmanager
def _workers(executor: Executors, dask_address: str | None, parallel: int, *, debug: bool) -> Iterator[Workers]:
    from seeknal.runner.executors import InProcesses, InThreads

    if executor is Executors.DASK:
        from seeknal.runner.cluster import dask_workers

        if not debug:
            _silence_dask()
        with dask_workers(dask_address, parallel) as workers:
            yield workers
    else:
        yield InProcesses() if executor is Executors.PROCESSES else InThreads()


def _silence_dask() -> None:
    """Let Dask log nothing here and in the worker processes of a cluster of one's own: what fails is told by the run.

    Whoever sets this variable in the environment is obeyed.
    """
    # Dask reads it when it is imported, also in the processes that it starts; the client has a level of its own there.
    os.environ.setdefault("DASK_LOGGING__DISTRIBUTED", "critical")
    logging.getLogger("distributed.client").disabled = True
