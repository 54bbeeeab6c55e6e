"""What the tests of the examples for orchestrators share: a place of their own, and an interpreter."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from seeknal.state.backend import create_state_backend

ROOT = Path(__file__).parents[2]


class Example:
    """An example in a place of its own, run by another interpreter with this project's source on its path.

    Args:
        name: Its directory under ``examples``; the interpreter is the one of ``SEEKNAL_TEST_<NAME>_PYTHON``.
        place: Where its data, output and state are.
    """

    def __init__(self, name: str, place: Path) -> None:
        variable = f"SEEKNAL_TEST_{name.upper()}_PYTHON"
        python = os.environ.get(variable)
        if not python:
            pytest.skip(f"{variable} names no interpreter that has {name}")
        self.python = python
        self.source = ROOT / "examples" / name
        self.place = place
        self.state = place / "state"
        shutil.copytree(self.source / "data", place / "data")

    def run(self, *arguments: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run the interpreter and return how it ended."""
        places = {"DATA": "data", "OUT": "out", "STATE": "state"}
        environment = {name: value for name, value in os.environ.items() if not name.startswith("SEEKNAL_")}
        environment |= {name: str(self.place / path) for name, path in places.items()}
        environment |= {"PYTHONPATH": str(ROOT / "src"), "HOME": str(self.place), "TMPDIR": str(self.place)}
        return subprocess.run(
            [self.python, *arguments],
            cwd=self.place,
            env=environment | variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def spoil(self, day: str) -> None:
        """Put an order into a day whose amount is no number."""
        with (self.place / "data" / f"{day}.csv").open("a") as file:
            file.write("9,many\n")

    def runs(self) -> list[tuple[str, dict[str, str]]]:
        """Return, in the order of the runs, the status of each and of its nodes."""
        with create_state_backend("file", base_path=self.state) as backend:
            backend.initialize()
            found = [backend.get_run(run_id) for run_id in backend.list_runs()]
            return [
                (run.status.value, {node: state.status.value for node, state in nodes.items()})
                for run in found
                if run is not None and (nodes := backend.get_all_node_states(run.run_id)) is not None
            ]

    def check(self) -> None:
        """Check what three runs leave: January 9, the same again, and January 10, which was spoilt."""
        both = ("orders", "totals")
        assert self.runs() == [
            ("success", dict.fromkeys(both, "success")),
            ("success", dict.fromkeys(both, "cached")),
            ("failed", {"orders": "failed"}),
        ]
        with create_state_backend("file", base_path=self.state) as backend:
            backend.initialize()
            assert [str(span.start)[:10] for span in backend.get_completed_intervals("orders")] == ["2024-01-09"]
            failed = backend.get_latest_node_state("orders")
            assert failed is not None
            assert "'many'" in str(failed.error_message)
            first = backend.get_node_state(backend.list_runs()[0], "orders")
            assert first is not None
            assert first.row_count == 2
        assert (self.place / "out" / "2024-01-09.total").read_text() == "30\n"
