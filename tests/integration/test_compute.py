"""One node at a time: what its function is given and may return, and how DuckDB's errors are told."""

from __future__ import annotations

import textwrap
from datetime import UTC, datetime
from pathlib import Path

import pytest

from seeknal.errors import NodeFailedError
from seeknal.model.intervals import Interval
from seeknal.pipeline.load import load_project
from seeknal.pipeline.nodes import PYTHON
from seeknal.pipeline.python_nodes import code_stamp
from seeknal.runner.compute import Outcome, Task, compute
from seeknal.runner.outputs import Unit

DAY = Interval(datetime(2024, 1, 1, tzinfo=UTC), datetime(2024, 1, 2, tzinfo=UTC))


def computed(path: Path, name: str, text: str, unit: Unit | None = None) -> Outcome:
    (path / "seeknal").mkdir()
    (path / "seeknal_project.yml").write_text("name: one\n")
    (path / "seeknal" / name).write_text(textwrap.dedent(text))
    project = load_project(path)
    (node,) = project.nodes.values()
    stamp = code_stamp(path / node.file) if node.format == PYTHON else ""
    return compute(Task(node=node, project_path=path, run_id="run", facts={}, unit=unit, log="target/log", stamp=stamp))


def function(body: str, options: str = "") -> str:
    return f"from seeknal.pipeline import transform\n\n\n@transform({options})\ndef step(ctx):\n    {body}\n"


# ---- what a function is given ----

SCHEDULED, PARTITIONED = "schedule='@daily', start='2024-01-01'", "partitions=['ID']"
WITHOUT = {
    "an interval of a whole node": ("", None, "interval", "transform.step has no schedule", "schedule="),
    "a partition of a whole node": ("", None, "partition", "transform.step has no partitions", "partitions="),
    "an interval of a partition": (PARTITIONED, "ID", "interval", "transform.step has no schedule", "schedule="),
    "a partition of an interval": (SCHEDULED, DAY, "partition", "transform.step has no partitions", "partitions="),
}


@pytest.mark.parametrize(("options", "unit", "name", "message", "hint"), WITHOUT.values(), ids=WITHOUT)
def test_a_function_that_asks_for_a_range_that_its_node_does_not_have_is_told_so(
    tmp_path, options, unit, name, message, hint
):
    with pytest.raises(NodeFailedError) as raised:
        computed(tmp_path, "step.py", function(f"return [{{'x': str(ctx.{name})}}]", options), unit)
    assert str(raised.value) == f"{message}, so there is no ctx.{name}"
    assert hint in raised.value.hint


@pytest.mark.parametrize(
    ("options", "unit", "condition"),
    [(SCHEDULED, DAY, "ctx.interval.end.day == 2"), (PARTITIONED, "ID", "ctx.partition == 'ID'")],
    ids=["schedule", "partitions"],
)
def test_a_function_is_given_the_range_of_its_node(tmp_path, options, unit, condition):
    assert (
        computed(tmp_path, "step.py", function(f"return [{{}}][{condition}:] or [{{'x': 1}}]", options), unit).rows == 1
    )


# ---- what a function may return ----

RETURNED = {
    "a number": ("return 5", "int"),
    "a text": ("return 'rows'", "str"),
    "a dictionary": ("return {'x': [1]}", "dict"),
    "a generator": ("return (row for row in [{'x': 1}])", "generator"),
    "a coroutine": ("return (lambda: __import__('asyncio').sleep(0))()", "coroutine"),
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(("body", "kind"), RETURNED.values(), ids=RETURNED)
def test_what_a_function_may_return_is_named_where_it_returned_something_else(tmp_path, body, kind):
    with pytest.raises(NodeFailedError) as raised:
        computed(tmp_path, "step.py", function(body))
    assert str(raised.value) == (
        f"step returned a value of type {kind}; return a relation, a table or a list of dictionaries"
    )


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("kind", ["a generator", "a coroutine"])
def test_a_command_that_returned_what_it_was_to_do_has_failed(tmp_path, kind):
    body = RETURNED[kind][0]
    with pytest.raises(NodeFailedError) as raised:
        computed(tmp_path, "step.py", function(body).replace("transform", "command"))
    assert str(raised.value) == f"step returned {kind}, of which nothing has run"


def test_what_else_a_command_returns_does_not_matter(tmp_path):
    assert computed(tmp_path, "step.py", function("return 5").replace("transform", "command")) == Outcome()


# ---- how errors of DuckDB are told ----

QUERY = "kind: transform\nname: step\n{more}transform: |\n  {sql}\n"
OF_QUERIES = {
    "in its first line": ("", "SELECT * FORM x", None, "LINE 1: SELECT * FORM x\n                      ^"),
    "in its second line": ("", "SELECT\n    wrong\n  FROM (SELECT 1 AS x)", None, "LINE 2:   wrong\n          ^^^^^"),
    "in a query of a range": (
        "schedule: '@daily'\nstart: 2024-01-01\n",
        "SELECT *\n  FORM {{ start }}",
        DAY,
        "LINE 2: FORM 2024-01-01 00:00:00\n             ^",
    ),
    "in its tenth line": (
        "",
        "SELECT 1,\n" + "  2,\n" * 8 + "  wrong",
        None,
        "LINE 10: wrong\n         ^",
    ),
}


@pytest.mark.parametrize(("more", "sql", "unit", "quoted"), OF_QUERIES.values(), ids=OF_QUERIES)
def test_an_error_in_a_query_names_its_file_and_quotes_its_line_as_that_has_it(tmp_path, more, sql, unit, quoted):
    with pytest.raises(NodeFailedError) as raised:
        computed(tmp_path, "step.yml", QUERY.format(more=more, sql=sql), unit)
    assert str(raised.value).startswith("seeknal/step.yml: ")
    assert "CREATE TABLE" not in str(raised.value)
    assert quoted in str(raised.value)


def test_the_caret_stays_below_its_word_where_the_number_of_the_line_gets_shorter(tmp_path):
    sql = "SELECT 1,\n" + "  2,\n" * 7 + "  wrong"
    with pytest.raises(NodeFailedError) as raised:
        computed(tmp_path, "step.yml", QUERY.format(more="", sql=sql))
    *_, line, caret = str(raised.value).splitlines()
    assert line.startswith("LINE 9: ")
    assert caret.index("^") == line.index("wrong")


def test_an_error_in_the_query_of_a_function_is_quoted_as_it_is(tmp_path):
    body = "return ctx.duckdb.sql('SELECT 1 AS x').project('''\nwrong''')"
    with pytest.raises(NodeFailedError) as raised:
        computed(tmp_path, "step.py", function(body))
    assert 'column "wrong" not found' in str(raised.value)
