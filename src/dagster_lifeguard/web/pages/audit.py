"""The audit: whether limits were kept."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from dagster_lifeguard.inspections.audit.audit_result import SUBJECTS
from dagster_lifeguard.inspections.audit.deployment_audit import audit
from dagster_lifeguard.inspections.audit.verdict import verdict_text

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dagster_lifeguard.deployment.contract import Deployment
    from dagster_lifeguard.inspections.audit.audit_result import Audit, Subject
    from dagster_lifeguard.inspections.audit.deployment_audit import Verdict

SHOWN_MAX = 50
"""The most findings of a kind on the page; all are counted."""


@dataclass(frozen=True, slots=True)
class AuditPage:
    """A verdict and its evidence.

    Attributes:
        verdict: ``no-evidence`` when there was nothing to judge, which proves nothing.
        sentence: The verdict and its evidence.
        limits: Whether limits were kept, with the first ``SHOWN_MAX`` findings or more.
        executions: Whether two runs made one asset at once, with as many findings.
        caveats: What the history does not show, by subject.
        seconds: How far back it looked.
    """

    verdict: Verdict
    sentence: str
    limits: Audit
    executions: Audit
    caveats: Mapping[Subject, tuple[str, ...]]
    seconds: float


def audit_page(
    deployment: Deployment, seconds: float, now: float, shown_max: int = SHOWN_MAX
) -> AuditPage:
    """Audit a deployment.

    Args:
        deployment: The deployment itself, where its ledger is.
        seconds: How far back to look.
        now: Until when.
        shown_max: The most findings of a kind on the page; all are counted.
    """
    report = audit(deployment, since=now - seconds, until=now)
    return AuditPage(
        verdict=report.verdict,
        sentence=verdict_text(report),
        limits=_shown(report.limits, shown_max),
        executions=_shown(report.executions, shown_max),
        caveats={
            subject: tuple(c.sentence(count) for c, count in report.caveats(subject).items())
            for subject in SUBJECTS
        },
        seconds=seconds,
    )


def _shown(found: Audit, count_max: int) -> Audit:
    kinds = ("excesses", "early", "stale", "outlived", "duplicates", "waits")
    return replace(found, **{kind: getattr(found, kind)[:count_max] for kind in kinds})
