"""The past as percentiles show it and as estimates are drawn from it, read once."""

from __future__ import annotations

import time
from dataclasses import replace
from math import inf
from typing import TYPE_CHECKING

from dagster_lifeguard.engine.rules.admission import PATIENCE_SECONDS
from dagster_lifeguard.insight.durations import RUNS_MAX, durations_of, read_history
from dagster_lifeguard.insight.pool_account import open_ledger
from dagster_lifeguard.insight.shapes import RunSoFar
from dagster_lifeguard.insight.simulation.recent_past import newest_entries, recent_past
from dagster_lifeguard.insight.simulation.track_record import WORK, Rules, judge, record_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dagster_lifeguard.deployment.contract import Deployment, Settings
    from dagster_lifeguard.deployment.history import RunExecution
    from dagster_lifeguard.insight.durations import Durations
    from dagster_lifeguard.insight.simulation.recent_past import RecentPast
    from dagster_lifeguard.insight.simulation.track_record import TrackRecord

WEEK_SECONDS = 7 * 86400.0
"""Estimates of so much of the past are judged."""


def read_past(deployment: Deployment, settings: Settings, since: float, until: float) -> Durations:
    """Look at the executions of a window, or of the end of it where these are many.

    Args:
        deployment: Where history and ledger are.
        settings: Of the deployment.
        since: The beginning of the window, in seconds since the epoch.
        until: Its end: now.

    Raises:
        DeploymentError: It cannot be read.
    """
    history = read_history(deployment, since, until)
    recent = read_recent(deployment, settings, history, since)
    durations = durations_of(history, settings, since, until)
    return replace(durations, shapes=recent.shapes(), so_far=_so_far(recent))


def read_past_and_record(
    deployment: Deployment,
    settings: Settings,
    since: float,
    until: float,
    pool: str | None = None,
    work: int = WORK,
) -> tuple[Durations, TrackRecord]:
    """The same, and how well estimates of the last week fitted.

    Args:
        deployment: Where history and ledger are.
        settings: Of the deployment.
        since: The beginning of the window, in seconds since the epoch.
        until: Its end: now.
        pool: Judge only waits for this pool; None: for any.
        work: How much is played for the record; see ``track_record``.

    Raises:
        DeploymentError: It cannot be read.
    """
    begin = min(since, until - WEEK_SECONDS)
    history = read_history(deployment, begin, until)
    recent = read_recent(deployment, settings, history, begin)
    inside = [run for run in history if run.ended is None or run.ended >= since]
    durations = durations_of(inside, settings, since, until)
    durations = replace(durations, shapes=recent.shapes(), so_far=_so_far(recent))
    return durations, _record(deployment, settings, recent, pool, work)


def read_record(deployment: Deployment, settings: Settings, until: float) -> TrackRecord:
    """How well estimates of the last week fitted.

    Args:
        deployment: Where history and ledger are.
        settings: Of the deployment.
        until: Now.

    Raises:
        DeploymentError: It cannot be read.
    """
    begin = until - WEEK_SECONDS
    history = read_history(deployment, begin, until)
    recent = read_recent(deployment, settings, history, begin)
    return _record(deployment, settings, recent, None, WORK)


def _record(
    deployment: Deployment, settings: Settings, recent: RecentPast, pool: str | None, work: int
) -> TrackRecord:
    pools = {p for one in recent.executions for p in one.demand.pools}
    pools |= {p for past in recent.runs for p in past.run.pools or ()}
    runs = {run.run_id: run for run in deployment.runs([p.run.run_id for p in recent.runs])}
    patience = settings.patience_seconds
    rules = Rules(
        {state.pool: state.settings for state in deployment.pools(pools)} if pools else {},
        deployment.run_queue(),
        settings.granularity == "run",
        PATIENCE_SECONDS if patience is None else patience,
    )
    judged, without = judge(recent, rules, runs, pool=pool, work=work)
    return record_of(judged, without, recent.since)


def read_recent(
    deployment: Deployment, settings: Settings, history: Sequence[RunExecution], since: float
) -> RecentPast:
    """What the ledger, where there is one, and the history tell of the runs of a window.

    Args:
        deployment: Where the ledger is.
        settings: Of the deployment.
        history: The runs of the window.
        since: The beginning of the window.

    Raises:
        StoreUnavailableError: The database does not answer.
    """
    ends = [run.ended for run in history if run.ended is not None]
    if len(ends) >= RUNS_MAX:  # Older ones were not read.
        since = max(since, min(ends))
    with open_ledger(deployment, settings) as store:
        if store is None or settings.granularity == "run":
            return recent_past(history, settings, since)
        ahead = store.now() - time.time()
        begin, entries = newest_entries(store, since + ahead)
        return recent_past(history, settings, begin - ahead, entries, ahead)


def _so_far(recent: RecentPast) -> dict[str, RunSoFar]:
    """How far the runs in progress have come."""
    found = {
        past.run.run_id: RunSoFar(past.launched, {}) for past in recent.runs if past.ended == inf
    }
    for one in recent.executions:
        if one.ended != inf and one.key.run_id in found:
            found[one.key.run_id].done[one.key.step_key] = one.ended
    return found
