"""The report of ``lifeguard check`` as text and as JSON."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from rich.text import Text

from dagster_lifeguard.cli.findings import (
    finding_as_json,
    print_finding,
    verdict,
)
from dagster_lifeguard.cli.tables import Column, WholeTable, new_console, table_of
from dagster_lifeguard.texts import number

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from dagster_lifeguard.inspections.check.location import Location
    from dagster_lifeguard.inspections.check.report import CheckReport
    from dagster_lifeguard.inspections.finding import Finding
    from dagster_lifeguard.policy.assignments import Assignment

ROWS_MAX = 200
"""With more assets than this the table is summed up by rule, unless --all asks for each."""

Row = tuple["Location", "Assignment"]

SORT_KEYS: dict[str, Callable[[Row], Any]] = {
    "asset": lambda row: row[1].asset,
    "pool": lambda row: (row[1].text, row[1].asset),
    "rule": lambda row: (row[1].rule is None, row[1].rule or 0, row[1].asset),
    "kind": lambda row: (row[1].kind, row[1].asset),
    "group": lambda row: (row[1].group or "", row[1].asset),
}


def report_as_json(
    found: CheckReport, rows: Sequence[Row], shown: Sequence[Finding]
) -> dict[str, Any]:
    """Return what ``--json`` prints: the report with these assets and findings of it."""
    return {
        "version": 1,
        "granularity": found.granularity,
        "instance": found.instance,
        "errors": [finding_as_json(f) for f in shown if f.severity == "error"],
        "warnings": [finding_as_json(f) for f in shown if f.severity == "warning"],
        "assets": [
            {
                "asset": a.asset,
                "location": location.name,
                "group": a.group,
                "kind": a.kind,
                "rule": None if a.rule is None else a.rule + 1,
                "pools": [
                    {"name": term.name, "slots": term.slots, "limit": location.limits[term.name]}
                    for term in a.own_terms
                ],
                "current_pools": list(a.current),
                "explicit": a.explicit,
                "steps": a.steps,
                "executed_with": list(a.executed_with),
                "shared_ops": list(a.shared_ops),
                "tagged_ops": list(a.tagged_ops),
            }
            for location, a in rows
        ],
    }


def print_report(
    found: CheckReport, rows: Sequence[Row], shown: Sequence[Finding], *, in_full: bool
) -> None:
    """Print a report as text.

    Args:
        found: The report.
        rows: The assets to show.
        shown: The findings to show.
        in_full: Whether each asset gets a line; otherwise each rule does.
    """
    console = new_console()
    if rows and in_full:
        with_location = len(found.locations) > 1
        console.print(_asset_table(rows, found, with_location=with_location))
        for line in _legend(rows):
            console.print(Text(line, style="dim"))
    elif rows:
        console.print(_rule_table(rows))
    if not in_full and len(rows) > ROWS_MAX:
        console.print("[dim]List them with --all, or some of them with --select TEXT.[/dim]")
    console.print()
    for finding in shown:
        print_finding(console, finding)
    console.print(_totals(rows, found, shown))


def _asset_table(rows: Sequence[Row], found: CheckReport, *, with_location: bool) -> WholeTable:
    def limits(row: Row) -> str:
        return "?" if row[1].pools and found.instance is None else _limits(*row)

    return table_of(
        rows,
        Column("asset", lambda row: row[1].asset),
        Column("location", lambda row: row[0].name, shown=with_location),
        Column("kind", lambda row: _kind(row[1])),
        Column("rule", lambda row: _rule(row[1])),
        Column("pool", lambda row: _pools(row[1])),
        Column("limit", limits, right=True),
        Column("per", lambda row: _granularity(row[1], found.granularity)),
    )


def _kind(a: Assignment) -> str:
    words = {"multi_asset": "multi", "graph_asset": "graph", "observation": "observe"}
    return words.get(a.kind, a.kind)


def _rule(a: Assignment) -> str:
    if a.explicit:
        return "own"
    return "-" if a.rule is None else str(a.rule + 1)


def _pools(a: Assignment) -> str:
    if not a.is_applied:
        return f"{a.current_text or 'none'} -> {a.text or 'none'}"
    return a.text or ("-" if a.kind in ("external", "check") else "none")


def _limits(location: Location, a: Assignment) -> str:
    if not a.own_terms:
        return "-"
    limits = [location.limits[term.name] for term in a.own_terms]
    return ", ".join("none" if limit is None else str(limit) for limit in limits)


def _granularity(a: Assignment, granularity: str) -> str:
    if not a.own_terms:
        return "-"
    if granularity == "run":
        return granularity
    if a.holds:
        return "asset"
    return "op" if a.steps == 1 else f"op x{a.steps}"


def _legend(rows: Sequence[Row]) -> list[str]:
    found = [a for _, a in rows]
    lines = []
    multi = {a.engine for a in found if a.kind == "multi_asset" and a.pools}
    if "stock" in multi:
        lines.append("multi: one op makes several assets and claims the pool of the first of them.")
    if "lifeguard" in multi:
        lines.append("multi: one op makes several assets and claims the pools of those selected.")
    of_graphs = {a.holds for a in found if a.kind == "graph_asset" and a.pools and a.steps > 1}
    if False in of_graphs:
        lines.append("op xN: a graph asset; its N steps claim the pool one by one, each by itself.")
    if True in of_graphs:
        lines.append("asset: a graph asset; its steps hold the pools together, first to last.")
    tagged = sorted({op for a in found for op in a.tagged_ops})
    if tagged:
        lines.append(
            f"Ops with a pool for each use, which Dagster's UI does not show: {', '.join(tagged)}."
        )
    if any(a.explicit for a in found):
        lines.append("rule own: the pool that the asset declares itself.")
    if any(_pools(a) == "none" for a in found):
        lines.append("pool none: unlimited.")
    if not all(a.is_applied for a in found):
        lines.append("pool x -> y: the definitions have x, the policy gives y.")
    return lines


def _rule_table(rows: Sequence[Row]) -> WholeTable:
    groups: dict[tuple[str, str], list[Assignment]] = {}
    for location, a in sorted(rows, key=SORT_KEYS["rule"]):
        what = {"own": "declare their pool", "-": "no rule"}.get(_rule(a))
        if a.kind == "external":
            what = "not executed here"
        if what is None and a.rule is not None:
            what = location.rules[a.rule]
        groups.setdefault((_rule(a), what or ""), []).append(a)
    return table_of(
        groups.items(),
        Column("rule", lambda group: group[0][0]),
        Column("assets selected", lambda group: group[0][1], prose=True),
        Column("assets", lambda group: str(len(group[1])), right=True),
        Column(
            "pools",
            lambda group: str(len({t.name for a in group[1] for t in a.own_terms})),
            right=True,
        ),
        Column("for example", lambda group: group[1][0].asset),
    )


def _totals(rows: Sequence[Row], found: CheckReport, shown: Sequence[Finding]) -> str:
    # Of all assets, also those that are not shown; a check runs for its asset.
    users = Counter(
        term.name
        for location in found.locations
        for a in location.assignments
        if a.kind != "check"
        for term in a.own_current_terms
    )
    executed = [a for _, a in rows if a.kind not in ("external", "check")]
    own = sum(1 for a in executed if any(users[term.name] == 1 for term in a.own_current_terms))
    shared = sum(1 for a in executed if a.own_current_terms) - own
    parts = [f"{own} alone in a pool", f"{shared} in a shared pool"]
    # A pool whose limit is not known may be unlimited too.
    rest = "unlimited" if found.instance else "without a pool"
    parts.append(f"{len(executed) - own - shared} {rest}")
    external = sum(1 for _, a in rows if a.kind == "external")
    parts += [f"{external} external"] if external else []
    lines = [f"{number(len(executed), 'asset')}: {', '.join(parts)}."]
    last = verdict(shown)
    if found.instance is None:
        if not any(f.code == "no-instance" for f in shown):
            lines.append("No instance was looked at: whether the pools have a limit is not known.")
        if not shown:
            last = "no findings in the definitions"
    return "\n".join([*lines, f"[bold]{last}[/bold]"])
