"""The reference pages leave nothing out."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import typer.main

from seeknal import errors
from seeknal.model import intervals, partitions, pending, schedule, time_format
from seeknal.model.status import NodeStatus, RunStatus
from seeknal.state.backend import StateBackend
from seeknal.state.contract import StateBackend as Contract

REFERENCE = Path(__file__).resolve().parents[2] / "docs" / "reference"


def test_every_verb_is_in_the_api_page() -> None:
    page = (REFERENCE / "api.md").read_text()
    verbs = [name for name in dir(StateBackend) if not name.startswith("_") and name not in {"capabilities", "clock"}]
    assert [name for name in verbs if f"`{name}" not in page] == []


def test_every_status_is_in_the_api_page() -> None:
    page = (REFERENCE / "api.md").read_text()
    assert [status for status in [*RunStatus, *NodeStatus] if f"`{status.value}`" not in page] == []


def test_every_error_is_in_the_errors_page() -> None:
    page = (REFERENCE / "errors.md").read_text()
    tree = [
        name
        for name, found in vars(errors).items()
        if inspect.isclass(found) and issubclass(found, errors.SeeknalError)
    ]
    assert [name for name in tree if f"`{name}`" not in page] == []


def test_every_function_of_the_interval_library_is_in_its_page() -> None:
    page = (REFERENCE / "intervals.md").read_text()
    names = [
        name
        for module in (intervals, schedule, pending)
        for name, found in vars(module).items()
        if getattr(found, "__module__", None) == module.__name__ and not name.startswith("_")
    ]
    names += [name for name, found in vars(schedule.Schedule).items() if inspect.isfunction(found) and name[0] != "_"]
    assert len(names) > 15
    assert [name for name in names if not re.search(rf"\b{name}\b", page)] == []
    assert [name for name in schedule.SHORTHANDS if f"`{name}`" not in page] == []
    asked = inspect.signature(pending.pending_intervals).parameters.keys() - {"completed", "schedule"}
    assert [name for name in asked if f"`{name}`" not in page] == []


def test_everything_about_definitions_of_partitions_is_in_their_page() -> None:
    page = (REFERENCE / "partitions.md").read_text()
    names = set(partitions.__all__)
    for kind in (partitions.StaticPartitions, partitions.TimePartitions, partitions.PartitionGrid):
        names |= {*kind.__struct_fields__, *(name for name in vars(kind) if name[0] != "_")}
    assert len(names) > 15
    assert sorted(name for name in names if not re.search(rf"\b{name}\b", page)) == []
    directives = [f"%{letter}" for letter in (*time_format.NUMBERS, *time_format.NAMES, "z", ":z", "%")]
    assert [each for each in [*directives, *time_format.ALIASES] if f"`{each}`" not in page] == []


def test_number_of_abstract_methods_is_as_written() -> None:
    page = (REFERENCE.parent / "how-to" / "write-a-backend.md").read_text()
    found = re.search(r"has (\d+) abstract methods", page)
    assert found is not None
    assert int(found[1]) == len(Contract.__abstractmethods__)


def _commands() -> list[str]:
    from seeknal.cli.commands import assembled

    found: list[str] = []

    def walk(command: object, path: str) -> None:
        for name, child in (getattr(command, "commands", None) or {}).items():
            if not child.hidden:
                walk(child, f"{path} {name}")
                if not getattr(child, "commands", None):
                    found.append(f"{path} {name}")

    walk(typer.main.get_command(assembled()), "seeknal")
    return found


def test_every_command_is_in_the_cli_page() -> None:
    page = (REFERENCE / "cli.md").read_text()
    assert [command for command in _commands() if f"`{command}" not in page] == []


def test_every_exit_code_is_as_written() -> None:
    from seeknal.cli.app import EXIT_CODES

    page = (REFERENCE / "errors.md").read_text()
    for names, code in re.findall(r"^\| (`\w+Error`(?:, `\w+Error`)*) \| .* \| (\d) \|$", page, re.M):
        for name in re.findall(r"\w+Error", names):
            kind = getattr(errors, name)
            assert next((number for each, number in EXIT_CODES if issubclass(kind, each)), 1) == int(code), name
