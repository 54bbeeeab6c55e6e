"""``seeknal state check-backend``: hold a backend to the contract, in scratch stores of its own.

The cases run in a child process, so that a backend which dies or hangs ends as a failed case, and in an
empty working directory without Seeknal's environment, so that nothing of a project is ever in reach. The
child (`seeknal.state.testing.scratch`) appends what happens to a file, one JSON object a line; the
command reads it and reports.
"""

from __future__ import annotations

import inspect
import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from seeknal.cli.options import Debug, Output, ProjectPath, Quiet
from seeknal.cli.output import Format, Printer
from seeknal.errors import ConfigurationError, MissingDriverError, SeeknalError

if TYPE_CHECKING:
    from seeknal.state.contract import StateBackend

SCRATCH = "{scratch}"
PLACES = {"base_path": SCRATCH, "db_path": f"{SCRATCH}/state.db"}
"""Where a backend that takes one of these options is put, unless it is told."""

COLUMNS = ("clauses", "passed", "failed", "not_declared")
RUN_CASES = "from seeknal.state.testing.scratch import run_cases; run_cases()"


@dataclass(frozen=True)
class Failure:
    """A case that a backend did not pass."""

    case: str
    clauses: list[str]
    message: str


@dataclass
class GroupCount:
    """How the cases of one group of clauses went."""

    clauses: str
    passed: int = 0
    failed: int = 0
    not_declared: int = 0


@dataclass
class Report:
    """How a backend stands to the contract. A case counts where the first of its clauses belongs."""

    backend: str
    capabilities: list[str]
    passed: int = 0
    failed: int = 0
    not_declared: int = 0
    groups: list[GroupCount] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)


