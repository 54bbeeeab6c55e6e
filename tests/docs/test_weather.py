"""The example that `make demo` runs."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
NODES = 8


def statuses(output: str) -> list[list[str]]:
    """Return, run by run, what became of the nodes, from the lines that tell of each as it ends."""
    runs = output.split("== ")[1:6]
    return [re.findall(r"^(success|cached|failed|skipped) +\w+\.", run, re.M) for run in runs]


def test_the_demo_runs_everything_then_nothing_then_what_changed(tmp_path: Path) -> None:
    environment = os.environ | {"SEEKNAL": str(Path(sys.executable).with_name("seeknal")), "TMPDIR": str(tmp_path)}
    done = subprocess.run(
        ["sh", str(ROOT / "examples/weather/demo.sh")],
        env=environment | {"KEEP": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=True,
    )
    first, second, third, fourth, fifth = statuses(done.stdout)
    assert first == ["success"] * NODES
    assert second == ["cached"] * NODES
    assert sorted(third) == ["cached"] * (NODES - 2) + ["success"] * 2
    assert sorted(fourth) == ["cached"] * (NODES - 2) + ["success"] * 2
    assert fifth == ["cached"] * NODES
    [project] = tmp_path.glob("*/weather")
    view = json.loads((project / "target" / "run_state.json").read_bytes())
    assert view["nodes"]["transform.daily"]["row_count"] == 2 * 365
    work = json.loads((project / "target/run_state/nodes/transform%2edaily.json").read_bytes())
    assert [(each["start"], each["end"]) for each in work["intervals"]] == [
        ("2010-01-01T00:00:00Z", "2011-01-01T00:00:00Z")
    ]
