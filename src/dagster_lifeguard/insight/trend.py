"""How waits and holds of a pool compare with those of the period before."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dagster_lifeguard.insight.durations import Sample, uses
from dagster_lifeguard.insight.pool_users import PoolUsers

if TYPE_CHECKING:
    from dagster_lifeguard.deployment.contract import Deployment, Settings
    from dagster_lifeguard.insight.durations import Spread


@dataclass(frozen=True, slots=True)
class Stretch:
    """One period of a pool.

    Attributes:
        since: Its beginning, in seconds since the epoch.
        until: Its end.
        waits: How long the steps waited that started in it, in the run queue and at the pool; None
            if none did. Under granularity ``run``: the runs.
        holds: How long the pool was held by those that released it in this period.
    """

    since: float
    until: float
    waits: Spread | None
    holds: Spread | None


@dataclass(frozen=True, slots=True)
class Trend:
    """A period, and the period of the same length before it.

    Attributes:
        now: The period.
        before: The period before; None if the history does not reach back that far.
    """

    now: Stretch
    before: Stretch | None


def read_trend(
    deployment: Deployment,
    settings: Settings,
    pool: str,
    *,
    since: float,
    until: float,
    known_since: float,
) -> Trend:
    """Read the trend of a pool.

    Args:
        deployment: Where the history is.
        settings: Of the deployment.
        pool: The pool.
        since: The beginning of the period, in seconds since the epoch.
        until: Its end.
        known_since: Nothing is read of the time before this.
    """
    begin = since - (until - since)
    reaches_back = known_since <= begin
    waits: tuple[list[float], list[float]] = ([], [])  # of the period before, and of this one
    holds: tuple[list[float], list[float]] = ([], [])
    runs = deployment.history(begin if reaches_back else max(since, known_since), until)
    for run in PoolUsers(pool, settings).among(runs):
        for use in uses(run, settings):
            if use.pool != pool:
                continue
            if begin <= use.started < until:
                waits[use.started >= since].append(use.waited)
            ended = None if use.held is None else use.started + use.held
            if use.held is not None and ended is not None and begin <= ended < until:
                holds[ended >= since].append(use.held)

    stretches = [
        Stretch(begins, ends, Sample.of(waits[which]).spread(), Sample.of(holds[which]).spread())
        for which, (begins, ends) in enumerate(((begin, since), (since, until)))
    ]
    return Trend(now=stretches[1], before=stretches[0] if reaches_back else None)