def check_backend(
    name: Annotated[str | None, typer.Argument(help="The backend; the project's when left out.")] = None,
    option: Annotated[
        list[str] | None,
        typer.Option("--option", help="KEY=VALUE, as it is created with; {scratch} is a new directory for each case."),
    ] = None,
    case: Annotated[str, typer.Option("--case", help="Only the cases with this in their name or clauses.")] = "",
    timeout: Annotated[float, typer.Option("--timeout", min=0.1, help="Seconds after which a case has failed.")] = 60,
    project_path: ProjectPath = Path(),
    output: Output = Format.TABLE,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Hold a backend to every clause of the contract, in scratch stores; the project's own is not touched."""
    # Imported here: the other commands start without them.
    import tempfile

    from seeknal.state.registry import StateBackendFactory
    from seeknal.state.settings import load_settings

    chosen = name or load_settings(project_path).backend
    found = StateBackendFactory.find(chosen)
    options = _located(found, _parsed(option or []))
    _check_options(chosen, found, options)
    _check_not_the_projects(project_path, options)
    _check_importable(chosen, found)
    _check_pytest()
    printer = Printer(output, quiet=quiet)
    printer.note(f"checking {chosen} in scratch stores")
    with tempfile.TemporaryDirectory(prefix="seeknal-check-", ignore_cleanup_errors=True) as folder:
        request = {
            "module": found.__module__,
            "name": found.__qualname__,
            "options": options,
            "timeout_s": timeout,
            "cases": case,
        }
        lines = _events_of_child(Path(folder), request)
    report = _report(chosen, sorted(found.capabilities), lines)
    if debug:
        sys.stderr.writelines(f"{line['case']}\n{line['details']}\n" for line in lines if line.get("details"))
    _print(printer, report)
    if report.failed:
        sys.stderr.write(
            f"error: {chosen} failed {report.failed} of {report.passed + report.failed} cases\n"
            "hint: Run it again with --debug to see where; seeknal.state.contract has the clauses.\n"
        )
        raise typer.Exit(1)


# ---- what is asked ----


def _parsed(given: Sequence[str]) -> dict[str, Any]:
    """Return options by name; a value that is JSON (``7``, ``true``, ``"7"``) is that value, else it is text."""
    options: dict[str, Any] = {}
    for each in given:
        key, equals, text = each.partition("=")
        if not (equals and key.isidentifier()):
            raise ConfigurationError(
                "an option is not of the form KEY=VALUE", hint="Write --option base_path={scratch}."
            )
        try:
            options[key] = json.loads(text)
        except ValueError:
            options[key] = text
    return options


def _located(backend: type[StateBackend], options: dict[str, Any]) -> dict[str, Any]:
    """Return the options with a place in the scratch directory, if the backend takes one and was told none."""
    if "url" in options or options.keys() & PLACES.keys():
        return options
    taken = inspect.signature(backend).parameters
    return {key: place for key, place in PLACES.items() if key in taken} | options


def _check_options(name: str, backend: type[StateBackend], options: Mapping[str, Any]) -> None:
    for key in PLACES:
        if SCRATCH not in str(options.get(key, SCRATCH)):
            raise ConfigurationError(
                f"{key} names one store, but every case needs a new one", hint=f"Write --option {key}={PLACES[key]}."
            )
    url = options.get("url", "")
    if isinstance(url, str) and url.startswith("sqlite:") and SCRATCH not in url:
        raise ConfigurationError(
            "url names one store, but every case needs a new one",
            hint=f"Write --option url=sqlite:///{SCRATCH}/state.db.",
        )
    try:
        inspect.signature(backend).bind(**options)
    except TypeError as error:
        raise ConfigurationError(
            f"backend {name!r} cannot be created: {error}", hint="Pass what it needs with --option KEY=VALUE."
        ) from None


def _check_not_the_projects(project_path: Path, options: Mapping[str, Any]) -> None:
    from seeknal.state.settings import load_settings

    try:
        own = load_settings(project_path).options
    except ConfigurationError:  # no project here
        return
    for key in ("url", "db_path", "base_path"):
        if key in own and own[key] in options.values():
            raise ConfigurationError(
                "an option names the project's own store, which the cases would write into",
                hint="Name another store, or leave the option out.",
            )


def _check_importable(name: str, backend: type[StateBackend]) -> None:
    if backend.__module__ == "__main__" or "<locals>" in backend.__qualname__:
        raise ConfigurationError(
            f"backend {name!r} cannot be imported by another process: {backend.__module__}.{backend.__qualname__}",
            hint="Define the class at the top of a module.",
        )


def _check_pytest() -> None:
    try:
        import_module("pytest")
    except ModuleNotFoundError as error:
        raise MissingDriverError(
            f"`seeknal state check-backend` needs {error.name}, which is not installed",
            hint="pip install 'seeknal-state[testing]'.",
        ) from error


# ---- the child, seen from here ----


def _events_of_child(folder: Path, request: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Run the cases in a child and return what it told; a case that it died in has failed."""
    import subprocess

    (folder / "request.json").write_text(json.dumps(request), encoding="utf-8")
    environment = {
        key: value for key, value in os.environ.items() if not key.startswith(("SEEKNAL_", "TURSO_", "PYTEST_"))
    }
    environment["PYTHONPATH"] = os.pathsep.join(str(Path(entry).absolute()) for entry in sys.path)
    environment["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    with (folder / "output.txt").open("wb") as said:
        child = subprocess.run(  # noqa: S603 - this very interpreter
            [sys.executable, "-c", RUN_CASES],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
            check=False,
        )
    told = folder / "events.jsonl"
    lines = (
        [json.loads(line) for line in told.read_text().splitlines(keepends=True) if line.endswith("\n")]
        if told.exists()
        else []
    )
    if {"collected": 0} in lines:
        raise ConfigurationError(
            "no case has this in its name or its clauses", hint="Leave --case out to run them all."
        )
    if not any("started" in line for line in lines):
        said_last = (folder / "output.txt").read_text(errors="replace").strip().splitlines()[-1:] or ["it said nothing"]
        raise SeeknalError(f"the cases could not be run: {said_last[0]}", hint="Run the kit with pytest to see more.")
    reported = {line["case"] for line in lines if "outcome" in line}
    for line in lines:
        if "started" in line and line["started"] not in reported:
            how = f"signal {-child.returncode}" if child.returncode < 0 else f"exit code {child.returncode}"
            message = f"the process died in it ({how})"
            lines.append({**line, "case": line["started"], "outcome": "failed", "message": message})
            break
    return lines


def _report(name: str, capabilities: list[str], lines: Sequence[Mapping[str, Any]]) -> Report:
    report = Report(backend=name, capabilities=capabilities)
    groups: dict[str, GroupCount] = {}
    for line in lines:
        if "outcome" not in line:
            continue
        clauses = list(line["clauses"])
        key = clauses[0].partition("-")[0]
        group = groups.setdefault(key, GroupCount(key))
        outcome = line["outcome"]
        for counted in (group, report):
            setattr(counted, outcome, getattr(counted, outcome) + 1)
        if outcome == "failed":
            report.failures.append(Failure(line["case"], clauses, line["message"]))
    report.groups = [groups[key] for key in sorted(groups)]
    return report


def _print(printer: Printer, report: Report) -> None:
    if printer.style is not Format.TABLE:
        printer.thing(report, [])
        return
    total = GroupCount("all", report.passed, report.failed, report.not_declared)
    printer.rows([*report.groups, total], COLUMNS, empty="")
    for failure in report.failures:
        line = f"FAILED {failure.case} ({', '.join(failure.clauses)}): {failure.message}"
        sys.stdout.write("".join(char if char.isprintable() else "?" for char in line) + "\n")
    printer.note(f"declared: {', '.join(report.capabilities) or 'no capabilities'}")
