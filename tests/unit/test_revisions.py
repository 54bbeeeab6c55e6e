"""The revisions of the schema form one line, numbered without a gap."""

from __future__ import annotations

from alembic.config import Config
from alembic.script import ScriptDirectory

from seeknal.state.sql.schema import SCHEMA_VERSION


def test_revisions_follow_one_another_up_to_the_version_that_is_named() -> None:
    config = Config()
    config.set_main_option("script_location", "seeknal.state.sql:migrations")
    config.set_main_option("path_separator", "os")
    script = ScriptDirectory.from_config(config)
    assert script.get_heads() == [f"{SCHEMA_VERSION:04}"]
    line = [(each.revision, each.down_revision) for each in script.walk_revisions()]
    numbers = [f"{number:04}" for number in range(SCHEMA_VERSION, 0, -1)]
    assert line == list(zip(numbers, [*numbers[1:], None], strict=True))
