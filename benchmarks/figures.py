"""What was measured, with its spread over the rounds, beside the bar that it is held against."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

RATIO = "x"


@dataclass(frozen=True)
class Figure:
    """One thing that was measured in every round.

    Attributes:
        name: What, such as ``ours / raw append and fsync``.
        unit: Of the values: ``x`` for a ratio of two things that were measured in the same round.
        values: One of each round.
        most: The bar, where less is better.
        least: The bar, where more is better.
    """

    name: str
    unit: str
    values: tuple[float, ...]
    most: float | None = None
    least: float | None = None

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def quartiles(self) -> tuple[float, float]:
        if len(self.values) < 2:
            return self.values[0], self.values[0]
        low, _, high = statistics.quantiles(self.values, n=4, method="inclusive")
        return low, high

    @property
    def is_met(self) -> bool | None:
        """Whether the median meets the bar; `None` if there is none."""
        if self.most is not None:
            return self.median <= self.most
        return None if self.least is None else self.median >= self.least

    def line(self) -> str:
        low, high = self.quartiles
        text = f"{self.name:<46} {shown(self.median):>8} {self.unit:<12} ({shown(low)} to {shown(high)})"
        if self.is_met is None:
            return text
        bar = f"at most {self.most:,g}" if self.most is not None else f"at least {self.least:,g}"
        return f"{text}  {bar}: {'met' if self.is_met else 'MISSED'}"

    def document(self) -> dict[str, Any]:
        low, high = self.quartiles
        return {
            "name": self.name,
            "unit": self.unit,
            "median": self.median,
            "low": low,
            "high": high,
            "values": list(self.values),
            "most": self.most,
            "least": self.least,
            "met": self.is_met,
        }


@dataclass
class Finding:
    """What one workload found out about one store.

    Attributes:
        workload: The module of `benchmarks.workloads` that measured it.
        store: ``file``, ``sqlite``, ``postgresql``, ``mysql``, ``libsql``; or ``-`` for what needs none.
        figures: In the order in which they are told.
        notes: What a reader has to know to believe the figures, such as how often each one was made durable.
    """

    workload: str
    store: str
    figures: list[Figure] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(
        self,
        name: str,
        values: Iterable[float],
        unit: str = RATIO,
        *,
        most: float | None = None,
        least: float | None = None,
    ) -> None:
        self.figures.append(Figure(name, unit, tuple(values), most, least))

    def text(self) -> str:
        return "\n".join(
            [f"{self.workload} on {self.store}", *(f"  {figure.line()}" for figure in self.figures)]
            + [f"  - {note}" for note in self.notes]
        )

    def document(self) -> dict[str, Any]:
        return {
            "workload": self.workload,
            "store": self.store,
            "figures": [figure.document() for figure in self.figures],
            "notes": self.notes,
        }


def shown(value: float) -> str:
    """Return a number with three digits that count."""
    if value == 0 or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.2f}" if abs(value) >= 1 else f"{value:.3g}"


def spread(ratios: Sequence[float]) -> str:
    """Return the median with its quartiles."""
    low, middle, high = statistics.quantiles(ratios, n=4)
    return f"{middle:.2f} ({low:.2f} to {high:.2f})"
