"""What a benchmark found, as values, and the table, the JSON and the page made of these values."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Literal

from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

HEADINGS = ("measure", "stock", "ours", "ratio", "goal", "")


@dataclass(frozen=True)
class Measure:
    """One figure of the package, beside Dagster's own and beside its goal.

    Attributes:
        name: What was measured, and on which database.
        ours: The figure with this package.
        unit: Of ``ours``, ``stock`` and ``goal``.
        stock: The same without this package; None where Dagster has nothing like it.
        goal: The worst figure that is good enough; None: there is no goal.
        better: Which figures are better.
        reason: Why the goal is missed, where that is known: what costs what.
    """

    name: str
    ours: float
    unit: str
    stock: float | None = None
    goal: float | None = None
    better: Literal["lower", "higher"] = "lower"
    reason: str = ""

    @property
    def ratio(self) -> float | None:
        """Ours divided by stock's; None where one of them is missing or stock's is 0."""
        return self.ours / self.stock if self.stock else None

    @property
    def met(self) -> bool | None:
        """Whether the goal is met; None: there is no goal."""
        if self.goal is None:
            return None
        return self.ours <= self.goal if self.better == "lower" else self.ours >= self.goal

    @property
    def cells(self) -> tuple[str, ...]:
        """The texts of a row of the table, one for each of ``HEADINGS``."""
        bound = "at most" if self.better == "lower" else "at least"
        not_met = f"not met: {self.reason}" if self.reason else "not met"
        return (
            self.name,
            "" if self.stock is None else f"{_number(self.stock)} {self.unit}",
            f"{_number(self.ours)} {self.unit}",
            "" if self.ratio is None else f"{self.ratio:.2f}x",
            "" if self.goal is None else f"{bound} {_number(self.goal)} {self.unit}",
            {None: "", True: "met", False: not_met}[self.met],
        )


def _number(value: float) -> str:
    if abs(value) >= 100 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.2f}" if abs(value) >= 0.1 else f"{value:.4f}"


def table_of(measures: Sequence[Measure], title: str) -> Table:
    """The table for a terminal."""
    table = Table(title=title)
    for heading in HEADINGS:
        is_text = heading in ("measure", "")
        table.add_column(
            heading, justify="left" if is_text else "right", no_wrap=not is_text, overflow="fold"
        )
    for measure in measures:
        table.add_row(*measure.cells)
    return table


def json_of(measures: Sequence[Measure], run: Mapping[str, object]) -> str:
    """The measures and the facts about their run, to be kept."""
    found = [{**asdict(each), "ratio": each.ratio, "met": each.met} for each in measures]
    return json.dumps({"run": dict(run), "measures": found}, indent=2) + "\n"


def rows_of(measures: Sequence[Measure]) -> list[str]:
    """A table in Markdown."""
    return [
        f"| {' | '.join(HEADINGS)} |",
        f"|{'---|' * len(HEADINGS)}",
        *(f"| {' | '.join(measure.cells)} |" for measure in measures),
    ]
