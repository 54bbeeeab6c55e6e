"""The canonical form of SQL: what it takes for the same, and what it must not."""

from __future__ import annotations

import subprocess
import sys

import duckdb
import pytest

from seeknal.pipeline.sql import canonical_form

SAME = {
    "comments": ("SELECT a -- one\n/* two /* three */ */ FROM t", "SELECT a FROM t"),
    "blanks": ("SELECT\n\ta,b   FROM t", "SELECT a, b FROM t"),
    "keywords": (
        "select a from t group by all having Count(*) > 1",
        "SELECT a FROM t GROUP BY ALL HAVING count(*) > 1",
    ),
    "types": ("SELECT a::varchar, CAST(b AS Decimal(3, 2))", "SELECT a::VARCHAR, CAST(b AS DECIMAL(3, 2))"),
    "blanks within a keyword": ("SELECT a FROM t GROUP\n   BY a", "SELECT a FROM t group by a"),
    "windows": ("SELECT sum(a) over (partition by b)", "SELECT SUM(a) OVER (PARTITION BY b)"),
    "a semicolon at the end": ("SELECT 1 AS a;\n", "SELECT 1 AS a"),
    "what DuckDB adds to SQL": ("from t select * exclude (a)", "FROM t SELECT * EXCLUDE (a)"),
    "the span of a scheduled node": ("select TIMESTAMP '{{ start }}'", "SELECT timestamp '{{ start }}'"),
    "comments in a query that cannot be parsed": ("SELECT a b c -- why\n FROM x", "SELECT   a b c FROM x"),
}

DIFFERENT = {
    "an alias": ("SELECT 1 AS a", "SELECT 1 AS A"),
    "an alias that is a keyword": ("SELECT 1 AS date", "SELECT 1 AS Date"),
    "an alias without AS": ("SELECT 1 first", "SELECT 1 First"),
    "a quoted alias": ('SELECT 1 AS "a"', 'SELECT 1 AS "A"'),
    "a column": ("SELECT sum(a) FROM t", "SELECT sum(A) FROM t"),
    "a key of a struct": ("SELECT {a: 1} AS s", "SELECT {A: 1} AS s"),
    "a key of a struct that is a keyword": ("SELECT {date: 1} AS s", "SELECT {Date: 1} AS s"),
    "an argument that names a field": ("SELECT struct_pack(key := 1) AS s", "SELECT struct_pack(Key := 1) AS s"),
    "a field of a type": ("SELECT a::STRUCT(date INT) AS s", "SELECT a::STRUCT(Date INT) AS s"),
    "the name of an unpivoted column": (
        "UNPIVOT t ON a, b INTO NAME foo VALUE bar",
        "UNPIVOT t ON a, b INTO NAME Foo VALUE bar",
    ),
    "an alias before the expression": ("SELECT a: 1", "SELECT A: 1"),
    "text": ("SELECT 'a'", "SELECT 'A'"),
    "blanks in text": ("SELECT 'a  b'", "SELECT 'a b'"),
    "a comment in text": ("SELECT 'a -- b'", "SELECT 'a'"),
    "text between dollars": ("SELECT $$a -- b$$", "SELECT $$a$$"),
    "letters between dollars": ("SELECT $$a$$", "SELECT $$A$$"),
    "blanks between dollars": ("SELECT $x$a  b$x$", "SELECT $x$a b$x$"),
    "a byte": (r"SELECT '\xaa'::BLOB", r"SELECT '\xAA'::BLOB"),
    "text with escapes": (r"SELECT E'it\'s -- a'", r"SELECT E'it\'s -- b'"),
    "a number": ("SELECT 1.0 AS a", "SELECT 1.00 AS a"),
    "an operator": ("SELECT a != b", "SELECT a = b"),
    "a distinct": ("SELECT DISTINCT a FROM t", "SELECT a FROM t"),
    "a second statement": ("SELECT 1; SELECT 2", "SELECT 1"),
    "an expression that is written otherwise, which names its column otherwise": (
        "SELECT a -> '$.b' FROM t",
        "SELECT json_extract(a, '$.b') FROM t",
    ),
    "the case of a keyword in a query that cannot be parsed": ("SELECT a b c", "select a b c"),
}


@pytest.mark.parametrize(("one", "other"), SAME.values(), ids=SAME)
def test_what_does_not_count(one, other):
    assert canonical_form(one) == canonical_form(other)


@pytest.mark.parametrize(("one", "other"), DIFFERENT.values(), ids=DIFFERENT)
def test_what_counts(one, other):
    assert canonical_form(one) != canonical_form(other)


def test_it_is_said_whether_a_query_could_be_parsed():
    assert canonical_form("SELECT 1").is_parsed
    assert not canonical_form("SELECT a b c").is_parsed
    assert not canonical_form("SELECT 'a").is_parsed
    assert not canonical_form("-- nothing").is_parsed


@pytest.mark.parametrize(
    "sql",
    [
        "select  1 as Date, 2 First, {Key: 3, date: 4} as s -- c\n, [x for x in [1, 2]] as l;",
        "from range(3) t(Num) select Num, sum(Num) over (order by Num) as Total, Max(Num) over () as M",
        "with Days(Day) as (select unnest([1, 2])) select Day, case when Day > 1 then 'Y' end as Late from Days",
        "select * replace (1 as A) from (select 2 as a, 3 as B) group by all order by 1 desc nulls last",
        "pivot (select 1 as K, 'x' as V) on V using sum(K) as Total",
        "select columns(lambda c: c like 'A%') from (select 1 as Ab, 2 as cd)",
        "select try_cast('1' as integer) as I, interval 2 day as D, date '2024-01-01' + 1 as T, e'a\\nb' as E",
    ],
)
def test_the_canonical_form_is_the_same_query_with_the_same_columns(sql):
    canonical = canonical_form(sql)
    assert canonical.is_parsed
    assert canonical_form(canonical.text) == canonical
    with duckdb.connect() as connection:
        one, other = connection.sql(sql), connection.sql(canonical.text)
        assert (one.columns, one.types) == (other.columns, other.types)
        assert one.fetchall() == other.fetchall()


def test_the_package_brings_no_parser_of_sql():
    code = "import sys, seeknal, seeknal.pipeline, seeknal.tracking, seeknal.cli.app; print('sqlglot' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
