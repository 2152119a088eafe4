"""``lifeguard audit``: whether any limit was exceeded, proved from what is written down."""

from __future__ import annotations

import json
import time
from functools import partial
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.text import Text

from dagster_lifeguard.cli import completion
from dagster_lifeguard.cli.duration_option import read_duration
from dagster_lifeguard.cli.progress_line import progress_line
from dagster_lifeguard.cli.target import quiet_deployment_options
from dagster_lifeguard.engine.rules.shown_names import pool_text
from dagster_lifeguard.insight.subject import known_pool
from dagster_lifeguard.inspections.audit.verdict import verdict_text
from dagster_lifeguard.texts import date_text, duration_text, number, often, printable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from dagster_lifeguard.deployment.contract import Deployment
    from dagster_lifeguard.inspections.audit.audit_result import (
        Audit,
        EarlyStart,
        Excess,
        LongWait,
        Outlived,
        StaleFence,
        Subject,
    )
    from dagster_lifeguard.inspections.audit.deployment_audit import AuditReport

NOTHING_FOUND: Mapping[Subject, str] = {
    "limits": "Limits: nothing found",
    "rates": "Rates: nothing found",
    "fences": "Fences: nothing found",
    "leases": "Steps after their lease: nothing found",
    "duplicates": "Two runs in one asset at once: nothing found",
    "waits": "Long waits: nothing found",
}
"""What stands above caveats where there is nothing else."""

CSV_TABLES = ("excesses", "rates", "fences", "leases", "duplicates", "waits")
"""What can be printed as CSV."""

SHOWN_MAX = 10
"""So many findings of a kind are shown as text; JSON has the first 1,000."""


@click.command("audit")
@click.option(
    "--since",
    default="7d",
    show_default=True,
    callback=read_duration,
    help="How far back to look, e.g. 30m, 24h, 7d.",
)
@click.option("--pool", shell_complete=completion.pools, help="Check only this pool.")
@click.option(
    "--by",
    type=click.Choice(["ledger", "event-logs"]),
    help="Evidence to judge limits by.  [default: the engine's ledger if it is on, else Dagster's "
    "event logs]",
)
@click.option(
    "--long-wait",
    default="10m",
    show_default=True,
    callback=read_duration,
    help="Report waits of at least this long.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option(
    "--csv", "table", type=click.Choice(CSV_TABLES), help="Print one kind of finding as CSV."
)
@quiet_deployment_options
def audit_command(
    deployment: Deployment,
    since: float,
    pool: str | None,
    by: Any,
    long_wait: float,
    *,
    as_json: bool,
    table: str | None,
) -> None:
    """Check past runs: was any limit or rate exceeded?

    Also finds fences that did not grow, steps that continued after their lease, pairs of runs that
    made the same partition of an asset at the same time, and long waits. The report counts what the
    history does not show.

    \b
    Examples:
      lifeguard audit
      lifeguard audit --since 24h --pool warehouse
      lifeguard audit --csv leases > leases.csv
      lifeguard audit --json | jq '.limits.exceeded'

    Exit codes: 0 nothing exceeded; 1 a limit or a rate was exceeded, a fence did not grow, or a
    step continued after its lease; 2 usage error.
    """
    from dagster_lifeguard.inspections.audit.deployment_audit import FOUND, audit  # noqa: PLC0415 - slow
    from dagster_lifeguard.web.csv_tables import csv_of  # noqa: PLC0415 - slow

    if as_json and table is not None:
        raise click.UsageError("Give --json or --csv, not both.")
    if pool is not None:
        pool = known_pool(deployment, pool)
    now = time.time()
    with progress_line() as line:
        report = audit(
            deployment,
            since=now - since,
            until=now,
            pool=pool,
            by=by,
            long_seconds=long_wait,
            progress=lambda what, count: line(f"reading {what}: {count:,}"),
        )
    if table is not None:
        click.echo(csv_of("audit", report, table), nl=False)
    elif as_json:
        click.echo(json.dumps(report_as_json(report), indent=2))
    else:
        print_report(report, long_wait)
    click.get_current_context().exit(1 if report.verdict in FOUND else 0)


# ---- text ----------------------------------------------------------------------------------------


