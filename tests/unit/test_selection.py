"""What is selected: names with the operators of a graph, patterns, tags, and what is left out."""

from __future__ import annotations

import pytest

from seeknal.errors import ConfigurationError
from seeknal.pipeline.nodes import Node
from seeknal.runner.selection import find_node, select


def node(kind: str, name: str, *inputs: str, tags: tuple[str, ...] = ()) -> Node:
    return Node(kind=kind, name=name, file="f.yml", content="x", inputs=inputs, tags=tags)


NODES = {
    each.node_id: each
    for each in (
        node("source", "a", tags=("raw", "daily")),
        node("source", "b", tags=("raw",)),
        node("transform", "a", "source.a", tags=("daily",)),
        node("transform", "c", "transform.a", "source.b"),
        node("transform", "d", "transform.c"),
        node("command", "e", "transform.d"),
        node("command", "odd name+"),
        node("command", "x,y"),
    )
}
ALL = set(NODES)

SELECTED = {
    "an id": (["transform.c"], {"transform.c"}),
    "a bare name": (["c"], {"transform.c"}),
    "all that it needs": (["+transform.a"], {"source.a", "transform.a"}),
    "all that needs it": (["transform.c+"], {"transform.c", "transform.d", "command.e"}),
    "both": (["+c+"], {"source.a", "source.b", "transform.a", "transform.c", "transform.d", "command.e"}),
    "several in one text": (["source.a, d"], {"source.a", "transform.d"}),
    "several texts": (["source.a", "d"], {"source.a", "transform.d"}),
    "a pattern": (["source.*"], {"source.a", "source.b"}),
    "a pattern with an operator": (["*.a+"], {"source.a", "transform.a", "transform.c", "transform.d", "command.e"}),
    "a question mark": (["transform.?"], {"transform.a", "transform.c", "transform.d"}),
    "an id that ends with a sign": (["command.odd name+"], {"command.odd name+"}),
    "an id with a comma": (["command.x,y"], {"command.x,y"}),
}


@pytest.mark.parametrize(("names", "expected"), SELECTED.values(), ids=SELECTED)
def test_names(names, expected):
    assert select(NODES, names) == expected
    assert select(NODES, exclude=names) == ALL - expected


def test_nothing_that_is_asked_for_means_all():
    assert select(NODES) is None


def test_several_tags_add_up():
    assert select(NODES, tags=["raw"]) == {"source.a", "source.b"}
    assert select(NODES, tags=["raw", "daily"]) == {"source.a", "source.b", "transform.a"}
    assert select(NODES, tags=["raw, daily"]) == {"source.a", "source.b", "transform.a"}


def test_names_and_tags_select_what_is_both_and_what_is_excluded_goes_in_the_end():
    assert select(NODES, ["transform.*"], ["daily"]) == {"transform.a"}
    assert select(NODES, ["+c"], exclude=["source.*"]) == {"transform.a", "transform.c"}


REFUSED = {
    "an unknown id": ({"names": ["transform.cc"]}, "there is no node 'transform.cc'", "Did you mean transform.c?"),
    "an unknown name with operators": ({"names": ["+comand.e+"]}, "there is no node 'comand.e'", "command.e"),
    "a bare name that two have": ({"names": ["a"]}, "'a' may be source.a or transform.a", "its kind"),
    "a pattern that nothing is like": ({"names": ["sink.*"]}, "no node is like 'sink.*'", "source.a"),
    "an unknown name to exclude": ({"exclude": ["source.aa"]}, "there is no node 'source.aa'", "source.a"),
    "an unknown tag": ({"tags": ["dayly"]}, "no node has the tag 'dayly'", "Did you mean daily? Known: daily, raw."),
    "an empty name": ({"names": [" "]}, "a name is empty", "select all"),
    "what is left of nothing": ({"names": ["c"], "exclude": ["c"]}, "--exclude leaves nothing", "Exclude less"),
    "nothing at all": ({"exclude": ["*"]}, "--exclude leaves nothing", "Exclude less"),
    "what is never both": ({"names": ["c"], "tags": ["raw"]}, "no node is selected", "not together"),
    "a sign alone": ({"names": ["+"]}, "there is no node ''", "Known"),
}


@pytest.mark.parametrize(("options", "message", "hint"), REFUSED.values(), ids=REFUSED)
def test_what_selects_nothing_is_refused_and_the_nearest_is_named(options, message, hint):
    with pytest.raises(ConfigurationError) as raised:
        select(NODES, **options)
    assert str(raised.value) == message
    assert hint in raised.value.hint


def test_a_node_is_found_by_its_id_before_its_bare_name():
    nodes = {"source.transform.c": node("source", "transform.c"), "transform.c": node("transform", "c")}
    assert find_node(nodes, "transform.c") == "transform.c"
    assert find_node(nodes, "c") == "transform.c"


MANY = {each.node_id: each for number in range(50) for each in (node("transform", f"step_{number}"),)}
MISSES = {
    "an id": (["transform.step_7x"], "Nearest: transform.step_7, transform.step_", "There are 50 nodes."),
    "a bare name": (["stap_12"], "Nearest: transform.step_12, transform.step_", "There are 50 nodes."),
    "a pattern": (["transfrom.step_3*"], "A pattern is held against ids. Nearest: transform.step_3", "50 nodes."),
    "what is like nothing": (["zzzzzz"], "There are 50 nodes.", ""),
}


@pytest.mark.parametrize(("names", "start", "end"), MISSES.values(), ids=MISSES)
def test_a_miss_in_a_large_project_names_the_nearest_three_and_how_many_there_are(names, start, end):
    with pytest.raises(ConfigurationError) as raised:
        select(MANY, names)
    assert raised.value.hint.startswith(start)
    assert raised.value.hint.endswith(end)
    assert raised.value.hint.count("transform.") in (0, 3)
