"""The definition of a project: what is read, what is refused and how it is said, what a node is made of."""

from __future__ import annotations

import re
import textwrap
from datetime import UTC, datetime
from pathlib import Path

import pytest

from seeknal.errors import ConfigurationError, CycleError, GraphError, NodeFailedError
from seeknal.model.schedule import as_schedule
from seeknal.pipeline.fingerprint import fingerprint
from seeknal.pipeline.load import load_project
from seeknal.pipeline.nodes import PYTHON, Project

SOURCE = {"seeknal/sales.yml": "kind: source\nname: sales\nsource: csv\ntable: data/sales.csv\n"}
TOTALS = {
    "seeknal/totals.yml": """
        kind: transform
        name: totals
        transform: SELECT shop, 'a  b' AS note FROM ref('source.sales')
        """
}
DATA = {"data/sales.csv": "shop,amount\nnorth,1\n"}


NODE = {"kind": "transform", "name": "n", "transform": "SELECT 1 AS x"}
COMMAND = {"kind": "command", "name": "n", "command": "'true'"}
DAILY = {"schedule": "'@daily'", "start": "2024-01-01"}


@pytest.fixture
def project_path(tmp_path):
    return write(tmp_path, {"seeknal_project.yml": "name: shop\n"})


def write(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(textwrap.dedent(text), encoding="utf-8")
    return folder


def fingerprints(project: Project) -> dict[str, str]:
    found: dict[str, str] = {}
    for node_id, node in project.nodes.items():
        found[node_id] = fingerprint(node, project.path, found)
    return found


def yaml(**keys: str) -> str:
    return "".join(f"{key}: {value}\n" for key, value in keys.items())


# ---- reading ----


def test_nodes_of_both_kinds_of_file_are_read_inputs_first(project_path):
    files = {
        "seeknal/a/last.yaml": "kind: command\nname: publish\ncommand: 'true'\ninputs: [{ref: transform.by_shop}]\n",
        "seeknal/b/python.py": """
            from seeknal.pipeline import transform

            @transform
            def by_shop(ctx):
                return ctx.ref("transform.totals")
            """,
        "seeknal/readme.txt": "not a node",
    }
    project = load_project(write(project_path, SOURCE | TOTALS | files))
    assert (project.name, project.path) == ("shop", project_path)
    assert list(project.nodes) == ["source.sales", "transform.totals", "transform.by_shop", "command.publish"]
    assert project.nodes["source.sales"].format == "csv"
    assert project.nodes["source.sales"].file == "seeknal/sales.yml"
    assert project.nodes["transform.totals"].inputs == ("source.sales",)
    assert project.nodes["command.publish"].inputs == ("transform.by_shop",)


def test_a_project_without_a_name_is_called_like_its_directory(tmp_path):
    write(tmp_path, SOURCE | {"seeknal_project.yml": "version: 1.0.0\n"})
    assert load_project(tmp_path).name == tmp_path.name


def test_everything_that_describes_a_node_is_read(project_path):
    text = """
        kind: transform
        name: daily
        description: What was sold.
        tags: [a, b]
        schedule: "@daily"
        timezone: Europe/Berlin
        start: 2024-01-01
        end: 2024-02-01T00:00:00+01:00
        inputs:
          - ref: source.sales
          - ref: source.sales
        transform: SELECT '{{ start }}' AS x FROM ref('source.sales') -- not from ref('source.nothing')
        """
    node = load_project(write(project_path, SOURCE | {"seeknal/daily.yml": text})).nodes["transform.daily"]
    assert (node.description, node.tags, node.inputs) == ("What was sold.", ("a", "b"), ("source.sales",))
    assert (node.schedule, node.timezone) == ("@daily", "Europe/Berlin")
    assert (node.start, node.end) == (
        datetime(2023, 12, 31, 23, tzinfo=UTC),
        datetime(2024, 1, 31, 23, tzinfo=UTC),
    )


STARTS = {
    "a date in the east": ("2024-01-01", "Asia/Jakarta", datetime(2023, 12, 31, 17, tzinfo=UTC)),
    "a date in the west": ("2024-01-01", "America/New_York", datetime(2024, 1, 1, 5, tzinfo=UTC)),
    "a date without a time zone": ("2024-01-01", None, datetime(2024, 1, 1, tzinfo=UTC)),
    "a time that YAML knows": ("2024-07-01 12:30:00", "Europe/Berlin", datetime(2024, 7, 1, 10, 30, tzinfo=UTC)),
    "a time that YAML takes for text": ("2024-07-01T12:30", "Europe/Berlin", datetime(2024, 7, 1, 10, 30, tzinfo=UTC)),
    "a time with an offset": ("2024-01-01T00:00:00+01:00", "Asia/Jakarta", datetime(2023, 12, 31, 23, tzinfo=UTC)),
    "an offset that YAML takes for text": ("2024-01-01T00:00Z", "Asia/Jakarta", datetime(2024, 1, 1, tzinfo=UTC)),
    "a time that clocks skip": ("2024-03-31T02:30", "Europe/Berlin", datetime(2024, 3, 31, 1, tzinfo=UTC)),
    "a midnight that clocks skip": ("2018-11-04", "America/Sao_Paulo", datetime(2018, 11, 4, 3, tzinfo=UTC)),
    "a time that clocks show twice": ("2024-10-27T02:30", "Europe/Berlin", datetime(2024, 10, 27, 0, 30, tzinfo=UTC)),
}


@pytest.mark.parametrize(("start", "timezone", "instant"), STARTS.values(), ids=STARTS)
def test_a_start_is_what_the_clocks_of_the_node_show_unless_it_has_an_offset(project_path, start, timezone, instant):
    zone = {"timezone": timezone} if timezone else {}
    keys = yaml(kind="command", name="n", command="'true'", schedule="'@daily'", start=start, **zone)
    options = {"schedule": "@daily", "start": start, **zone}
    code = f"from seeknal.pipeline import command\n\n@command(**{options!r})\ndef p(ctx):\n    pass\n"
    nodes = load_project(write(project_path, {"seeknal/n.yml": keys, "seeknal/p.py": code})).nodes
    assert (nodes["command.n"].start, nodes["command.p"].start) == (instant, instant)


def test_the_first_day_of_a_daily_node_is_that_of_its_time_zone(project_path):
    keys = yaml(kind="command", name="n", command="'true'", schedule="'@daily'", start="2024-01-01", end="2024-01-03")
    write(project_path, {"seeknal/n.yml": f"{keys}timezone: Asia/Jakarta\n"})
    node = load_project(project_path).nodes["command.n"]
    first, second = as_schedule(node.schedule, node.timezone).ticks(node.start, node.end)
    assert (first.start, second.end) == (
        datetime(2023, 12, 31, 17, tzinfo=UTC),
        datetime(2024, 1, 2, 17, tzinfo=UTC),
    )


def test_python_nodes_are_marked_with_and_without_parentheses(project_path):
    text = """
        from seeknal.pipeline import source, transform

        @source
        def raw(ctx):
            return [{"x": 1}]

        @transform(name="renamed", inputs=["source.sales"], description="why", tags=["t"])
        def step(ctx):
            ctx.ref("source.raw")
            return ctx.ref("source.raw")

        @transform()
        def plain(ctx):
            name = "source.nowhere"
            return ctx.ref(name)

        def not_a_node(ctx):
            return ctx.ref("source.nowhere")
        """
    nodes = load_project(write(project_path, SOURCE | {"seeknal/steps.py": text})).nodes
    assert sorted(nodes) == ["source.raw", "source.sales", "transform.plain", "transform.renamed"]
    renamed = nodes["transform.renamed"]
    assert (renamed.function, renamed.format, renamed.file) == ("step", PYTHON, "seeknal/steps.py")
    assert renamed.inputs == ("source.sales", "source.raw")
    assert (renamed.description, renamed.tags) == ("why", ("t",))
    assert nodes["transform.plain"].inputs == ()


def test_a_node_that_is_imported_belongs_to_the_file_that_defines_it(project_path):
    define = "from seeknal.pipeline import source\n\n@source\ndef raw(ctx):\n    return [{'x': 1}]\n"
    files = {"seeknal/define_raw.py": define, "seeknal/use_raw.py": "from define_raw import raw\n"}
    nodes = load_project(write(project_path, files)).nodes
    assert [node.file for node in nodes.values()] == ["seeknal/define_raw.py"]


FILLED = {
    "a query that names its end alone": {**NODE, "transform": "\"SELECT TIMESTAMP '{{end}}' AS x\"", **DAILY},
    "a query that names its partition": {
        **NODE,
        "transform": "\"SELECT '{{ partition }}' AS x\"",
        "partitions": "[ID]",
    },
    "an unknown name in a comment of a query": {**NODE, "transform": '"SELECT 1 AS x -- {{ what }}"'},
    "a command that has its range in the environment": {**COMMAND, **DAILY},
    "a command that names its range": {**COMMAND, "command": "'echo {{ start }}'", **DAILY},
    "a command with what looks like a template of another program": {
        **COMMAND,
        "command": "'docker ps --format \"{{.Names}} {{json .}}\"'",
    },
}


@pytest.mark.parametrize("keys", FILLED.values(), ids=FILLED)
def test_what_can_be_filled_in_is_taken(project_path, keys):
    assert len(load_project(write(project_path, {"seeknal/n.yml": yaml(**keys)})).nodes) == 1


# ---- refusing ----

PYTHON_NODE = "from seeknal.pipeline import transform\n\n@transform({})\ndef step(ctx):\n    return None\n"

REFUSED = {
    "an unknown key": (yaml(**NODE, descripton="x"), "descripton", "Did you mean description?"),
    "a key of another kind": (yaml(**NODE, table="x"), "table", "Known: kind, name"),
    "a missing kind": (yaml(name="n", transform="SELECT 1"), "kind", "Known: source, transform, command."),
    "a misspelt kind": (yaml(**NODE | {"kind": "tranform"}), "kind is 'tranform'", "Did you mean transform?"),
    "a missing name": (yaml(kind="transform", transform="SELECT 1"), "name", "Add `name: ...`."),
    "a name that is a number": (yaml(**NODE | {"name": "5"}), "name", "Add `name: ...`."),
    "a name that no store holds": (yaml(**NODE | {"name": '"a\\nb"'}), "name", "control characters"),
    "a name that is too long with its kind": (yaml(**NODE | {"name": "n" * 185}), "name", "190"),
    "a missing query": (yaml(kind="transform", name="n"), "transform", "Add `transform: ...`."),
    "a missing table": (yaml(kind="source", name="n", source="csv"), "table", "Add `table: ...`."),
    "an empty command": (yaml(kind="command", name="n", command="' '"), "command", "Add `command: ...`."),
    "an unknown format": (
        yaml(kind="source", name="n", table="t", source="parket"),
        "source is 'parket'",
        "Did you mean parquet?",
    ),
    "a missing format": (yaml(kind="source", name="n", table="t"), "source is None", "Known: csv, json, jsonl"),
    "inputs that are text": (yaml(**NODE, inputs="source.a"), "inputs", "- ref: kind.name"),
    "inputs without ref": (yaml(**NODE, inputs="[source.a]"), "inputs", "- ref: kind.name"),
    "inputs with more than ref": (yaml(**NODE, inputs="[{ref: source.a, as: a}]"), "inputs", "- ref: kind.name"),
    "tags that are text": (yaml(**NODE, tags="daily"), "tags", "tags: [...]"),
    "tags that are a number": (yaml(**NODE, tags="5"), "tags", "tags: [...]"),
    "a schedule without start": (yaml(**NODE, schedule="'@daily'"), "start", "Add `start: 2024-01-01`."),
    "a schedule that is no cron": (
        yaml(**NODE, schedule="daily", start="2024-01-01"),
        "schedule 'daily'",
        "0 6 * * *",
    ),
    "a schedule of impossible fields": (yaml(**NODE, schedule="'99 * * * *'", start="2024-01-01"), "schedule", "five"),
    "an unknown time zone": (
        yaml(**NODE, schedule="'@daily'", start="2024-01-01", timezone="Europe/Berln"),
        "time zone 'Europe/Berln'",
        "Europe/Berlin",
    ),
    "a start that is no date": (yaml(**NODE, schedule="'@daily'", start="soon"), "start 'soon'", "2024-01-10"),
    "a start that no clock of its zone can show": (
        yaml(**NODE, schedule="'@daily'", start="0001-01-01", timezone="Asia/Jakarta"),
        "start '0001-01-01' lies outside the years 1 to 9999",
        "within them",
    ),
    "an end at the start": (
        yaml(**NODE, schedule="'@daily'", start="2024-01-02", end="2024-01-02"),
        "`end: 2024-01-02` is not after `start: 2024-01-02`",
        "the day after",
    ),
    "an end that comes before the start on the clocks of its zone": (
        yaml(**NODE, schedule="'@hourly'", start="2024-01-02", end="2024-01-02T00:30+02:00", timezone="Europe/Berlin"),
        "`end: 2024-01-02T00:30+02:00` is not after `start: 2024-01-02`",
        "the day after",
    ),
    "an impossible date": (yaml(**NODE, schedule="'@daily'", start="2024-13-45"), "month", "YAML"),
    "a scheduled query of all rows": (yaml(**NODE, **DAILY), "neither `{{ start }}` nor `{{ end }}`", "'{{ start }}'"),
    "a scheduled query that names its range in a comment": (
        yaml(**NODE | {"transform": '"SELECT 1 AS x -- {{ start }}"'}, **DAILY),
        "neither `{{ start }}` nor `{{ end }}`",
        "moment < '{{ end }}'",
    ),
    "a query of all rows for each partition": (
        yaml(**NODE, partitions="[ID]"),
        "does not name `{{ partition }}`",
        "'{{ partition }}'",
    ),
    "a misspelt name to fill in": (
        yaml(**NODE | {"transform": "\"SELECT '{{ strat }}'\""}, **DAILY),
        "`{{ strat }}`",
        "Did you mean {{ start }}? Known: {{ start }}, {{ end }}, {{ partition }}.",
    ),
    "a misspelt name in a command": (yaml(**COMMAND | {"command": "'echo {{key}}'"}), "`{{ key }}`", "Known:"),
    "an instant without a schedule": (
        yaml(**NODE | {"transform": "\"SELECT '{{ start }}'\""}),
        "`{{ start }}` means nothing without `schedule`",
        "Add `schedule`",
    ),
    "an instant of a partition": (
        yaml(**COMMAND | {"command": "'echo {{ end }}'"}, partitions="[ID]"),
        "`{{ end }}` means nothing without `schedule`",
        "leave it out",
    ),
    "a partition of a schedule": (
        yaml(**NODE | {"transform": "\"SELECT '{{ partition }}', '{{ start }}'\""}, **DAILY),
        "`{{ partition }}` means nothing without `partitions`",
        "Add `partitions`",
    ),
    "YAML that is broken": ("kind: [transform\n", "cannot be read", "YAML"),
    "a key twice": (
        "kind: transform\nname: n\n# a comment\nname: m\n",
        "bad.yml: key `name` is there twice, line 4",
        "Remove one of them.",
    ),
    "a key twice within another": (
        "kind: command\nname: n\ncommand: 'true'\ninputs:\n  - ref: a\n    ref: b\n",
        "bad.yml: key `ref` is there twice, line 6",
        "Remove one of them.",
    ),
    "a list": ("- kind: transform\n", "holds no keys", "key: value"),
    "an empty file": ("", "holds no keys", "key: value"),
}

REFUSED_PYTHON = {
    "a file that raises": (
        "def halve(x):\n    return x / 0\n\nhalf = halve(1)\n",
        "bad.py, line 2: ZeroDivisionError: division by zero",
        "run to find its nodes",
    ),
    "a file that is not Python": (
        "\ndef step(:\n",
        "bad.py, line 2: SyntaxError: invalid syntax",
        "run to find its nodes",
    ),
    "a file that raises in the library": (
        "import json\n\nvalue = json.loads('')\n",
        "bad.py, line 3: JSONDecodeError: Expecting value",
        "run to find its nodes",
    ),
    "a file that ends the program": ("raise SystemExit(3)\n", "bad.py, line 1: SystemExit: 3", "run to find its nodes"),
    "a file with a zero byte": ("x = 1\0\n", "bad.py cannot be run: SyntaxError: source code", "run to find its nodes"),
    "a function that takes nothing": (
        PYTHON_NODE.replace("(ctx)", "()").format(""),
        "step() cannot be called with `ctx` alone: too many positional arguments",
        "Write `def step(ctx):`",
    ),
    "a function that takes more": (
        PYTHON_NODE.replace("(ctx)", "(ctx, day)").format(""),
        "step(ctx, day) cannot be called with `ctx` alone: missing a required argument: 'day'",
        "needs a default",
    ),
    "a function that takes a name only": (
        PYTHON_NODE.replace("(ctx)", "(*, ctx)").format(""),
        "step(*, ctx) cannot be called",
        "Write `def step(ctx):`",
    ),
    "a coroutine function": (
        PYTHON_NODE.replace("def step", "async def step").format(""),
        "step is a coroutine function",
        "without `async`",
    ),
    "a generator function": (
        PYTHON_NODE.replace("return None", "yield None").format(""),
        "step is a generator function",
        "with `return`",
    ),
    "an asynchronous generator function": (
        PYTHON_NODE.replace("def step", "async def step").replace("return None", "yield None").format(""),
        "step is a generator function",
        "with `return`",
    ),
    "an unknown option": (PYTHON_NODE.format("input=['source.a']"), "'input'", "Did you mean inputs?"),
    "inputs that are text": (PYTHON_NODE.format("inputs='source.a'"), "inputs", 'inputs=["..."]'),
    "inputs that are a number": (PYTHON_NODE.format("inputs=5"), "inputs", 'inputs=["..."]'),
    "an input that is a number": (PYTHON_NODE.format("inputs=[5]"), "inputs", 'inputs=["..."]'),
    "tags that are text": (PYTHON_NODE.format("tags='daily'"), "tags", 'tags=["..."]'),
    "a name that no store holds": (PYTHON_NODE.format("name='a\\nb'"), "name", "control characters"),
    "a name that is too long with its kind": (PYTHON_NODE.format("name='n' * 185"), "name", "190"),
}


@pytest.mark.parametrize(("text", "names", "hint"), REFUSED.values(), ids=REFUSED)
def test_a_file_that_cannot_be_used_is_named_with_its_key_and_the_remedy(project_path, text, names, hint):
    write(project_path, {"seeknal/bad.yml": text})
    with pytest.raises(ConfigurationError) as raised:
        load_project(project_path)
    assert "bad.yml" in str(raised.value)
    assert "ruamel" not in str(raised.value)
    assert names in str(raised.value)
    assert hint in raised.value.hint


@pytest.mark.parametrize(("text", "names", "hint"), REFUSED_PYTHON.values(), ids=REFUSED_PYTHON)
def test_a_python_file_that_cannot_be_used_is_named_with_its_option_and_the_remedy(project_path, text, names, hint):
    write(project_path, {"seeknal/bad.py": text})
    with pytest.raises(ConfigurationError) as raised:
        load_project(project_path)
    assert "bad.py" in str(raised.value)
    assert names in str(raised.value)
    assert hint in raised.value.hint


def test_an_error_in_what_a_file_imports_from_beside_itself_names_that_and_its_line(project_path):
    write(project_path, {"seeknal/bad.py": "import broken\n", "seeknal/broken.py": "\n\n1 / 0\n"})
    with pytest.raises(ConfigurationError) as raised:
        load_project(project_path)
    folder = project_path / "seeknal"
    assert str(raised.value) == (
        f"{folder / 'bad.py'} cannot be run: {folder / 'broken.py'}, line 3: ZeroDivisionError: division by zero"
    )


def test_a_function_that_a_decorator_gives_what_it_needs_is_a_node(project_path):
    text = """
        import functools

        from seeknal.pipeline import transform

        def with_factor(function):
            @functools.wraps(function)
            def wrapper(ctx):
                return function(ctx, 2)
            return wrapper

        @transform
        @with_factor
        def step(ctx, factor):
            return [{"x": factor}]

        @transform
        def other(ctx, *more, factor=3):
            return [{"x": factor}]
        """
    nodes = load_project(write(project_path, {"seeknal/steps.py": text})).nodes
    assert sorted(nodes) == ["transform.other", "transform.step"]


def test_a_file_that_is_not_utf_8_is_refused(project_path):
    (project_path / "seeknal").mkdir()
    (project_path / "seeknal/bad.yml").write_bytes(b"name: \xff\n")
    with pytest.raises(ConfigurationError, match=r"bad\.yml cannot be read"):
        load_project(project_path)


def test_an_input_that_does_not_exist_is_named_with_the_nearest(project_path):
    text = yaml(kind="transform", name="n", transform="SELECT * FROM ref('source.sale')")
    write(project_path, SOURCE | {"seeknal/bad.yml": text})
    with pytest.raises(GraphError, match=r"bad\.yml: transform\.n needs source\.sale, which does not exist") as raised:
        load_project(project_path)
    assert raised.value.hint == "Did you mean source.sales? Known: source.sales, transform.n."


def test_an_id_twice_is_refused_naming_both_files(project_path):
    again = {"seeknal/again.py": "from seeknal.pipeline import source\n\n@source\ndef sales(ctx):\n    return None\n"}
    write(project_path, SOURCE | again)
    with pytest.raises(GraphError, match=r"source\.sales is defined in seeknal/again\.py and in seeknal/sales\.yml"):
        load_project(project_path)


def test_the_same_name_of_another_kind_is_another_node(project_path):
    text = yaml(kind="transform", name="sales", transform="SELECT * FROM ref('source.sales')")
    project = load_project(write(project_path, SOURCE | {"seeknal/other.yml": text}))
    assert list(project.nodes) == ["source.sales", "transform.sales"]


def test_a_circle_is_refused_naming_its_path(project_path):
    for name, needs in (("a", "b"), ("b", "a")):
        text = yaml(kind="transform", name=name, transform=f"SELECT * FROM ref('transform.{needs}')")
        write(project_path, {f"seeknal/{name}.yml": text})
    with pytest.raises(CycleError) as raised:
        load_project(project_path)
    assert set(raised.value.path) == {"transform.a", "transform.b"}
    assert " -> " in str(raised.value)


def test_a_project_without_nodes_is_refused(project_path):
    with pytest.raises(ConfigurationError, match="holds no nodes"):
        load_project(project_path)


def test_a_directory_that_is_no_project_is_refused(tmp_path):
    with pytest.raises(ConfigurationError, match=r"seeknal_project\.yml cannot be read"):
        load_project(tmp_path)


def test_a_file_that_raises_leaves_nothing_of_itself_behind(project_path):
    import sys

    before, path = set(sys.modules), list(sys.path)
    write(project_path, {"seeknal/bad.py": "1 / 0\n"})
    with pytest.raises(ConfigurationError):
        load_project(project_path)
    assert (set(sys.modules) - before, sys.path) == (set(), path)


# ---- fingerprints ----

STEP = "seeknal/step.py"
BEFORE = (
    SOURCE
    | TOTALS
    | DATA
    | {
        STEP: """
            from seeknal.pipeline import transform

            FACTOR = 2

            @transform()
            def step(ctx):
                return ctx.ref("transform.totals").project(f"{FACTOR} AS x")
            """,
        "seeknal/other.yml": yaml(kind="command", name="other", command="'true'"),
    }
)
NEITHER: set[str] = set()
TOTALS_ON = {"transform.totals", "transform.step"}
EVERYTHING = {"source.sales", *TOTALS_ON}

CHANGES = {
    "a comment in SQL": ("seeknal/totals.yml", "'a  b' AS", "/* why */ 'a  b' AS", NEITHER),
    "blanks in SQL": ("seeknal/totals.yml", "SELECT shop", "SELECT   shop", NEITHER),
    "text in quotes in SQL": ("seeknal/totals.yml", "'a  b'", "'a b'", TOTALS_ON),
    "text in quotes that looks like a comment": ("seeknal/totals.yml", "'a  b'", "'a -- b'", TOTALS_ON),
    "the case of keywords in SQL": ("seeknal/totals.yml", "SELECT shop", "select shop", NEITHER),
    "the case of a column in SQL": ("seeknal/totals.yml", "AS note", "AS Note", TOTALS_ON),
    "the query": ("seeknal/totals.yml", "SELECT shop", "SELECT amount", TOTALS_ON),
    "a schedule": (
        "seeknal/other.yml",
        "name: other",
        "name: other\nschedule: '@daily'\nstart: 2024-01-01",
        {"command.other"},
    ),
    "a description": ("seeknal/totals.yml", "name: totals", "name: totals\ndescription: other", NEITHER),
    "tags": ("seeknal/totals.yml", "name: totals", "name: totals\ntags: [other]", NEITHER),
    "the content of a data file": ("data/sales.csv", "north,1", "north,2", EVERYTHING),
    "the format of a source": ("seeknal/sales.yml", "source: csv", "source: json", EVERYTHING),
    "a comment in Python": (STEP, "@transform", "# why\n@transform", NEITHER),
    "blanks in Python": (STEP, "FACTOR = 2", "FACTOR   =   2\n", NEITHER),
    "a description in Python": (STEP, "@transform()", '@transform(description="other", tags=["x"])', NEITHER),
    "what a function uses": (STEP, "FACTOR = 2", "FACTOR = 3", {"transform.step"}),
    "text in Python": (STEP, "AS x", "AS  x", {"transform.step"}),
    "a command": ("seeknal/other.yml", "true", "false", {"command.other"}),
    "an input of a command": ("seeknal/other.yml", "name:", "inputs: [{ref: source.sales}]\nname:", {"command.other"}),
}


@pytest.mark.parametrize(("file", "old", "new", "changed"), CHANGES.values(), ids=CHANGES)
def test_what_counts_changes_the_fingerprints_of_the_node_and_of_all_after_it(project_path, file, old, new, changed):
    before = fingerprints(load_project(write(project_path, BEFORE)))
    text = (project_path / file).read_text()
    assert old in text
    (project_path / file).write_text(text.replace(old, new))
    after = fingerprints(load_project(project_path))
    assert {node_id for node_id in before if before[node_id] != after[node_id]} == changed
    assert all(re.fullmatch("v2:[0-9a-f]{64}", found) for found in after.values())


def test_a_fingerprint_does_not_depend_on_where_the_project_is(project_path, tmp_path_factory):
    elsewhere = write(tmp_path_factory.mktemp("elsewhere"), BEFORE | {"seeknal_project.yml": "name: other\n"})
    here = fingerprints(load_project(write(project_path, BEFORE)))
    assert here == fingerprints(load_project(elsewhere))


def test_a_data_file_that_is_missing_fails_the_node_and_names_the_key(project_path):
    project = load_project(write(project_path, SOURCE))
    with pytest.raises(NodeFailedError, match=r"data/sales\.csv cannot be read") as raised:
        fingerprints(project)
    assert "`table` in seeknal/sales.yml" in raised.value.hint