def print_report(report: AuditReport, long_wait: float) -> None:
    """Print a report as text: of all that is judged, what was found and what cannot be told.

    Last comes the verdict.
    """
    console = Console(highlight=False, emoji=False, soft_wrap=True)
    limits, executions = report.limits, report.executions
    parts: Mapping[Subject, Callable[[], bool]] = {
        "limits": partial(_print_limits, console, limits),
        "rates": partial(_print_early, console, limits),
        "fences": partial(_print_stale, console, limits),
        "leases": partial(_print_outlived, console, limits),
        "duplicates": partial(_print_duplicates, console, executions),
        "waits": partial(_print_waits, console, limits, long_wait),
    }
    for subject, print_found in parts.items():
        is_found, caveats = print_found(), report.caveats(subject)
        if caveats and not is_found:
            console.print(Text(NOTHING_FOUND[subject], style="bold"))
        for caveat, count in caveats.items():
            console.print(Text(f"  - {caveat.sentence(count)}", style="dim"))
        if caveats or is_found:
            console.print()
    styles = {"kept": "bold green", "exceeded": "bold red", "unsafe": "bold red"}
    style = styles.get(report.verdict, "bold yellow")
    console.print(Text(verdict_text(report), style=style))


def _print_limits(console: Console, found: Audit) -> bool:
    heading = f"A limit was exceeded {often(found.excess_count)}."
    return _print_excesses(console, heading, found.excesses, found.excess_count)


def _print_duplicates(console: Console, found: Audit) -> bool:
    heading = f"Two runs made one asset at once {often(found.duplicate_count)}."
    return _print_excesses(console, heading, found.duplicates, found.duplicate_count)


def _print_excesses(console: Console, heading: str, found: tuple[Excess, ...], count: int) -> bool:
    if not count:
        return False
    console.print(Text(heading, style="bold"))
    for excess in found[:SHOWN_MAX]:
        lane = excess.lane
        name = pool_text(lane.name) if lane.kind == "pool" else lane.name
        name += f" [{lane.partition}]" if lane.partition else ""
        lasted = "" if excess.seconds is None else f" for {_seconds(excess.seconds)}"
        held = f"{excess.held} of {excess.limit} slots" if lane.kind == "pool" else "two runs"
        if excess.held > 2 and lane.kind == "asset":  # noqa: PLR2004
            held = f"{excess.held} runs"
        going_on = ", and goes on" if excess.ended is None else ""
        console.print(
            Text.assemble(
                "  ",
                (printable(name), "red"),
                f"  {held}{lasted} from {date_text(excess.started)}{going_on}",
            )
        )
        for occupant in excess.occupants[-SHOWN_MAX:]:
            step = f" step {occupant.step_key}" if occupant.step_key else ""
            line = f"run {occupant.run_id}{step} since {_clock(occupant.started)}"
            console.print(Text(f"      {printable(line)}", style="dim"))
    if count > SHOWN_MAX:
        console.print(Text(f"  and {count - SHOWN_MAX:,} more; --json lists the first 1,000"))
    return True


def _print_early(console: Console, found: Audit) -> bool:
    if not found.early_count:
        return False
    console.print(Text(f"A rate was exceeded {often(found.early_count)}.", style="bold"))
    for early in found.early[:SHOWN_MAX]:
        started = early.occupant
        who = f"run {started.run_id} step {started.step_key} at {_clock(started.started)}"
        how = f"  {_seconds(early.seconds)} too early for {early.rate}"
        console.print(Text.assemble("  ", (printable(pool_text(early.pool)), "red"), how))
        console.print(Text(f"      {printable(who)}", style="dim"))
    if found.early_count > SHOWN_MAX:
        console.print(Text(f"  and {found.early_count - SHOWN_MAX:,} more"))
    return True


def _print_stale(console: Console, found: Audit) -> bool:
    if not found.stale_count:
        return False
    console.print(Text(f"A fence did not grow {often(found.stale_count)}.", style="bold"))
    for stale in found.stale[:SHOWN_MAX]:
        given = "given twice" if stale.fence == stale.largest else f"given after {stale.largest}"
        console.print(
            Text.assemble(
                "  ", (printable(pool_text(stale.pool)), "red"), f"  {stale.fence} {given}"
            )
        )
        for who in (stale.first, stale.occupant):
            line = f"run {who.run_id} step {who.step_key} at {date_text(who.started)}"
            console.print(Text(f"      {printable(line)}", style="dim"))
    if found.stale_count > SHOWN_MAX:
        console.print(Text(f"  and {found.stale_count - SHOWN_MAX:,} more"))
    return True


def _print_outlived(console: Console, found: Audit) -> bool:
    if not found.outlived_count:
        return False
    steps = number(found.outlived_count, "step")
    console.print(Text(f"{steps} went on after the lease was over.", style="bold"))
    for late in found.outlived[:SHOWN_MAX]:
        pools = (printable(", ".join(map(pool_text, late.pools))), "red")
        how = f"  for {_seconds(late.seconds)} or more after {date_text(late.expired)}"
        who = f"run {late.run_id} step {late.step_key}, fence {late.fence}"
        wrote = f"{late.event} at {_clock(late.wrote)} by its machine's clock"
        console.print(Text.assemble("  ", pools, how))
        console.print(Text(f"      {printable(who)}, wrote {wrote}", style="dim"))
    if found.outlived_count > SHOWN_MAX:
        console.print(Text(f"  and {found.outlived_count - SHOWN_MAX:,} more"))
    return True


