"""SQL in a form that stays the same where only comments, blanks or the case of keywords were changed."""

from __future__ import annotations

import logging
from typing import NamedTuple

import sqlglot
from sqlglot import TokenType, exp
from sqlglot.errors import SqlglotError

from seeknal.pipeline.nodes import canonical_sql

# sqlglot warns of statements that it only keeps as text; what to make of them is decided here.
logging.getLogger("sqlglot").addHandler(logging.NullHandler())

_VERBATIM = frozenset(
    {
        TokenType.STRING,
        TokenType.NATIONAL_STRING,
        TokenType.BYTE_STRING,
        TokenType.HEX_STRING,
        TokenType.BIT_STRING,
        TokenType.RAW_STRING,
        TokenType.UNICODE_STRING,
        TokenType.HEREDOC_STRING,
        TokenType.IDENTIFIER,
    }
)


class CanonicalSql(NamedTuple):
    """A query in its canonical form, and whether it could be parsed; if not, the case of its keywords counts."""

    text: str
    is_parsed: bool


def canonical_form(sql: str) -> CanonicalSql:
    """Return the tokens of a query, one blank apart, without comments and with its keywords in capitals.

    Two queries with one form have the same tokens but for the case of words that the parser takes for keywords,
    functions or types. Nothing is rewritten: an equivalent query that is written otherwise may name its columns
    otherwise, and a newer parser, which rewrites otherwise, would find every query changed. Where it cannot be
    parsed, comments and blanks are left out alone.
    """
    dialect = sqlglot.Dialect.get_or_raise("duckdb")
    try:
        tokens = dialect.tokenize(sql)
        trees = [tree for tree in dialect.parse(sql) if tree is not None]
    except (SqlglotError, RecursionError):
        return CanonicalSql(canonical_sql(sql), False)
    if not trees or any(tree.find(exp.Command) for tree in trees):
        return CanonicalSql(canonical_sql(sql), False)
    while tokens and tokens[-1].token_type is TokenType.SEMICOLON:
        tokens = tokens[:-1]
    names = [name for tree in trees for name in tree.find_all(exp.Identifier)]
    places = {name.meta["start"] for name in names if "start" in name.meta}
    # The parser does not say of every name where it stands: not of the keys of a struct, as in {Key: 1}.
    placeless = {name.name for name in names if "start" not in name.meta}
    words = []
    for token in tokens:
        text = sql[token.start : token.end + 1]
        # The name of something keeps its case, which may be that of a column of the output.
        is_name = token.start in places or text in placeless
        if not is_name and token.token_type not in _VERBATIM:
            text = " ".join(text.upper().split())
        words.append(text)
    return CanonicalSql(" ".join(words), True)
