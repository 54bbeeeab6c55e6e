"""The keys of a node that say how often it is tried and how long it may take."""

from __future__ import annotations

from pathlib import Path

import pytest

from seeknal.errors import ConfigurationError
from seeknal.pipeline.attempts import attempt_fields
from seeknal.pipeline.fingerprint import fingerprint
from seeknal.pipeline.load import load_project
from seeknal.pipeline.nodes import Node
from seeknal.pipeline.ranges import range_fields

YAML = "kind: command\nname: a\ncommand: 'true'\n"
PYTHON = "from seeknal.pipeline import transform\n\n@transform({})\ndef a(ctx):\n    return [{{'x': 1}}]\n"


def loaded(path: Path, name: str, text: str) -> Node:
    (path / "seeknal").mkdir(exist_ok=True)
    (path / "seeknal_project.yml").write_text("name: keys\n")
    (path / "seeknal" / name).write_text(text)
    (node,) = load_project(path).nodes.values()
    return node


@pytest.mark.parametrize(
    ("name", "plain", "with_keys"),
    [
        ("a.yml", YAML, f"{YAML}retries: 3\nretry_delay: 2s\ntimeout: 10m\n"),
        ("a.py", PYTHON.format(""), PYTHON.format('retries=3, retry_delay="2s", timeout="10m"')),
    ],
    ids=["YAML", "Python"],
)
def test_keys_are_read_and_are_no_reason_to_run_again(tmp_path, name, plain, with_keys):
    before = loaded(tmp_path, name, plain)
    assert (before.retries, before.retry_delay_seconds, before.timeout_seconds) == (0, 1, None)
    then = fingerprint(before, tmp_path, {})
    after = loaded(tmp_path, name, with_keys)
    assert (after.retries, after.retry_delay_seconds, after.timeout_seconds) == (3, 2, 600)
    assert fingerprint(after, tmp_path, {}) == then


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("500ms", 0.5), ("2s", 2), (" 1.5 m ", 90), ("1h", 3600), ("2d", 172800), (3, 3), (0.25, 0.25), ("5", 5)],
)
def test_a_duration_has_a_unit_or_is_seconds_whichever_key_it_is_of(value, seconds):
    scheduled = {"schedule": "@daily", "start": "2024-01-01", "lateness": value}
    assert attempt_fields({"timeout": value, "retry_delay": value}, "x.yml") == {
        "timeout_seconds": pytest.approx(seconds),
        "retry_delay_seconds": pytest.approx(seconds),
    }
    assert range_fields(scheduled, "x.yml")["lateness_seconds"] == pytest.approx(seconds)


@pytest.mark.parametrize(
    "value", ["", "soon", "s", "10 w", "-1s", "0", "٣s", "0s", 0, -1, True, float("nan"), float("inf"), "31d", ["1s"]]
)
@pytest.mark.parametrize("key", ["timeout", "retry_delay"])
def test_what_is_no_duration_is_refused_with_its_file_and_key(key, value):
    with pytest.raises(ConfigurationError, match=f"{key} is ") as raised:
        attempt_fields({key: value}, "x.yml")
    assert str(raised.value).startswith("x.yml: ")
    assert f"{key}: 30s" in raised.value.hint


@pytest.mark.parametrize("value", [-1, 101, 1.5, "3", True])
def test_what_is_no_number_of_retries_is_refused(value):
    with pytest.raises(ConfigurationError, match="retries is "):
        attempt_fields({"retries": value}, "x.yml")