def _print_waits(console: Console, found: Audit, long_wait: float) -> bool:
    if not found.wait_count:
        return False
    waits = number(found.wait_count, "wait")
    console.print(Text(f"{waits} of {duration_text(long_wait)} or more", style="bold"))
    for wait in found.waits[:SHOWN_MAX]:
        who = f"run {wait.run_id}" + (f" step {wait.step_key}" if wait.step_key else " (queued)")
        line = f"{duration_text(wait.seconds):>12}  {pool_text(wait.name)}  {who}"
        line += f" until {date_text(wait.ended)}"
        console.print(Text(f"  {printable(line)}"))
    if found.wait_count > SHOWN_MAX:
        console.print(Text(f"  and {found.wait_count - SHOWN_MAX:,} more"))
    return True


def _clock(at: float) -> str:
    return time.strftime("%H:%M:%S", time.localtime(at)) + f"{at % 1:.3f}"[1:]


def _seconds(seconds: float) -> str:
    return f"{seconds:.3f} s" if seconds < 10 else duration_text(seconds)  # noqa: PLR2004


# ---- JSON ----------------------------------------------------------------------------------------


def report_as_json(report: AuditReport) -> dict[str, Any]:
    """Return what ``--json`` prints; times are seconds since the epoch."""
    limits, executions = report.limits, report.executions
    return {
        "version": 1,
        "verdict": report.verdict,
        "since": limits.since,
        "until": limits.until,
        "limits": {
            "source": limits.source,
            "executions": limits.executions,
            "pools": limits.pools,
            "exceeded": limits.excess_count,
            "found": [_excess(excess) for excess in limits.excesses],
            "caveats": _caveats(report, "limits"),
        },
        "rates": {
            "pools": limits.rated_pools,
            "exceeded": limits.early_count,
            "found": [_early(early) for early in limits.early],
            "caveats": _caveats(report, "rates"),
        },
        "fences": {
            "stale": limits.stale_count,
            "found": [_stale(stale) for stale in limits.stale],
            "caveats": _caveats(report, "fences"),
        },
        "leases": {
            "outlived": limits.outlived_count,
            "found": [_outlived(late) for late in limits.outlived],
            "caveats": _caveats(report, "leases"),
        },
        "duplicates": {
            "source": executions.source,
            "count": executions.duplicate_count,
            "found": [_excess(excess) for excess in executions.duplicates],
            "caveats": _caveats(report, "duplicates"),
        },
        "long_waits": {
            "count": limits.wait_count,
            "longest": [_wait(wait) for wait in limits.waits],
            "caveats": _caveats(report, "waits"),
        },
    }


def _excess(excess: Excess) -> dict[str, Any]:
    lane = excess.lane
    where: dict[str, Any] = {"pool": lane.name, "limit": excess.limit, "held": excess.held}
    if lane.kind == "asset":
        where = {"asset": lane.name, "partition": lane.partition or None}
    return {
        **where,
        "started": excess.started,
        "ended": excess.ended,
        "seconds": excess.seconds,
        "executions": [
            {
                "run_id": occupant.run_id,
                "step_key": occupant.step_key or None,
                "started": occupant.started,
                "slots": occupant.slots,
            }
            for occupant in excess.occupants
        ],
    }


def _early(early: EarlyStart) -> dict[str, Any]:
    return {
        "pool": early.pool,
        "rate": early.rate,
        "seconds": early.seconds,
        "run_id": early.occupant.run_id,
        "step_key": early.occupant.step_key,
        "started": early.occupant.started,
    }


def _stale(stale: StaleFence) -> dict[str, Any]:
    return {
        "pool": stale.pool,
        "fence": stale.fence,
        "largest": stale.largest,
        "grants": [
            {"run_id": who.run_id, "step_key": who.step_key, "granted": who.started}
            for who in (stale.first, stale.occupant)
        ],
    }


def _outlived(late: Outlived) -> dict[str, Any]:
    return {
        "pools": list(late.pools),
        "run_id": late.run_id,
        "step_key": late.step_key,
        "fence": late.fence,
        "granted": late.granted,
        "expired": late.expired,
        "event": late.event,
        "wrote": late.wrote,
        "seconds": late.seconds,
    }


def _wait(wait: LongWait) -> dict[str, Any]:
    return {
        "seconds": wait.seconds,
        "pool": wait.name,
        "run_id": wait.run_id,
        "step_key": wait.step_key or None,
        "ended": wait.ended,
    }


def _caveats(report: AuditReport, subject: Subject) -> list[dict[str, Any]]:
    return [
        {"code": caveat.value, "count": count, "message": caveat.sentence(count)}
        for caveat, count in report.caveats(subject).items()
    ]
