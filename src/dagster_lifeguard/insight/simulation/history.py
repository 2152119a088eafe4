"""Recordings read from a deployment: from the engine's ledger, or else from event logs."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

from dagster_lifeguard.deployment.history import read_span
from dagster_lifeguard.engine.rules.pool_settings import limit_in_force
from dagster_lifeguard.errors import DeploymentError
from dagster_lifeguard.insight.pool_account import open_ledger
from dagster_lifeguard.insight.simulation.event_log_past import from_event_logs
from dagster_lifeguard.insight.simulation.ledger_past import from_ledger
from dagster_lifeguard.insight.simulation.past_runs import MOMENTS_MAX, PastQueue
from dagster_lifeguard.insight.simulation.run_past import from_runs

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from dagster_lifeguard.compat.health import RunQueue
    from dagster_lifeguard.deployment.contract import Deployment, Settings
    from dagster_lifeguard.deployment.history import LedgerSpan
    from dagster_lifeguard.engine.rules.pool_settings import PoolSettings
    from dagster_lifeguard.engine.store.contract import Store
    from dagster_lifeguard.insight.simulation.recording import Recording, Source, Tags

RUNS_AT_ONCE = 1000


def read_recording(
    deployment: Deployment, *, since: float, until: float, by: Source | None = None
) -> Recording:
    """Read what was asked for in a window.

    Args:
        deployment: The deployment.
        since: Seconds since the epoch.
        until: The same: now.
        by: Where to read; None: the ledger where there is one, else the event logs.

    Raises:
        DeploymentError: It cannot be read, has no ledger, or pools have no effect.
    """
    settings = deployment.settings()
    live = {pool: found.lasting for pool, found in deployment.pool_settings().items()}
    rules = deployment.run_queue()
    if settings.granularity == "run":
        if rules is None:
            raise DeploymentError(
                f"{deployment.name} has granularity: run and no run queue, so its pools hold "
                "nothing back.",
                remedy="Configure the run queue, or set granularity: op in dagster.yaml.",
                names=[deployment.name],
            )
        queue = _queue(deployment, rules, since, until, by_run=True)
        return from_runs(queue, live, settings.default_limit, (since, until))
    with open_ledger(deployment, settings) as store:
        if store is None and by == "ledger":
            raise DeploymentError(
                f"{deployment.name} has no ledger: the engine does not run there, or is not "
                "reached from here.",
                remedy="Leave out --by ledger to play what Dagster's event logs tell.",
                names=[deployment.name],
            )
        if store is not None and by != "event-logs":
            past, ahead = _past(store, live, settings, since)
            span = (since + ahead, until + ahead)
            queue = _queue(deployment, rules, since, until, ahead=ahead)
            tags_of = _tags_of(deployment, queue)
            return from_ledger(past, live, settings.default_limit, span, tags_of, queue)
    runs = () if rules is None else deployment.runs_between(since, until)
    queue = PastQueue(rules, runs=runs)
    return from_event_logs(
        deployment.history(since, until),
        live,
        settings,
        (since, until),
        _tags_of(deployment, queue),
        queue,
    )


def _queue(
    deployment: Deployment,
    rules: RunQueue | None,
    since: float,
    until: float,
    *,
    ahead: float = 0.0,
    by_run: bool = False,
) -> PastQueue:
    latest = deployment.history(since, until, latest=MOMENTS_MAX)
    moments = {run.run_id: replace(run, steps=()) for run in latest}
    return PastQueue(rules, by_run, deployment.runs_between(since, until), moments, ahead)


def _past(
    store: Store, live: Mapping[str, PoolSettings], settings: Settings, since: float
) -> tuple[LedgerSpan, float]:
    ahead = store.now() - time.time()
    limits = {
        pool: limit_in_force(pool, found.limit, settings.default_limit)
        for pool, found in live.items()
    }
    rates = {pool: found.rate for pool, found in live.items() if found.rate is not None}
    return read_span(store, limits, rates, since=since + ahead), ahead


def _tags_of(deployment: Deployment, queue: PastQueue) -> Tags:
    known = {run.run_id: run.tags for run in queue.runs}

    def tags(run_ids: Collection[str]) -> Mapping[str, Mapping[str, str]]:
        ids = sorted(set(run_ids) - known.keys())
        return known | {
            run.run_id: run.tags
            for first in range(0, len(ids), RUNS_AT_ONCE)
            for run in deployment.runs(ids[first : first + RUNS_AT_ONCE])
        }

    return tags
