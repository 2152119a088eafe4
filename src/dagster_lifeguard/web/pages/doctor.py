"""Why a pool does not work, and what to do about it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dagster_lifeguard.deployment.home import home_folder
from dagster_lifeguard.inspections.doctor.examination import examine
from dagster_lifeguard.inspections.doctor.examined import Examined, Machine

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dagster_lifeguard.deployment.contract import Deployment
    from dagster_lifeguard.inspections.finding import Finding


@dataclass(frozen=True, slots=True)
class DoctorPage:
    """What an examination found.

    Attributes:
        at: When it was made.
        is_well: Whether there is no error and no warning.
        groups: Findings by what they are about, the worst first.
        counts: How many findings there are of each severity.
        clear: How many checks found nothing.
        unanswered: The checks that could not be answered, by the reason for it.
    """

    at: float
    is_well: bool
    groups: Mapping[str, tuple[Finding, ...]]
    counts: Mapping[str, int]
    clear: int
    unanswered: Mapping[str, tuple[str, ...]]


def doctor_page(deployment: Deployment, now: float) -> DoctorPage:
    """Examine a deployment; changes nothing."""
    found = examine(_subject(deployment))
    counts = dict.fromkeys(("error", "warning", "note"), 0)
    for finding in found.findings:
        counts[finding.severity] += 1
    return DoctorPage(
        at=now,
        is_well=found.is_well,
        groups=found.by_group(),
        counts=counts,
        clear=found.count("clear"),
        unanswered=found.unanswered(),
    )


def _subject(deployment: Deployment) -> Examined:
    """An instance is on this machine, with all that belongs to it; an endpoint is not."""
    if deployment.instance is None:
        return Examined(deployment.name, deployment=deployment)
    home = os.getenv("DAGSTER_HOME") or None
    return Examined(
        deployment.name,
        machine=Machine(home, Path.cwd()),
        file=None if home is None else home_folder(home) / "dagster.yaml",
        instance=deployment.instance,
        deployment=deployment,
        trouble="DAGSTER_HOME is not set",
    )
