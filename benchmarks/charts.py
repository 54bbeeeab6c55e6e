"""The charts of the page, one glance each."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("svg")
mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "seeknal", "font.size": 10, "axes.spines.top": False})
mpl.rcParams.update({"axes.spines.right": False, "figure.figsize": (7, 3.4), "figure.constrained_layout.use": True})

from matplotlib import pyplot as plt  # noqa: E402

Entry = dict[str, Any]
COLOURS = {
    "file": "#4c72b0",
    "sqlite": "#dd8452",
    "postgresql": "#55a868",
    "mysql": "#c44e52",
    "libsql": "#8172b3",
}


def draw(found: list[Entry], folder: Path) -> None:
    """Draw all charts of which there are figures."""
    growth([each for each in found if each["workload"] == "transition"], folder / "growth.svg")
    throughput([each for each in found if each["workload"] == "processes"], folder / "processes.svg")
    for store in ("sqlite", "postgresql"):
        peers([each for each in found if each["workload"] == "peers" and each["store"] == store], folder, store)


def growth(found: list[Entry], path: Path) -> None:
    """Draw what a transition costs, by the nodes of the run."""
    figure, axes = plt.subplots()
    for entry in found:
        medians = {each["name"]: each["median"] for each in entry["figures"]}
        sizes = sorted(int(found[1]) for name in medians if (found := re.fullmatch(r"(\d+) nodes", name)))
        costs = [medians[f"{size} nodes"] / 1000 for size in sizes]
        axes.plot(sizes, costs, marker="o", label=entry["store"], color=COLOURS.get(entry["store"]))
    axes.set(xscale="log", yscale="log", xlabel="nodes in the run", ylabel="milliseconds a transition")
    plain(axes, [100, 1000, 10_000], [0.3, 0.5, 1, 2, 5, 10])
    saved(figure, path)


def throughput(found: list[Entry], path: Path) -> None:
    """Draw how many transitions a second processes make together."""
    figure, axes = plt.subplots()
    lines: dict[str, dict[int, float]] = {}
    for entry in found:
        parts = re.fullmatch(r"(\w+), processes: (\d+)", entry["store"])
        if parts:
            together = next(each["median"] for each in entry["figures"] if each["name"] == "own nodes: all together")
            lines.setdefault(parts[1], {})[int(parts[2])] = together
    for store, values in lines.items():
        counts = sorted(values)
        axes.plot(counts, [values[each] for each in counts], marker="o", label=store, color=COLOURS.get(store))
    axes.set(xscale="log", yscale="log", xlabel="processes", ylabel="transitions a second, together")
    plain(axes, [1, 2, 4, 8, 16], [200, 500, 1000, 2000, 5000])
    saved(figure, path)


def peers(found: list[Entry], folder: Path, store: str) -> None:
    """Draw what a transition costs beside what others need for theirs."""
    for entry in found:
        costs = {
            each["name"].removesuffix(" / ours"): each["median"]
            for each in entry["figures"]
            if each["name"].endswith(" / ours")
        }
        costs["ours"] = 1.0
        names = sorted(costs, key=costs.__getitem__, reverse=True)
        figure, axes = plt.subplots(figsize=(7, 0.34 * len(names) + 0.9))
        colours = ["#dd8452" if name == "ours" else "#cccccc" if "not durable" in name else "#4c72b0" for name in names]
        bars = axes.barh(names, [costs[name] for name in names], color=colours)
        axes.bar_label(bars, [f"{costs[name]:.2g}" for name in names], padding=3)
        axes.set(xscale="log", xlabel=f"time of a record on {store}, ours = 1 (grey: not durable)")
        axes.minorticks_off()
        axes.set_xticks([0.2, 0.5, 1, 2, 5, 10, 20], ["0.2", "0.5", "1", "2", "5", "10", "20"])
        saved(figure, folder / f"peers-{store}.svg")


def plain(axes: Any, across: list[float], up: list[float]) -> None:
    """Write whole numbers at the axes, and who is who above."""
    axes.minorticks_off()
    axes.set_xticks(across, [f"{each:,g}" for each in across])
    axes.set_yticks(up, [f"{each:,g}" for each in up])
    axes.legend(frameon=False, ncols=5, loc="lower center", bbox_to_anchor=(0.5, 1))


def saved(figure: Any, path: Path) -> None:
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
