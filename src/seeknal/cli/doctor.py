"""``seeknal state doctor``: what is wrong with a store, and mending what can be mended safely."""

from __future__ import annotations

import sys
import textwrap
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from seeknal.cli.options import Backend, DatabaseUrl, Debug, Output, ProjectPath, Quiet
from seeknal.cli.output import Format, Printer, shown
from seeknal.errors import ConfigurationError, SeeknalError

if TYPE_CHECKING:
    from seeknal.state.contract import StateBackend
    from seeknal.state.finding import Finding

WIDTH = 80
REFUSALS = {"store-unreachable": 4, "access-denied": 4, "store-damaged": 5, "document-damaged": 5}
"""Checks that tell why a store cannot be opened, or not be read, and their exit codes."""


def doctor(
    fix: Annotated[bool, typer.Option("--fix", help="Show what can be mended; with --no-dry-run, mend it.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run/--no-dry-run", help="Only show what --fix would do, or do it.")
    ] = True,
    project_path: ProjectPath = Path(),
    backend: Backend = None,
    database_url: DatabaseUrl = None,
    output: Output = Format.TABLE,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Examine the store: damage, leftovers, records that contradict each other, settings that lose data.

    Changes nothing without --fix --no-dry-run. Exits with 1 if errors are found, with 4 or 5 if the store cannot be
    reached or read, and with 0 if there are warnings only.
    """
    from seeknal.state.doctor import examine_project, mend
    from seeknal.state.registry import StateBackendFactory
    from seeknal.state.settings import load_settings

    if not fix and not dry_run:
        raise ConfigurationError("--no-dry-run does nothing without --fix", hint="Say --fix --no-dry-run to mend.")
    printer = Printer(output, quiet=quiet)
    settings = load_settings(project_path, backend=backend, database_url=database_url)
    mended: list[Finding] = []
    failed: list[Finding] = []
    with StateBackendFactory.create(settings.backend, **settings.options) as store:
        found = list(examine_project(settings, store))
        if fix and not dry_run:
            tried = [finding for finding in found if finding.is_fixable]
            for finding, problem in mend(tried, lambda each: printer.note(f"mending {each.check}: {shown(each.what)}")):
                failed.append(finding)
                printer.note(f"could not mend {finding.check}: {problem} {problem.hint}")
            mended = [finding for finding in tried if finding not in failed]
    if mended or failed:
        # Anew, as the next command would find it.
        with StateBackendFactory.create(settings.backend, **settings.options) as store:
            found = list(examine_project(settings, store))
            mended = [finding for finding in mended if finding not in found]
            _log(printer, store, mended)
    _print(printer, found, mended)
    _sum_up(printer, settings.where, found, is_preview=fix and dry_run)
    code = exit_code(found) or (1 if failed else 0)
    if code:
        raise typer.Exit(code)


def _log(printer: Printer, store: StateBackend, mended: list[Finding]) -> None:
    """Log what was mended, where the store keeps a log; the repair stands whether that works or not."""
    from seeknal.state.capabilities import Capability

    if not mended or Capability.LOG not in store.capabilities:
        return
    detail = {"mended": [{"check": each.check, "what": each.what, "where": each.where} for each in mended]}
    try:
        store.initialize()
        store.log_change("repair", detail=detail)
    except SeeknalError as problem:
        printer.note(f"the repair could not be logged: {problem}")


def exit_code(found: list[Finding]) -> int:
    """Return the exit code of what was found."""
    errors = [finding for finding in found if finding.severity == "error"]
    refusals = [REFUSALS[finding.check] for finding in errors if finding.check in REFUSALS]
    return max(refusals, default=1 if errors else 0)


def _print(printer: Printer, found: list[Finding], mended: list[Finding]) -> None:
    if printer.style is not Format.TABLE:
        records = [_record(finding, is_mended=True) for finding in mended]
        printer.rows([*records, *(_record(finding) for finding in found)], (), empty="")
        return
    for finding in mended:
        sys.stdout.write(f"{'mended':<8} {finding.check}\n{_wrapped(finding.what)}\n")
    for finding in found:
        mark = " (can be mended)" if finding.is_fixable else ""
        lines = [
            f"{finding.severity:<8} {finding.check}{mark}",
            _wrapped(f"{finding.what}."),
            _wrapped(finding.where, "where"),
            _wrapped(finding.fix, "fix"),
        ]
        sys.stdout.write("\n".join(lines) + "\n")


def _record(finding: Finding, *, is_mended: bool = False) -> dict[str, Any]:
    names = ("check", "severity", "what", "where", "fix", "is_fixable")
    return {**{name: getattr(finding, name) for name in names}, "is_mended": is_mended}


def _wrapped(text: str, name: str = "") -> str:
    """Return lines that fit a narrow terminal, set in under the severity; a path is not broken."""
    first = " " * 9 + (f"{name + ':':<7}" if name else "")
    following = " " * len(first)
    return textwrap.fill(
        shown(text),
        WIDTH,
        initial_indent=first,
        subsequent_indent=following,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _sum_up(printer: Printer, where: str, found: list[Finding], *, is_preview: bool) -> None:
    if not found:
        printer.note(f"{where}: nothing is wrong")
        return
    counts = Counter(finding.severity.value for finding in found)
    printer.note(f"{where}: {counts['error']} errors, {counts['warning']} warnings")
    fixable = sum(finding.is_fixable for finding in found)
    if is_preview:
        printer.note(
            f"nothing was changed; --fix --no-dry-run mends {fixable} of them" if fixable else "none can be mended here"
        )
    elif fixable:
        printer.note(f"{fixable} of them can be mended: `seeknal state doctor --fix` shows how")
