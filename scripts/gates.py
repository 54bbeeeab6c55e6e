"""The gates on the shape of the tree that no other tool has; run by `make lint` and before a commit.

- no source file over 400 lines;
- no module named for what it is not: ``utils``, ``helpers``, ``common``, ``manager``;
- a changelog fragment is named ``<what>.<kind>.md`` and is not empty;
- every requirement is pinned exactly, and no file names a place to download from;
- every package is a whole one: it has an ``__init__.py``.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MOST_LINES = 400
VAGUE = {"utils", "util", "helpers", "helper", "common", "manager"}
KINDS = ("added", "changed", "fixed", "removed", "security")
PIN = re.compile(r"[A-Za-z0-9._-]+==[A-Za-z0-9.+!]+( *;.*)?")


def problems(root: Path) -> Iterator[str]:
    """Yield one line for each thing that a gate refuses."""
    yield from source_problems(root / "src")
    yield from fragment_problems(root / "changelog.d")
    yield from pin_problems(root / "constraints.txt")


def source_problems(source: Path) -> Iterator[str]:
    """Yield what is wrong with the names and sizes of modules."""
    for path in sorted(source.rglob("*.py")):
        count = len(path.read_text(encoding="utf-8").splitlines())
        if count > MOST_LINES:
            yield f"{path}: {count} lines; {MOST_LINES} at most. A file that needs 'and' to describe is two files."
        if path.stem in VAGUE or path.parent.name in VAGUE:
            yield f"{path}: name it for what it does."
        if not (path.parent / "__init__.py").exists() and "migrations" not in path.parts:
            yield f"{path}: its directory has no __init__.py."


def fragment_problems(directory: Path) -> Iterator[str]:
    """Yield what is wrong with the changelog fragments."""
    for path in sorted(directory.iterdir()):
        if path.name in {".gitignore", "README.md"}:
            continue
        parts = path.name.split(".")
        if len(parts) < 3 or parts[-1] != "md" or parts[-2] not in KINDS:
            yield f"{path}: name it <what>.<kind>.md; the kinds are {', '.join(KINDS)}."
        elif not path.read_text(encoding="utf-8").strip():
            yield f"{path}: it is empty."


def pin_problems(constraints: Path) -> Iterator[str]:
    """Yield what is not an exact version."""
    for number, line in enumerate(constraints.read_text(encoding="utf-8").splitlines(), 1):
        text = line.strip()
        if text and not text.startswith("#") and not PIN.fullmatch(text):
            yield f"{constraints}:{number}: {text!r} is not name==version."


def main() -> int:
    """Print what is refused; return 1 if anything is."""
    found = list(problems(ROOT))
    for line in found:
        print(line.replace(f"{ROOT}/", ""), file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
