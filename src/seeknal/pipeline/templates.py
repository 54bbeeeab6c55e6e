"""What a query or a command may have filled in: ``{{ start }}`` and ``{{ end }}``, or ``{{ partition }}``."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping

from seeknal.errors import ConfigurationError
from seeknal.pipeline.nodes import canonical_sql

NEEDS = {"start": "schedule", "end": "schedule", "partition": "partitions"}
"""Each name, and the key of a node that gives it a meaning."""

_NAMED = re.compile(r"\{\{\s*(\w+)\s*\}\}")


def check_templates(kind: str, text: str, fields: Mapping[str, object], place: str) -> None:
    """Raise if a query or a command names what its node does not have, or a query reads all rows for each range.

    A command need not name its range, since it has it in its environment. Comments of SQL do not count.

    Args:
        kind: ``transform`` or ``command``.
        text: The query or the command.
        fields: Those of the node, as `seeknal.pipeline.ranges.range_fields` returns them.
        place: The file, for the message.

    Raises:
        ConfigurationError: The message names the file and what is wrong, the hint what to write.
    """
    named = set(_NAMED.findall(canonical_sql(text) if kind == "transform" else text))
    for name in sorted(named):
        key = NEEDS.get(name)
        if key is None:
            near = difflib.get_close_matches(name, NEEDS, n=1)
            known = ", ".join(f"{{{{ {each} }}}}" for each in NEEDS)
            raise ConfigurationError(
                f"{place}: nothing is known to fill in for `{{{{ {name} }}}}`",
                hint=f"{f'Did you mean {{{{ {near[0]} }}}}? ' if near else ''}Known: {known}.",
            )
        if key not in fields:
            raise ConfigurationError(
                f"{place}: `{{{{ {name} }}}}` means nothing without `{key}`", hint=f"Add `{key}`, or leave it out."
            )
    if kind == "transform" and "schedule" in fields and not named:
        raise ConfigurationError(
            f"{place}: the query names neither `{{{{ start }}}}` nor `{{{{ end }}}}`, so each range would get all rows",
            hint="Write WHERE moment >= '{{ start }}' AND moment < '{{ end }}', with the column that has the time.",
        )
    if kind == "transform" and "partitions" in fields and not named:
        raise ConfigurationError(
            f"{place}: the query does not name `{{{{ partition }}}}`, so each partition would get all rows",
            hint="Write WHERE region = '{{ partition }}', with the column that has the key.",
        )
