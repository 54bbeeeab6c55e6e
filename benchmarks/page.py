"""Make `docs/performance.md` and its charts of what was measured.

    python -m benchmarks.page [--from build/benchmarks.json]   take over what was measured since, draw, write
    python -m benchmarks.page --text-only                      write the page of what was taken over before

What is taken over stands in `docs/performance/figures.json`: of each workload and store the last finding, with the
machine and the command that it comes from. Needs matplotlib, which `make bench-page` installs, but for ``--text-only``.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from benchmarks.figures import shown

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs/performance.md"
FOLDER = ROOT / "docs/performance"
FIGURES = FOLDER / "figures.json"
WORDS = Path(__file__).parent / "page"
"""The parts of the page that are written by hand."""
WORKLOADS = {
    "transition": "One node transition",
    "batch": "1,000 node states in one transaction",
    "load": "A run of 10,000 nodes, loaded",
    "missing": "Intervals of one node",
    "cleanup": "Cleanup",
    "migration": "Migration",
    "start_up": "Start-up",
    "scale": "Ten million node states beside a hundred thousand",
    "scale_cleanup": "Cleanup of half of them, beside one writer, and of half of the rest beside two",
    "memory": "Memory",
}
PROCESSES, PEERS = "processes", "peers"

Entry = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.page", description=__doc__.splitlines()[0])
    parser.add_argument("--from", dest="source", type=Path, default=ROOT / "build/benchmarks.json")
    parser.add_argument("--text-only", action="store_true")
    arguments = parser.parse_args()
    FOLDER.mkdir(exist_ok=True)
    taken = json.loads(FIGURES.read_text()) if FIGURES.exists() else {"runs": []}
    if not arguments.text_only:
        taken = taken_over(taken["runs"] + json.loads(arguments.source.read_text())["runs"])
        FIGURES.write_text(json.dumps(taken, indent=1) + "\n")
        from benchmarks.charts import draw

        draw(entries(taken), FOLDER)
    PAGE.write_text(page(taken))
    print(f"{PAGE.relative_to(ROOT)}: {sum(1 for _ in entries(taken))} findings")


def taken_over(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the runs of the command with what no later one has measured again, and without its single values."""
    seen: set[tuple[str, str]] = set()
    kept = []
    for run in sorted(runs, key=lambda each: str(each["taken_at"]), reverse=True):
        findings = [each for each in run["findings"] if (each["workload"], each["store"]) not in seen]
        seen |= {(each["workload"], each["store"]) for each in findings}
        for finding in findings:
            for figure in finding["figures"]:
                figure.pop("values", None)
        if findings:
            kept.append({**run, "findings": findings})
    return {"runs": kept[::-1]}


def entries(taken: dict[str, Any]) -> list[Entry]:
    """Return all findings, each with its machine."""
    return [{**finding, "machine": run["machine"]} for run in taken["runs"] for finding in run["findings"]]


def page(taken: dict[str, Any]) -> str:
    """Return the page."""
    found = entries(taken)
    parts = [
        (WORDS / "begin.md").read_text(),
        bars(found),
        (WORDS / "missed.md").read_text(),
        (WORDS / "charts.md").read_text(),
        "## What was measured\n",
        *(section(name, title, found) for name, title in WORKLOADS.items()),
        section(PEERS, "Beside what people use instead", found),
        concurrency(found),
        machines(taken),
        (WORDS / "end.md").read_text(),
    ]
    return "\n".join(part for part in parts if part)


def bars(found: list[Entry]) -> str:
    """Return the table of all bars, with how far each is met."""
    lines = ["## The bars\n", "| work | store | bar | measured | |", "| --- | --- | --- | --- | --- |"]
    for entry in in_order(found):
        for figure in entry["figures"]:
            if figure["met"] is None or (entry["workload"] == PROCESSES and "8" not in entry["store"]):
                continue
            bar = f"at most {figure['most']:,g}" if figure["most"] is not None else f"at least {figure['least']:,g}"
            verdict = "met" if figure["met"] else "**missed**"
            lines.append(
                f"| {entry['workload']}: {figure['name']} | {entry['store']} | {bar} {unit(figure)} "
                f"| {value(figure)} | {verdict} |"
            )
    return "\n".join(lines) + "\n"


def in_order(found: list[Entry]) -> list[Entry]:
    names = [*WORKLOADS, PROCESSES, PEERS]
    return sorted(found, key=lambda entry: names.index(entry["workload"]) if entry["workload"] in names else len(names))


def section(workload: str, title: str, found: list[Entry]) -> str:
    """Return the tables of one workload, one for each store."""
    mine = [entry for entry in found if entry["workload"] == workload]
    if not mine:
        return ""
    lines = [f"### {title}\n"]
    for entry in mine:
        if entry["store"] != "-":
            lines.append(f"On {entry['store']}:\n")
        lines += ["| | median | quartiles |", "| --- | --- | --- |"]
        lines += [f"| {figure['name']} | {value(figure)} | {quartiles(figure)} |" for figure in entry["figures"]]
        lines += ["", *(f"- {note}" for note in entry["notes"]), *([""] if entry["notes"] else [])]
    return "\n".join(lines)


def concurrency(found: list[Entry]) -> str:
    """Return what processes and threads at once come to, a line for each number of them."""
    mine = [entry for entry in found if entry["workload"] == PROCESSES]
    if not mine:
        return ""
    lines = [
        "### Processes at once\n",
        "Transitions a second of all together, each process writing a node of its own in one run; a fair share of the "
        "slowest is 1.\n",
        "| store and writers | together | to the bare driver | p50 | p99 | longest | slowest's share | lost |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    wanted = ("all together", "time of a commit, ours / raw", "p50", "p99", "longest", "share of the slowest")
    for entry in mine:
        figures = {figure["name"]: figure for figure in entry["figures"]}
        cells = [value(figures[f"own nodes: {name}"]) for name in wanted]
        lost = sum(figure["median"] for name, figure in figures.items() if "lost" in name or name.endswith("errors"))
        lines.append(f"| {entry['store']} | {' | '.join(cells)} | {lost:,.0f} |")
    return "\n".join(lines) + "\n"


def machines(taken: dict[str, Any]) -> str:
    """Return where all of it was measured."""
    lines = ["### Where, and with what\n"]
    for run in taken["runs"]:
        about = run["machine"]
        command = f"python -m benchmarks {run['command']}".rstrip()
        packages = ", ".join(f"{name} {version}" for name, version in about["packages"].items() if name != "seeknal")
        lines.append(
            f"- {run['taken_at']}, `{command}`, commit {about['commit']}: {about['processor']}, {about['processors']} "
            f"processors, {about['memory_gib']} GiB, {about['system']}, Python {about['python']}, "
            f"SQLite {about['sqlite']}, {packages}; load at the end {about['load'][0]}."
        )
    return "\n".join(lines) + "\n"


def value(figure: dict[str, Any]) -> str:
    return f"{shown(figure['median'])} {unit(figure)}".strip()


def quartiles(figure: dict[str, Any]) -> str:
    return f"{shown(figure['low'])} to {shown(figure['high'])}"


def unit(figure: dict[str, Any]) -> str:
    return {"x": "times"}.get(figure["unit"], figure["unit"])


if __name__ == "__main__":
    main()
