"""Statements: built for a store by SQLAlchemy, compiled once to text and the order of its parameters.

The pooled DB-API connection executes them, which costs a tenth of ``Connection.execute`` and is what a
node transition spends its time on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from operator import itemgetter
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

from sqlalchemy import ClauseElement, Executable

from seeknal.errors import StateBackendError
from seeknal.state.sql.dialects.base import Command, Cursor, Dialect
from seeknal.state.sql.tables import Tables

Row = tuple[Any, ...]
Params = Mapping[str, Any]


class Target:
    """What statements are compiled for: a kind of database, and the tables under their names there."""

    def __init__(self, dialect: Dialect, tables: Tables) -> None:
        self.dialect = dialect
        self.tables = tables


@lru_cache(maxsize=64)
def target_of(dialect: Dialect, schema: str | None, prefix: str) -> Target:
    """Return the target of these names; the same object each time, so that statements are compiled once."""
    return Target(dialect, Tables(schema, prefix))


class Compiled:
    """A statement as one store is sent it."""

    __slots__ = ("_fixed", "_pick", "sql")

    def __init__(self, clause: ClauseElement, dialect: Dialect) -> None:
        compiled = clause.compile(dialect=dialect.sql)
        self.sql = str(compiled)
        order: list[str] = list(getattr(compiled, "positiontup", None) or ())
        # Written in C: it runs for every statement, and for every row of a copy.
        self._pick = itemgetter(*order) if len(order) > 1 else lambda params: tuple(params[name] for name in order)
        self._fixed = {name: value for name, value in compiled.params.items() if value is not None}

    def bind(self, params: Params) -> tuple[Any, ...]:
        """Return the parameters in the order of their marks."""
        if self._fixed:
            params = {**self._fixed, **params}
        picked: tuple[Any, ...] = self._pick(params)
        return picked

    def bind_many(self, rows: Iterable[Params]) -> list[tuple[Any, ...]]:
        """Return the parameters of many executions, which all name the same ones."""
        row = dict(self._fixed)
        bound = []
        for params in rows:
            row.update(params)
            bound.append(self._pick(row))
        return bound


class Statement:
    """A statement with named parameters.

    Args:
        build: Makes it for a target.
    """

    def __init__(self, build: Callable[[Target], ClauseElement]) -> None:
        self._build = build
        self._compiled: WeakKeyDictionary[Target, Compiled] = WeakKeyDictionary()

    def on(self, target: Target) -> Compiled:
        """Return it compiled for a target."""
        compiled = self._compiled.get(target)
        if compiled is None:
            compiled = self._compiled[target] = Compiled(self._build(target), target.dialect)
        return compiled


def statement_of(clause: Executable) -> Statement:
    """Return the statement of a clause that a dialect has built."""

    def build(_: Target) -> Any:
        return clause

    return Statement(build)


class Session(NamedTuple):
    """A cursor, and what its statements are compiled for."""

    cursor: Cursor
    target: Target

    def one(self, statement: Statement, params: Params = {}) -> Row | None:  # noqa: B006 - never written to
        """Execute a statement and return the first row."""
        compiled = statement.on(self.target)
        self.cursor.execute(compiled.sql, compiled.bind(params))
        row: Row | None = self.cursor.fetchone()
        return row

    def all(self, statement: Statement, params: Params = {}) -> list[Row]:  # noqa: B006
        """Execute a statement and return all rows."""
        compiled = statement.on(self.target)
        self.cursor.execute(compiled.sql, compiled.bind(params))
        return self.cursor.fetchall()


class Step(NamedTuple):
    """One statement of a transaction that is sent whole.

    Attributes:
        statement: What to run.
        params: With what.
        refusal: The transaction stands only if this step touches or returns a row, and breaks no constraint. If
            not, this is asked, after the rollback, for the error to raise; ``None``: it may touch nothing.
        is_asked: Whether its rows are wanted.
        many: It runs once with each of these instead, if there are any; only where the dialect says that it can.
    """

    statement: Statement
    params: Params
    refusal: Callable[[Session], StateBackendError] | None = None
    is_asked: bool = False
    many: Sequence[Params] = ()

    def command(self, target: Target) -> Command:
        """Return it as it is sent."""
        compiled = self.statement.on(target)
        if self.many:
            return Command(compiled.sql, (), self.refusal is not None, many=compiled.bind_many(self.many))
        return Command(compiled.sql, compiled.bind(self.params), self.refusal is not None, self.is_asked)
