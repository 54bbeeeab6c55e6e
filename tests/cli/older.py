"""Stores of a project as the first program left them."""

from __future__ import annotations

import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

from tests.cli.test_migrate_previews import make_version_1

FORMAT_1 = Path(__file__).parents[1] / "integration" / "format_1"


def databases_of(folder: Path) -> list[Path]:
    return [*folder.glob("*.db"), *folder.glob("target/*.db")]


def make_older(folder: Path) -> None:
    """Let the databases, and the file store if there is one, have the first schema."""
    for path in databases_of(folder):
        make_version_1(path)
    if (folder / "target" / "run_state").exists():
        shutil.rmtree(folder / "target" / "run_state")
        shutil.copytree(FORMAT_1, folder / "target", dirs_exist_ok=True)


def schemas(folder: Path) -> list[int]:
    """Return the schema of each store."""
    found = []
    for path in databases_of(folder):
        with closing(sqlite3.connect(path)) as database:
            found += [row[0] for row in database.execute("SELECT schema_version FROM store")]
    return found + [json.loads(path.read_text())["format"] for path in folder.glob("target/run_state/store.json")]
