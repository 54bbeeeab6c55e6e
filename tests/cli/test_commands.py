"""A program is assembled of the commands that its arguments may mean."""

from __future__ import annotations

import subprocess
import sys

import pytest
import typer

from seeknal.cli.commands import assembled


def leaves(command, path: tuple[str, ...] = ()) -> dict[tuple[str, ...], object]:
    """Return the commands that are no groups, by their words."""
    children = getattr(command, "commands", None)
    if not children:
        return {path: command}
    return {words: leaf for name, child in children.items() for words, leaf in leaves(child, (*path, name)).items()}


def of(*arguments: str) -> dict[tuple[str, ...], object]:
    return leaves(typer.main.get_command(assembled(arguments)))


def told(command) -> tuple[str, list[str]]:
    return command.help, [parameter.name for parameter in command.params]


WHOLE = of()


@pytest.mark.parametrize("words", WHOLE, ids=" ".join)
def test_each_command_is_there_for_who_names_it(words):
    found = of(*words, "--output", "json")
    assert told(found[words]) == told(WHOLE[words])
    assert found.keys() <= WHOLE.keys()


@pytest.mark.parametrize("arguments", [("stat",), ("--help",), ("--output", "state")])
def test_all_commands_are_there_for_who_names_none(arguments):
    assert of(*arguments).keys() == WHOLE.keys()


@pytest.mark.parametrize("arguments", [("state",), ("state", "--help"), ("state", "lst")])
def test_all_commands_of_a_group_are_there_for_who_names_the_group(arguments):
    assert of(*arguments).keys() == {words for words in WHOLE if words[0] == "state"}


def test_a_command_loads_no_module_of_another_one(tmp_path):
    (tmp_path / "seeknal_project.yml").write_text("name: small\nversion: 1.0.0\n")
    program = "import sys; from seeknal.cli.app import main; main(['state', 'list']); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True)
    loaded = {name for name in done.stdout.split() if name.startswith("seeknal.cli.")}
    assert "seeknal.cli.state" in loaded
    assert loaded & {f"seeknal.cli.{name}" for name in ("run", "migrate", "backup", "doctor", "intervals")} == set()
