"""The runs of an asset that were dropped because another run does their work."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dagster_lifeguard.engine.rules.duplicates import DUPLICATE_TAG
from dagster_lifeguard.errors import LifeguardError
from dagster_lifeguard.insight.run_label import label_of

if TYPE_CHECKING:
    from dagster_lifeguard.deployment.contract import Deployment, Run

RUNS_MAX = 1000
"""At most this many of the newest dropped runs are looked at."""

PLANS_MAX = 50
"""Of the runs that do not tell their assets, the plans of at most this many are read."""

LAST_MAX = 10
"""At most this many are told one by one."""


@dataclass(frozen=True, slots=True)
class DroppedRun:
    """A run that was dropped.

    Attributes:
        ended: When it was dropped, in seconds since the epoch.
        partition: Its partition; empty if it has none.
        kept: The run that does its work.
    """

    run_id: str
    ended: float
    partition: str
    kept: str


@dataclass(frozen=True, slots=True)
class Dropped:
    """The runs of one asset that were dropped in a period.

    Attributes:
        count: How many there are.
        last: The last of them, the newest first, at most ``LAST_MAX``.
    """

    count: int
    last: tuple[DroppedRun, ...]


def dropped_of(
    deployment: Deployment, asset: str, *, since: float, until: float, last_max: int = LAST_MAX
) -> Dropped:
    """The runs of an asset that were dropped in a period.

    Args:
        deployment: Where the runs are.
        asset: As ``a/b``.
        since: The beginning of the period, in seconds since the epoch.
        until: Its end.
        last_max: At most this many are told one by one.
    """
    plans_left = PLANS_MAX
    found = []
    for run in reversed(deployment.dropped_runs(since, RUNS_MAX)):
        if run.ended is None or run.ended > until:
            continue
        assets = run.assets
        if not assets and plans_left:
            plans_left -= 1
            assets = _planned(deployment, run)
        if asset in assets:
            kept = run.tags.get(DUPLICATE_TAG, "")
            found.append(DroppedRun(run.run_id, run.ended, label_of(run).partition or "", kept))
    found.sort(key=lambda one: -one.ended)
    return Dropped(len(found), tuple(found[:last_max]))


def _planned(deployment: Deployment, run: Run) -> tuple[str, ...]:
    try:
        steps = deployment.planned_steps(run.run_id)
    except LifeguardError:  # Its plan is gone.
        return ()
    return tuple(asset for step in steps for asset in step.assets)
