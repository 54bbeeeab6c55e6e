"""Every block of code in the README and the documentation runs, in the order of its page.

A page is one directory and one Python namespace. ``python`` blocks are executed, ``bash`` blocks run with this
environment's programs on PATH. Two comments before a block change that: ``<!-- file: PATH -->`` writes it to a file,
``<!-- not run: REASON -->`` leaves it out. A page with a comment ``<!-- server: KIND -->`` runs with variables that
lead to a place of its own on a real server: what the fixture of that name returns.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
MOST_NOT_RUN = 8

_BLOCK = re.compile(
    r"(?:<!-- (?P<what>file|not run): (?P<value>.+?) -->\n)?^```(?P<language>\w+)\n(?P<text>.*?)^```$", re.M | re.S
)


_SERVER = re.compile(r"^<!-- server: (\w+) -->$", re.M)


class Block(NamedTuple):
    language: str
    text: str
    line: int
    file: str | None
    not_run: str | None


def blocks(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    found = []
    for match in _BLOCK.finditer(text):
        line = text.count("\n", 0, match.start("text")) + 1
        what, value = match["what"], match["value"]
        found.append(
            Block(
                match["language"],
                match["text"],
                line,
                value if what == "file" else None,
                value if what == "not run" else None,
            )
        )
    return found


def is_run(block: Block) -> bool:
    return block.not_run is None and (block.language in {"python", "bash"} or block.file is not None)


def run_python(page: Path, block: Block, namespace: dict[str, object]) -> None:
    # The line numbers of a traceback are those of the page.
    code = compile("\n" * (block.line - 1) + block.text, str(page), "exec", dont_inherit=True)
    exec(code, namespace)


def run_bash(page: Path, block: Block, directory: Path) -> None:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {key: value for key, value in os.environ.items() if not key.startswith("SEEKNAL_TEST_")}
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", block.text],
        cwd=directory,
        env=environment | {"PATH": path, "PYTHONPATH": "", "NO_COLOR": "1", "COLUMNS": "120"},
        capture_output=True,
        text=True,
        timeout=50,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, f"{page.name}:{block.line} ended with {done.returncode}\n{done.stdout}\n{done.stderr}"


@pytest.fixture
def postgresql(shared_store) -> Iterator[dict[str, str]]:
    """A schema of its own, which is what the search path of the URL leads to."""
    store = shared_store("postgresql")
    store.run(f"CREATE SCHEMA {store.schema}")
    yield {"DATABASE_URL": f"{store.url}?options=-csearch_path%3D{store.schema}"}
    store.run("DROP SCHEMA IF EXISTS docs_orders CASCADE")  # the one that a page names


@pytest.fixture
def libsql(start_sqld, tmp_path_factory) -> dict[str, str]:
    """A server of its own that asks for a token, as Turso does."""
    import jwt
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    key = Ed25519PrivateKey.generate()
    public = tmp_path_factory.mktemp("jwt") / "public.pem"
    public.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    server = start_sqld(jwt_key_file=public)
    return {"TURSO_DATABASE_URL": server.url, "TURSO_AUTH_TOKEN": jwt.encode({"a": "rw"}, key, algorithm="EdDSA")}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_page(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    server = _SERVER.search(page.read_text(encoding="utf-8"))
    variables = request.getfixturevalue(server[1]) if server else {}
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    for name in list(os.environ):
        if name.startswith(("SEEKNAL_", "TURSO_")) and not name.startswith("SEEKNAL_TEST_"):
            monkeypatch.delenv(name)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    namespace: dict[str, object] = {"__name__": "__main__"}
    for block in blocks(page):
        if not is_run(block):
            continue
        if block.file is not None:
            target = tmp_path / block.file
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(block.text, encoding="utf-8")
        elif block.language == "python":
            run_python(page, block, namespace)
        else:
            run_bash(page, block, tmp_path)


def test_few_blocks_are_left_out() -> None:
    left_out = [
        f"{page.name}:{block.line}: {block.not_run}" for page in PAGES for block in blocks(page) if block.not_run
    ]
    assert len(left_out) <= MOST_NOT_RUN, "\n".join(left_out)


def test_every_block_names_its_language() -> None:
    for page in PAGES:
        fences = re.findall(r"^```(\w*)$", page.read_text(encoding="utf-8"), re.M)
        assert all(opening for opening in fences[::2]), f"{page.name} has a block without a language"
        assert not any(fences[1::2]), f"{page.name} has a block that is not closed"


def test_every_link_between_pages_leads_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_every_page_is_reached_from_the_index() -> None:
    index = ROOT / "docs" / "index.md"
    linked = {(index.parent / target).resolve() for target in re.findall(r"\]\(([^)#]+\.md)", index.read_text())}
    assert {page for page in PAGES if page.is_relative_to(ROOT / "docs")} - {index} <= linked
