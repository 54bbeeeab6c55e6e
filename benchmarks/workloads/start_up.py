"""How long the command takes from nothing to its end, to an empty Typer program run by the same interpreter."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.figures import Finding
from benchmarks.rounds import Work, clocked, ratios, take_turns

from seeknal.state.backend import create_state_backend

NAME = "start_up"
TIMES = 3
EMPTY = "import typer\napp = typer.Typer()\n@app.command()\ndef main() -> None: ...\napp()\n"
VERSION_BAR, LIST_BAR = 1.5, 2.5


def measure(folder: Path, rounds: int) -> Iterator[Finding]:
    """Yield what the command costs before it does anything, and with a small store."""
    empty = folder / "empty.py"
    empty.write_text(EMPTY)
    (folder / "seeknal_project.yml").write_text("name: start_up\nversion: 1.0.0\n")
    options = {"file": {"base_path": folder / "target"}, "database": {"db_path": folder / "state.db"}}
    for kind, each in options.items():
        with create_state_backend(kind, **each) as backend:
            backend.initialize()
            for number in range(10):
                backend.create_run(f"run {number}")
    command = Path(sys.executable).parent / "seeknal"
    on_file = ["--project-path", str(folder), "--backend", "file"]
    on_sqlite = ["--project-path", str(folder), "--database-url", f"sqlite:///{(folder / 'state.db').absolute()}"]
    took = take_turns(
        {
            "an empty Typer program": started([sys.executable, str(empty)]),
            "an empty Python program": started([sys.executable, "-c", ""]),
            "seeknal --version": started([str(command), "--version"]),
            "seeknal state list (file)": started([str(command), "state", "list", *on_file]),
            "seeknal state list (sqlite)": started([str(command), "state", "list", *on_sqlite]),
        },
        rounds=rounds,
        times=TIMES,
    )
    finding = Finding(NAME, "-")
    limit = "an empty Typer program"
    finding.add(f"seeknal --version / {limit}", ratios(took, "seeknal --version", limit), most=VERSION_BAR)
    for store in ("file", "sqlite"):
        name = f"seeknal state list ({store})"
        finding.add(f"{name} / {limit}", ratios(took, name, limit), most=LIST_BAR)
    for name, micros in took.items():
        finding.add(name, [each / 1e3 for each in micros], "ms")
    yield finding


def started(command: Sequence[str]) -> Work:
    """Return what runs a command to its end, with its output thrown away."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SEEKNAL_")}

    def run(_: int) -> None:
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=environment)

    return clocked(run)
