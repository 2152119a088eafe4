"""What an audit found, in a sentence."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dagster_lifeguard.texts import date_text, number, often

if TYPE_CHECKING:
    from dagster_lifeguard.inspections.audit.deployment_audit import AuditReport


def verdict_text(report: AuditReport) -> str:
    """The verdict and its evidence, in one sentence."""
    found = report.limits
    source = "the engine's ledger" if found.source == "ledger" else "Dagster's event logs"
    what = (
        f"Audited {number(found.executions, 'execution')} of {number(found.pools, 'pool')} from "
        f"{date_text(found.since)} to {date_text(found.until)} by {source}"
    )
    rated = f", rates of {number(found.rated_pools, 'pool')} kept" if found.rated_pools else ""
    exceeded = [
        f"{what} exceeded {often(count)}"
        for what, count in (("limits", found.excess_count), ("rates", found.early_count))
        if count
    ]
    unsafe = [
        text
        for text, count in (
            (f"a fence did not grow {often(found.stale_count)}", found.stale_count),
            (
                f"{number(found.outlived_count, 'step')} went on after the lease",
                found.outlived_count,
            ),
        )
        if count
    ]
    said = {
        "kept": f"no limit exceeded{rated}.",
        "exceeded": f"{' and '.join(exceeded + unsafe)}.",
        "unsafe": f"no limit exceeded{rated}, but {' and '.join(unsafe)}.",
        "in-doubt": "no limit exceeded for certain, and perhaps one by executions without an end.",
        "no-evidence": "nothing was executed that a limit could be judged by.",
    }
    return f"{what}: {said[report.verdict]}"
