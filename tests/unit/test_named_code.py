"""What counts of the code of a project: what a function names, however far away, and nothing else."""

from __future__ import annotations

import sys
import textwrap
from pathlib import Path

import pytest

from seeknal.pipeline.fingerprint import changed_parts, own_parts
from seeknal.pipeline.load import load_project
from seeknal.pipeline.python_nodes import load_module

FILES = {
    "seeknal_project.yml": "name: shop\n",
    "seeknal/step.py": '''
        """Steps of the shop."""
        import math as arithmetic
        from math import floor as rounded

        import rates
        from cleaning import Cleaner, clean as cleaned
        from parts import joining
        from constants import *
        from seeknal.pipeline import transform

        OPTIONS = {"a": 1}
        OPTIONS.update(b=2)
        OPTIONS["c"] = 3
        UNUSED = 1
        register = print

        try:
            import turbo
        except ImportError:
            turbo = None

        def helper(x):
            """Help."""
            return inner(x) + arithmetic.pi + rounded(1.5)

        def inner(x):  # deep
            return x

        def other(x):
            return UNUSED

        @transform(description="why")
        def step(ctx):
            """Do it."""
            import lazily
            rows = [{"x": helper(1), "y": cleaned(2), "z": Cleaner().run(), "o": OPTIONS, "r": rates.EURO}]
            rows += [joining.join(rows), STAR, lazily.late(), turbo]
            return rows

        @transform
        def second(ctx):
            return [{"x": other(1)}]

        if __name__ == "__main__":
            OPTIONS = {}
        ''',
    "seeknal/cleaning.py": """
        from deeper import LIMIT

        class Base:
            size = 1

        class Cleaner(Base):
            def run(self):
                return LIMIT

        def clean(x):
            return x

        def unnamed(x):
            return x
        """,
    "seeknal/deeper.py": "LIMIT = 1\nFREE = 1\n",
    "seeknal/rates.py": "EURO = 1\nDOLLAR = 1\n",
    "seeknal/lazily.py": "def late():\n    return 1\n",
    "seeknal/constants.py": "STAR = 1\nMOON = 1\n",
    "shared/parts/__init__.py": "",
    "shared/parts/joining.py": "from .inside import glue\n\ndef join(rows):\n    return glue(rows)\n",
    "shared/parts/inside.py": "def glue(rows):\n    return rows\n",
}

STEP = "seeknal/step.py"
CLEANING = "seeknal/cleaning.py"
NOTHING: list[str] = []

EDITS = {
    "the function": (STEP, 'helper(1), "y"', 'helper(2), "y"', ["function"]),
    "a helper": (STEP, "inner(x) + arithmetic", "inner(x) - arithmetic", [f"code:{STEP}:helper"]),
    "a helper of a helper": (STEP, "return x\n\n", "return -x\n\n", [f"code:{STEP}:inner"]),
    "a constant": (STEP, '{"a": 1}', '{"a": 2}', [f"code:{STEP}:OPTIONS"]),
    "what is put into a constant": (STEP, 'OPTIONS["c"] = 3', 'OPTIONS["c"] = 4', [f"code:{STEP}:OPTIONS"]),
    "a call that changes a constant": (STEP, "update(b=2)", "update(b=3)", [f"code:{STEP}:OPTIONS"]),
    "what an import falls back to": (STEP, "turbo = None", "turbo = 0", [f"code:{STEP}:turbo"]),
    "what a name of a library means": (STEP, "floor as rounded", "ceil as rounded", [f"code:{STEP}:import rounded"]),
    "a library by another name": (STEP, "import math as", "import cmath as", [f"code:{STEP}:import arithmetic"]),
    "an imported function": (
        CLEANING,
        "clean(x):\n    return x",
        "clean(x):\n    return 0",
        [f"code:{CLEANING}:clean"],
    ),
    "an imported class": (CLEANING, "return LIMIT", "return LIMIT + 1", [f"code:{CLEANING}:Cleaner"]),
    "the base of an imported class": (CLEANING, "size = 1", "size = 2", [f"code:{CLEANING}:Base"]),
    "a constant two modules away": ("seeknal/deeper.py", "LIMIT = 1", "LIMIT = 2", ["code:seeknal/deeper.py:LIMIT"]),
    "an attribute of a module": ("seeknal/rates.py", "EURO = 1", "EURO = 2", ["code:seeknal/rates.py:EURO"]),
    "a module of a package": (
        "shared/parts/joining.py",
        "glue(rows)",
        "glue(0)",
        ["code:shared/parts/joining.py:join"],
    ),
    "a relative import": ("shared/parts/inside.py", "return rows", "return 0", ["code:shared/parts/inside.py:glue"]),
    "an import with a star": ("seeknal/constants.py", "STAR = 1", "STAR = 2", ["code:seeknal/constants.py:STAR"]),
    "an import in a function": ("seeknal/lazily.py", "return 1", "return 2", ["code:seeknal/lazily.py:late"]),
    "comments": (STEP, "# deep", "# deeper", NOTHING),
    "layout": (STEP, "inner(x) + arithmetic.pi", "(inner( x )\n        + arithmetic.pi)", NOTHING),
    "a docstring": (STEP, '"""Do it."""', '"""Do it well."""', NOTHING),
    "a docstring of a helper": (STEP, '"""Help."""', "", NOTHING),
    "a docstring of the file": (STEP, '"""Steps of the shop."""', "", NOTHING),
    "a description": (STEP, 'description="why"', 'description="because", tags=["x"]', NOTHING),
    "a constant that it does not name": (STEP, "UNUSED = 1", "UNUSED = 2", NOTHING),
    "another node": (STEP, "other(1)", "other(2)", NOTHING),
    "what only another node names": (STEP, "return UNUSED", "return 0", NOTHING),
    "what is done where the file is a program": (STEP, "OPTIONS = {}", "OPTIONS = {1: 1}", NOTHING),
    "a function of a module that it does not name": (CLEANING, "unnamed(x)", "unnamed(y)", NOTHING),
    "a constant of a module that it does not name": ("seeknal/rates.py", "DOLLAR = 1", "DOLLAR = 2", NOTHING),
    "a new function": ("seeknal/deeper.py", "FREE = 1", "FREE = 1\ndef new(): pass", NOTHING),
    "a new module": ("seeknal/deeper.py", "FREE = 1", "import rates", NOTHING),
}


