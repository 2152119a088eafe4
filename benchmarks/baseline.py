"""The last full run of each benchmark, and the pages that show it.

``baseline.json`` keeps the figures, with the machine, the commit and the load at that time. A full
run may be made in pieces, so each benchmark has its own. The pages are made of this file alone.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Any, NamedTuple

from measures import Measure, rows_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

FOLDER = Path(__file__).parent
KEPT = FOLDER / "baseline.json"
PAGE = FOLDER / "BASELINE.md"
GOALS_PAGE = FOLDER.parent / "docs" / "reference" / "benchmarks.md"

_WIDTH = 110
_ABOUT = """
The last full run of each benchmark, made by `make bench OPTIONS=--full` or in pieces, such as
`make bench OPTIONS="--full --only engine"`. Run it on an idle machine, and commit the files.
""".strip()
_ABOUT_GOALS = """
Each benchmark has goals. This page has the figures of the last full run beside the goals and, where
a goal is not met, the reason. `ours` is Dagster with this package, `stock` is Dagster without it.
The figures are from {machines}. [benchmarks/BASELINE.md](../../benchmarks/BASELINE.md) has the
commit, the date and the load of each run, and the figures without a goal. `make bench` prints the
table of a short run on your machine.
""".strip()


class Kept(NamedTuple):
    """The last full run of one benchmark.

    Attributes:
        run: When, of what and where.
        measures: What it found.
    """

    run: Mapping[str, object]
    measures: tuple[Measure, ...]


def read(path: Path | None = None) -> dict[str, Kept]:
    """The last full runs, by the name of the benchmark; none if no run was kept yet."""
    path = path or KEPT
    if not path.exists():
        return {}
    return {
        name: Kept(found["run"], tuple(Measure(**each) for each in found["measures"]))
        for name, found in json.loads(path.read_text()).items()
    }


def keep(
    name: str, measures: Sequence[Measure], run: Mapping[str, object], path: Path | None = None
) -> None:
    """Keep the figures of a full run of one benchmark, in place of those of the last one."""
    path = path or KEPT
    found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    found[name] = {"run": dict(run), "measures": [asdict(each) for each in measures]}
    path.write_text(json.dumps(found, indent=2) + "\n")


def page_of(kept: Mapping[str, Kept], order: Sequence[str]) -> str:
    """All figures, in Markdown.

    Args:
        kept: By benchmark.
        order: The benchmarks, in the order in which they run.
    """
    lines = ["# Baseline", "", *fill(_ABOUT, _WIDTH).splitlines()]
    for name in order:
        if name not in kept:
            lines += ["", f"## {name}", "", "No full run was kept yet."]
            continue
        run, measures = kept[name]
        facts = (f"- {fact}: {value}" for fact, value in run.items())
        lines += ["", f"## {name}", "", *facts, "", *rows_of(measures)]
    return "\n".join(lines) + "\n"


def goals_page_of(kept: Mapping[str, Kept], order: Sequence[str]) -> str:
    """The figures that have a goal, in Markdown."""
    found = [m for name in order if name in kept for m in kept[name].measures if m.met is not None]
    machines = sorted({str(kept[name].run["machine"]) for name in order if name in kept})
    missed = sum(not measure.met for measure in found)
    about = _ABOUT_GOALS.format(machines=" and ".join(machines) or "no machine yet")
    lines = [
        "# What it costs: goals and figures",
        "",
        *fill(about, _WIDTH, break_long_words=False, break_on_hyphens=False).splitlines(),
        "",
        f"{len(found) - missed} of {len(found)} goals are met.",
        "",
        *rows_of(found),
    ]
    return "\n".join(lines) + "\n"


def write_pages(order: Sequence[str]) -> None:
    """Write both pages anew from what is kept."""
    kept = read()
    PAGE.write_text(page_of(kept, order))
    GOALS_PAGE.write_text(goals_page_of(kept, order))
