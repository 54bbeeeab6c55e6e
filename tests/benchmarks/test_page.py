"""The page of what was measured."""

from __future__ import annotations

import json

from benchmarks.figures import Finding
from benchmarks.page import FIGURES, PAGE, page, taken_over


def run(taken_at: str, store: str, value: float) -> dict:
    finding = Finding("transition", store)
    finding.add("ours / limit", [value], most=1.5)
    return {"taken_at": taken_at, "command": "transition", "machine": {}, "findings": [finding.document()]}


def test_the_page_says_what_was_measured_and_nothing_else():
    assert PAGE.read_text() == page(json.loads(FIGURES.read_text()))


def test_what_was_measured_last_counts_for_each_store():
    runs = [run("2026-01-01", "file", 1), run("2026-01-01", "sqlite", 2), run("2026-01-02", "file", 3)]
    kept = taken_over(runs)["runs"]
    found = {(each["taken_at"], one["store"]): one["figures"][0]["median"] for each in kept for one in each["findings"]}
    assert found == {("2026-01-01", "sqlite"): 2, ("2026-01-02", "file"): 3}


def test_a_bar_is_met_by_the_median():
    finding = Finding("transition", "file")
    finding.add("less is better", [1, 1.4, 9], most=1.5)
    finding.add("more is better", [10, 20, 30], least=25)
    finding.add("no bar", [1])
    assert [figure.is_met for figure in finding.figures] == [True, False, None]
    assert "met" in finding.figures[0].line()
    assert "MISSED" in finding.figures[1].line()
