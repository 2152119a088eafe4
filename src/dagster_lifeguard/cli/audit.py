"""``lifeguard audit``: whether any limit was exceeded, proved from what is written down."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from dagster_lifeguard.cli import completion
from dagster_lifeguard.cli.audit_text import print_report
from dagster_lifeguard.cli.duration_option import duration_option
from dagster_lifeguard.cli.progress_line import progress_line
from dagster_lifeguard.cli.target import quiet_deployment_options
from dagster_lifeguard.insight.subject import known_pool

if TYPE_CHECKING:
    from dagster_lifeguard.deployment.contract import Deployment
    from dagster_lifeguard.inspections.audit.audit_result import (
        EarlyStart,
        Excess,
        LongWait,
        StaleFence,
        Subject,
    )
    from dagster_lifeguard.inspections.audit.deployment_audit import AuditReport

CSV_TABLES = ("excesses", "rates", "fences", "leases", "duplicates", "waits")
"""What can be printed as CSV."""


@click.command("audit")
@duration_option("--since", "7d", "How far back to look, e.g. 30m, 24h, 7d.")
@click.option("--pool", shell_complete=completion.pools, help="Check only this pool.")
@click.option(
    "--by",
    type=click.Choice(["ledger", "event-logs"]),
    help="Evidence to judge limits by.  [default: the engine's ledger if it is on, else Dagster's "
    "event logs]",
)
@duration_option("--long-wait", "10m", "Report waits of at least this long.")
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
            "found": [asdict(late) for late in limits.outlived],
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
