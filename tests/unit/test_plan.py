"""The plan of a run: what happens to each node and why, as a function of what is known alone."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from seeknal.model.intervals import Interval
from seeknal.model.records import NodeState
from seeknal.pipeline.fingerprint import MadeOf
from seeknal.pipeline.nodes import PYTHON, Node
from seeknal.runner.held import Read
from seeknal.runner.outputs import as_part, part_file
from seeknal.runner.plan import CACHED, LEFT, RUN, Asked, Observed, Planned, plan_nodes
from seeknal.runner.ranges import Done
from seeknal.runner.reasons import Reason, Why

NOW = datetime(2024, 1, 10, 12, tzinfo=UTC)
SALES = Node(kind="source", name="sales", file="sales.yml", content="sales.csv", format="csv")
TOTALS = Node(kind="transform", name="totals", file="totals.yml", content="SELECT 1", inputs=("source.sales",))
STEP = Node(kind="transform", name="step", file="s.py", content="", format=PYTHON, inputs=("transform.totals",))
PUBLISH = Node(kind="command", name="publish", file="p.yml", content="true", inputs=("transform.step",))
NODES = {node.node_id: node for node in (SALES, TOTALS, STEP, PUBLISH)}
PARTS = {
    "source.sales": {"config": "c1", "data": "d1"},
    "transform.totals": {"config": "c2", "sql": "s2"},
    "transform.step": {"config": "c3", "function": "f3", "code:lib.py:a": "a3", "code:lib.py:b": "b3"},
    "command.publish": {"config": "c4", "command": "m4"},
}
DAILY = Node(
    kind="transform",
    name="daily",
    file="daily.yml",
    content="SELECT 1",
    schedule="@daily",
    start=datetime(2024, 1, 7, tzinfo=UTC),
)
DAYS = Node(kind="transform", name="days", file="days.yml", content="SELECT 2", inputs=("transform.daily",))
SCHEDULED = {node.node_id: node for node in (DAILY, DAYS)}


def day(number: int) -> datetime:
    return datetime(2024, 1, number, tzinfo=UTC)


def fresh(nodes=NODES) -> dict[str, Observed]:
    """Return what is known of nodes that were never run."""
    return {node_id: Observed(made_of=MadeOf(PARTS.get(node_id, {"config": node_id}))) for node_id in nodes}


def after_run(observed: dict[str, Observed], nodes=NODES) -> dict[str, Observed]:
    """Return what is known once everything has run as planned."""
    found = {}
    for node_id, planned in plan_nodes(nodes, observed, now=NOW, asked=Asked(full=True)).items():
        made_of = planned.made_of
        found[node_id] = Observed(
            made_of=observed[node_id].made_of,
            newest=NodeState(
                node_id=node_id, status="success", fingerprint=made_of.fingerprint, metadata={"made_of": made_of.short}
            ),
            was_tried=True,
            facts={"fingerprint": made_of.fingerprint},
            has_output=True,
            done=once_done(made_of.fingerprint, planned.ranges.batches),
        )
    return found


def once_done(definition: str, units, run_id: str = "r1") -> Done:
    """Return what is known of a node whose ranges a run has computed, without inputs that have ranges."""
    files = [part_file(unit, Read([]).made(definition, unit), run_id, 1, 10) for unit in units]
    return Done(spans=tuple((unit, run_id) for unit in units), parts=tuple(map(as_part, files)))


def changed(observed: dict[str, Observed], node_id: str, **fields) -> dict[str, Observed]:
    import msgspec

    return observed | {node_id: msgspec.structs.replace(observed[node_id], **fields)}


def with_part(observed: dict[str, Observed], node_id: str, name: str, value: str | None) -> dict[str, Observed]:
    parts = {key: each for key, each in (PARTS[node_id] | {name: value}).items() if each is not None}
    return changed(observed, node_id, made_of=MadeOf(parts))


def reasons(plan: dict[str, Planned]) -> dict[str, str]:
    return {node_id: planned.why for node_id, planned in plan.items() if planned.action == RUN}


def test_what_no_run_knows_is_new():
    plan = plan_nodes(NODES, fresh(), now=NOW)
    assert list(plan) == list(NODES)
    assert reasons(plan) == {**dict.fromkeys(NODES, "new")}
    assert all(planned.is_anew for planned in plan.values())


def test_what_was_tried_and_never_succeeded_says_so():
    observed = {node_id: Observed(made_of=each.made_of, was_tried=True) for node_id, each in fresh().items()}
    assert set(reasons(plan_nodes(NODES, observed, now=NOW)).values()) == {"never succeeded"}


def test_what_has_not_changed_is_cached():
    plan = plan_nodes(NODES, after_run(fresh()), now=NOW)
    assert {planned.action for planned in plan.values()} == {CACHED}
    assert {planned.reasons for planned in plan.values()} == {(Why(Reason.UP_TO_DATE),)}


CHANGES = {
    "its SQL": ("transform.totals", "sql", "x", "SQL changed"),
    "its config": ("transform.totals", "config", "x", "config changed"),
    "its command": ("command.publish", "command", "x", "command changed"),
    "its data": ("source.sales", "data", "x", "data changed"),
    "its function": ("transform.step", "function", "x", "function changed"),
    "code that it names": ("transform.step", "code:lib.py:a", "x", "code changed: lib.py:a"),
    "code that it names no longer": ("transform.step", "code:lib.py:b", None, "code changed: lib.py:b"),
    "code that it names now": ("transform.step", "code:lib.py:c", "x", "code changed: lib.py:c"),
}


@pytest.mark.parametrize(("node_id", "part", "value", "why"), CHANGES.values(), ids=CHANGES)
def test_the_part_that_changed_is_the_reason_and_those_after_it_name_their_parent(node_id, part, value, why):
    observed = with_part(after_run(fresh()), node_id, part, value)
    expected = {node_id: why}
    for each in NODES.values():
        if expected.keys() & set(each.inputs):
            expected[each.node_id] = f"parent changed: {each.inputs[0]}"
    assert reasons(plan_nodes(NODES, observed, now=NOW)) == expected


def test_all_that_changed_is_told_at_once():
    observed = with_part(after_run(fresh()), "source.sales", "data", "x")
    observed = with_part(observed, "transform.totals", "sql", "x")
    plan = plan_nodes(NODES, observed, now=NOW)
    assert plan["transform.totals"].reasons == (
        Why(Reason.SQL_CHANGED),
        Why(Reason.PARENT_CHANGED, "source.sales"),
    )
    assert plan["transform.totals"].why == "SQL changed; parent changed: source.sales"


@pytest.mark.parametrize("older", ["s1:abc", "abc", None, ""])
def test_a_fingerprint_of_an_older_version_runs_once(older):
    done = after_run(fresh())
    newest = NodeState(node_id="transform.totals", status="success", fingerprint=older, metadata={"made_of": "odd"})
    plan = plan_nodes(NODES, changed(done, "transform.totals", newest=newest), now=NOW)
    assert reasons(plan) == {"transform.totals": "fingerprint of an older version"}


def test_a_success_that_does_not_say_what_it_was_made_of_has_changed_all_the_same():
    newest = NodeState(node_id="command.publish", status="success", fingerprint="v2:00", metadata={})
    plan = plan_nodes(NODES, changed(after_run(fresh()), "command.publish", newest=newest), now=NOW)
    assert reasons(plan) == {"command.publish": "command changed; config changed; parent changed: transform.step"}


def test_parts_that_look_alike_under_another_fingerprint_have_changed():
    done = after_run(fresh())
    newest = NodeState(status="success", fingerprint="v2:00", metadata=done["command.publish"].newest.metadata)
    assert reasons(plan_nodes(NODES, changed(done, "command.publish", newest=newest), now=NOW)) == {
        "command.publish": "changed"
    }


OUTPUTS = {
    "missing": ({"has_output": False, "facts": {}}, "output missing"),
    "broken": ({"facts": {}}, "output cannot be read"),
    "old": ({"facts": {"fingerprint": "v2:00"}}, "output is of another state"),
}


@pytest.mark.parametrize(("fields", "why"), OUTPUTS.values(), ids=OUTPUTS)
def test_an_output_that_is_not_what_the_store_says_is_a_reason_for_its_node_alone(fields, why):
    done = after_run(fresh())
    assert reasons(plan_nodes(NODES, changed(done, "transform.totals", **fields), now=NOW)) == {"transform.totals": why}
    assert reasons(plan_nodes(NODES, changed(done, "command.publish", **fields), now=NOW)) == {}, "commands have none"


def test_forced_nodes_run_and_those_after_them_need_not():
    done = after_run(fresh())
    assert set(reasons(plan_nodes(NODES, done, now=NOW, asked=Asked(full=True))).values()) == {"forced"}
    plan = plan_nodes(NODES, done, now=NOW, asked=Asked(full=True, selected={"transform.totals"}))
    assert reasons(plan) == {"transform.totals": "forced"}
    assert plan["source.sales"].why == "not selected"


# ---- scheduled nodes ----


def test_missing_intervals_run_alone_and_are_a_change_for_those_after_them():
    done = after_run(fresh(SCHEDULED), SCHEDULED)
    plan = plan_nodes(SCHEDULED, done, now=day(12))
    assert reasons(plan) == {
        "transform.daily": "interval missing: 2024-01-10 to 2024-01-12",
        "transform.days": "parent changed: transform.daily",
    }
    assert plan["transform.daily"].ranges.batches == (Interval(day(10), day(12)),)
    assert plan["transform.daily"].ranges.lost == ()
    assert not plan["transform.daily"].is_anew


def test_what_is_computed_anew_is_computed_from_its_start_and_taken_back_first():
    done = changed(after_run(fresh(SCHEDULED), SCHEDULED), "transform.daily", made_of=MadeOf({"config": "x"}))
    planned = plan_nodes(SCHEDULED, done, now=day(12))["transform.daily"]
    assert planned.ranges.batches == (Interval(day(7), day(12)),)
    assert planned.ranges.lost == (Interval(day(7), day(10)),)
    assert (planned.is_anew, planned.why) == (True, "config changed")


def test_several_missing_spans_are_counted():
    done = after_run(fresh(SCHEDULED), SCHEDULED)
    made_of = done["transform.daily"].newest.fingerprint
    ranges = once_done(made_of, [Interval(day(8), day(9))])
    plan = plan_nodes(SCHEDULED, changed(done, "transform.daily", done=ranges), now=NOW)
    assert plan["transform.daily"].why == "interval missing: 2024-01-07 to 2024-01-08 and 1 more"


# ---- what is not selected ----


def test_what_is_not_selected_is_left_and_says_what_it_would_do():
    observed = with_part(after_run(fresh()), "transform.totals", "sql", "x")
    plan = plan_nodes(NODES, observed, now=NOW, asked=Asked(selected={"transform.step"}))
    assert {node_id: planned.action for node_id, planned in plan.items()} == {
        "source.sales": LEFT,
        "transform.totals": LEFT,
        "transform.step": CACHED,
        "command.publish": LEFT,
    }
    assert plan["source.sales"].why == "not selected"
    assert plan["transform.totals"].why == "not selected: it would run: SQL changed"


def test_a_node_that_read_an_output_of_before_runs_again_once_its_parent_has_run():
    observed = with_part(after_run(fresh()), "transform.totals", "sql", "x")
    plan = plan_nodes(NODES, observed, now=NOW)
    assert reasons(plan)["transform.step"] == "parent changed: transform.totals"


# ---- what cannot be known beforehand ----


def test_a_source_whose_file_is_missing_says_so():
    observed = changed(fresh(), "source.sales", made_of=None, problem="sales.csv cannot be read: no such file")
    plan = plan_nodes(NODES, observed, now=NOW)
    assert plan["source.sales"].why == "data file cannot be read: sales.csv cannot be read: no such file"


def test_a_source_behind_a_command_that_runs_is_said_to_be_in_doubt():
    fetch = Node(kind="command", name="fetch", file="f.yml", content="true")
    import msgspec

    sales = msgspec.structs.replace(SALES, inputs=("command.fetch",))
    nodes = {"command.fetch": fetch, "source.sales": sales}
    done = after_run(fresh(nodes), nodes)
    plan = plan_nodes(nodes, done, now=NOW, asked=Asked(full=True, selected={"command.fetch", "source.sales"}))
    assert plan["source.sales"].why == "forced"
    never = Observed(made_of=done["command.fetch"].made_of, was_tried=True)
    plan = plan_nodes(nodes, done | {"command.fetch": never}, now=NOW)
    assert (plan["source.sales"].action, plan["source.sales"].why) == (
        CACHED,
        "up to date: command.fetch runs first and may change sales.csv",
    )
