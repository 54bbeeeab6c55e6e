"""The example of many nodes that one function makes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples/many_nodes"
NODES = 200


def statuses(project: Path, *options: str, nodes: int = NODES) -> Counter[str]:
    """Run the project, and count what became of its nodes."""
    command = [sys.executable, "-m", "seeknal.cli.app", "run", "--parallel", "4", "--output", "json", "--quiet"]
    done = subprocess.run(
        [*command, *options],
        cwd=project,
        env=os.environ | {"MANY_NODES": str(nodes)},
        capture_output=True,
        text=True,
        check=True,
    )
    return Counter(node["status"] for node in json.loads(done.stdout)["nodes"].values())


@pytest.mark.parametrize("backend", ["file", "sqlite"])
def test_the_nodes_run_once_and_those_that_are_added_later(backend: str, tmp_path: Path) -> None:
    project = shutil.copytree(EXAMPLE, tmp_path / "many_nodes", ignore=shutil.ignore_patterns("target", "__pycache__"))
    assert statuses(project, "--backend", backend) == {"success": NODES}
    assert statuses(project, "--backend", backend) == {"cached": NODES}
    assert statuses(project, "--backend", backend, nodes=NODES + 1) == {"cached": NODES, "success": 1}