@pytest.fixture
def project_path(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path / "shared"))
    yield write(tmp_path, FILES)
    for name in [name for name in sys.modules if name.partition(".")[0] == "parts"]:
        del sys.modules[name]


def write(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(textwrap.dedent(text), encoding="utf-8")
    return folder


def parts(project_path: Path, node_id: str = "transform.step") -> dict[str, str]:
    return own_parts(load_project(project_path).nodes[node_id], project_path).short


@pytest.mark.parametrize(("file", "old", "new", "expected"), EDITS.values(), ids=EDITS)
def test_an_edit_changes_the_part_that_it_was_made_in_and_only_if_the_function_names_it(
    project_path, file, old, new, expected
):
    before = parts(project_path)
    text = (project_path / file).read_text()
    assert text.count(old) == 1
    (project_path / file).write_text(text.replace(old, new))
    assert changed_parts(before, parts(project_path)) == expected


def small(tmp_path: Path, body: str, **modules: str) -> Path:
    """Return a project of one function with this body, and of these modules."""
    head = "from seeknal.pipeline import transform\n"
    files = {f"seeknal/{name}.py": text for name, text in modules.items()}
    step = head + textwrap.dedent(body)
    return write(tmp_path, {"seeknal_project.yml": "name: p\n", "seeknal/step.py": step} | files)


WHOLE = {
    "a module that is handed on": "import lib\n@transform\ndef step(ctx):\n    return [vars(lib)]\n",
    "a module whose attribute is computed": "import lib\n@transform\ndef step(ctx):\n    return [getattr(lib, 'a')]\n",
    "an attribute that is not there yet": "import lib\n@transform\ndef step(ctx):\n    return [lib.made_later]\n",
}


@pytest.mark.parametrize("body", WHOLE.values(), ids=WHOLE)
def test_where_anything_of_a_module_may_be_meant_all_of_it_counts(tmp_path, body):
    before = parts(small(tmp_path, body, lib="a = 1\n"))
    assert changed_parts(before, parts(small(tmp_path, body, lib="a = 2\n"))) == ["code:seeknal/lib.py"]


@pytest.mark.parametrize("call", ["globals()['A']", "eval('A')", "exec('A')"])
def test_where_code_is_looked_up_by_its_text_all_of_the_file_counts(tmp_path, call):
    body = f"A = 1\n@transform\ndef step(ctx):\n    return [{call}]\n"
    before = parts(small(tmp_path, body))
    changed = changed_parts(before, parts(small(tmp_path, body.replace("A = 1", "A = 2"))))
    assert changed == ["code:seeknal/step.py"]


def test_where_a_function_is_not_to_be_found_by_reading_all_of_its_file_counts(tmp_path):
    body = "def make(n):\n    def step(ctx):\n        return [n]\n    return transform(step)\n"
    body += "globals()['step'] = make({})\n"
    before = parts(small(tmp_path, body.format(1)))
    assert changed_parts(before, parts(small(tmp_path, body.format(2))))


def test_functions_that_name_each_other_in_a_circle_are_followed_once(tmp_path):
    body = "def a():\n    return b()\ndef b():\n    return a()\n@transform\ndef step(ctx):\n    return [a, step]\n"
    assert sorted(parts(small(tmp_path, body))) == [
        "code:seeknal/step.py:a",
        "code:seeknal/step.py:b",
        "config",
        "function",
    ]


def test_modules_that_import_each_other_in_a_circle_are_followed_once(tmp_path):
    body = "import one\n@transform\ndef step(ctx):\n    return [one.a()]\n"
    one = "import two\ndef a():\n    return two.b\n"
    two = "import one\ndef b():\n    return one.a\n"
    assert {"code:seeknal/one.py:a", "code:seeknal/two.py:b"} < set(parts(small(tmp_path, body, one=one, two=two)))


def test_packages_without_a_file_of_their_own_are_followed(tmp_path):
    body = "import folder.lib\n@transform\ndef step(ctx):\n    return [folder.lib.a]\n"
    small(tmp_path, body)
    write(tmp_path, {"seeknal/folder/lib.py": "a = 1\n"})
    before = parts(tmp_path)
    write(tmp_path, {"seeknal/folder/lib.py": "a = 2\n"})
    assert changed_parts(before, parts(tmp_path)) == ["code:seeknal/folder/lib.py:a"]


def test_packages_that_are_installed_in_the_project_do_not_count(tmp_path, monkeypatch):
    body = "import lib\n@transform\ndef step(ctx):\n    return [lib.a]\n"
    small(tmp_path, body)
    installed = ".venv/lib/python3/site-packages"
    write(tmp_path, {f"{installed}/lib.py": "a = 1\n"})
    monkeypatch.syspath_prepend(str(tmp_path / installed))
    before = parts(tmp_path)
    write(tmp_path, {f"{installed}/lib.py": "a = 2\n"})
    assert changed_parts(before, parts(tmp_path)) == []
    sys.modules.pop("lib")


def test_modules_elsewhere_in_the_project_count_if_python_finds_them(tmp_path, monkeypatch):
    body = "import lib\n@transform\ndef step(ctx):\n    return [lib.a]\n"
    small(tmp_path, body)
    write(tmp_path, {"shared/lib.py": "a = 1\n"})
    monkeypatch.syspath_prepend(str(tmp_path / "shared"))
    before = parts(tmp_path)
    write(tmp_path, {"shared/lib.py": "a = 2\n"})
    assert changed_parts(before, parts(tmp_path)) == ["code:shared/lib.py:a"]
    sys.modules.pop("lib")


def test_a_deep_expression_and_a_huge_number_can_be_told_apart_from_others(tmp_path):
    body = "A = {}\n@transform\ndef step(ctx):\n    return [A]\n"
    deep = " + ".join(["x"] * 500)
    found = {tuple(parts(small(tmp_path, body.format(f"lambda x: {end}"))).values()) for end in (deep, f"{deep} + x")}
    found |= {
        tuple(parts(small(tmp_path, body.format(number))).values()) for number in ("0x1" + "0" * 9000, "1", "'1'")
    }
    assert len(found) == 5


# ---- what is run is what was read ----


def test_a_module_that_was_edited_is_imported_as_it_is_now(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    body = "import outer\n@transform\ndef step(ctx):\n    return [outer.lib.a]\n"
    for number in (1, 2, 3):  # the same size, within the same second
        small(tmp_path, body, outer="import lib\n", lib=f"a = {number}\n")
        assert load_module(tmp_path / "seeknal/step.py").step(None) == [number]
    assert not list(tmp_path.rglob("__pycache__"))


def test_modules_of_one_name_in_two_folders_are_two_modules(tmp_path):
    for name in ("a", "b"):
        write(tmp_path, {f"{name}/step.py": "import lib\nvalue = lib.value\n", f"{name}/lib.py": f"value = {name!r}\n"})
    found = [load_module(tmp_path / name / "step.py").value for name in ("a", "b", "a")]
    assert found == ["a", "b", "a"]


def test_a_module_is_run_once_for_all_files_that_import_it_unchanged(tmp_path):
    write(tmp_path, {"a.py": "import lib\nseen = lib.seen\n", "b.py": "import lib\nseen = lib.seen\n"})
    write(tmp_path, {"lib.py": "seen = object()\n"})
    assert load_module(tmp_path / "a.py").seen is load_module(tmp_path / "b.py").seen
