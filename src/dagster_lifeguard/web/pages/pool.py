"""One pool: its holders, its queue, what happened, and how its limit changed."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from dagster_lifeguard.insight.limit_history import limits_over_time
from dagster_lifeguard.insight.outlook import read_outlook
from dagster_lifeguard.insight.pool_account import CHANGES_MAX, account_of
from dagster_lifeguard.insight.pools import find_pool, look_into, runs_in
from dagster_lifeguard.insight.queue_look import IN_QUEUE_OR_PROGRESS
from dagster_lifeguard.insight.run_label import RunLabel, label_of
from dagster_lifeguard.insight.run_queue import queued_for
from dagster_lifeguard.insight.subject import known_pool
from dagster_lifeguard.insight.timeline import timeline_of_pool
from dagster_lifeguard.insight.upstream import Upstream, upstream_of
from dagster_lifeguard.insight.waits import read_held_back
from dagster_lifeguard.web.pages.window import BARS_MAX, PARTS, readable
from dagster_lifeguard.web.plots import Plot, pool_plots

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from dagster_lifeguard.insight.durations import Durations, Sample
    from dagster_lifeguard.insight.load import Load
    from dagster_lifeguard.insight.pool_account import Account
    from dagster_lifeguard.insight.pools import Pool
    from dagster_lifeguard.insight.run_queue import Queued
    from dagster_lifeguard.insight.simulation.track_record import TrackRecord
    from dagster_lifeguard.insight.timeline import Timeline
    from dagster_lifeguard.insight.trend import Trend
    from dagster_lifeguard.web.changes import PoolChange
    from dagster_lifeguard.web.pages.window import Window
    from dagster_lifeguard.web.seen_deployment import SeenDeployment

EDGES = (0.0, 0.1, 1.0, 10.0, 60.0, 600.0, 3600.0)
"""The edges of the ranges in which waits are counted, in seconds; the last range has no end."""

_WORK = 5_000
"""The work for the estimates of a page, see ``estimating``: a page is made anew often."""

QUEUED_SHOWN = 10
"""The most runs in the run queue on the page."""


@dataclass(frozen=True, slots=True)
class Bin:
    """The number of waits of one length.

    Attributes:
        at_least: The shortest wait, in seconds.
        below: The end of the range, in seconds; None if it has no end.
    """

    at_least: float
    below: float | None
    count: int


@dataclass(frozen=True, slots=True)
class PoolPage:
    """One pool.

    Attributes:
        name: The pool.
        at: When it was looked at.
        granularity: ``op`` if steps wait in their run, ``run`` if runs wait in the queue.
        engine: Whether the engine admits steps; None where that cannot be seen.
        patience_seconds: No later step of its priority passes a step that has waited longer; None
            without the engine.
        pool: The pool, with the first ``window.rows`` holders and waiters.
        labels: The labels of the runs of these holders and waiters, and of the runs in ``queued``.
        holding: How many holders there are in all.
        waiting: How many waiters there are at the pool in all. The runs that the run queue holds
            back are in ``queued``.
        queued: The runs in the run queue that will ask for it.
        window: What is shown.
        since: The beginning of the period.
        until: Its end.
        known_since: Since when the server remembers what happened, if later than ``since``.
        plots: The charts of the period.
        timeline: The executions in the window, and the first waiters.
        waits: How long steps waited before they got their slots, in the remembered past.
        past_seconds: How long the remembered past is.
        account: What the engine's ledger says; None without a ledger.
        changes: The changes over this server, newest first.
        upstream: What holds up the runs that use the pool before they come to it.
        trend: Waits and holds of the period beside the period before; None where the server
            remembers nothing.
        record: How well estimates of the last week fitted, of all pools; None if that is not known.
    """

    name: str
    at: float
    granularity: str
    engine: bool | None
    patience_seconds: float | None
    pool: Pool
    labels: Mapping[str, RunLabel]
    holding: int
    waiting: int
    queued: Queued
    window: Window
    since: float
    until: float
    known_since: float
    plots: tuple[Plot, ...]
    timeline: Timeline
    waits: tuple[Bin, ...]
    past_seconds: float
    account: Account | None
    changes: tuple[PoolChange, ...]
    upstream: tuple[Upstream, ...] = ()
    trend: Trend | None = None
    record: TrackRecord | None = None


def pool_page(
    deployment: SeenDeployment,
    name: str,
    past: Durations,
    window: Window,
    now: float,
    *,
    load: Load,
    changes: Sequence[PoolChange] = (),
    trend: Trend | None = None,
    record: TrackRecord | None = None,
) -> PoolPage:
    """The page of a pool. ``past`` is for percentiles and estimates; see ``PoolPage`` for the rest.

    Raises:
        UnknownNameError: There is no such pool.
    """
    known_pool(deployment, name)
    settings = deployment.settings()
    state = find_pool(deployment, name)
    held_back = deployment.held_back(now)
    if held_back is None:
        held_back = read_held_back(deployment, settings, [state], now)
    runs = runs_in(deployment, [state])
    line = deployment.unfinished_runs(IN_QUEUE_OR_PROGRESS)
    outlook = read_outlook(deployment, settings, deployment.pools(), past, now, line, work=_WORK)
    found = look_into(state, held_back, runs, past, now, outlook)
    since, until = load.since, load.until
    timeline = timeline_of_pool(
        deployment, name, since=since, until=min(until, now), count_max=BARS_MAX
    )
    account = account_of(deployment, settings, name, since)
    limits = limits_over_time(
        () if account is None else account.changes,
        state.limit,
        settings.default_limit,
        since=since,
        until=until,
        count=PARTS,
    )
    queued_max = window.rows if window.shows_all else QUEUED_SHOWN
    queued = queued_for(deployment, name, settings, now, queued_max, line, outlook)
    holders, queue = found.holders[: window.rows], found.queue[: window.rows]
    shown = {h.run_id for h in holders} | {w.run_id for w in queue}
    labels = {run_id: label_of(runs[run_id]) for run_id in shown & runs.keys()}
    labels |= _labels_of_queued(deployment, queued)
    return PoolPage(
        name=name,
        at=now,
        granularity=settings.granularity,
        engine=settings.engine,
        patience_seconds=settings.patience_seconds,
        pool=replace(found, holders=holders, queue=queue),
        labels=labels,
        holding=len(found.holders),
        waiting=len(found.queue),
        queued=queued,
        window=window,
        since=since,
        until=until,
        known_since=deployment.remembered_since(since),
        plots=pool_plots(load, name, limits),
        timeline=readable(timeline, window, since, until),
        waits=_bins(past.waits.get(name)),
        past_seconds=past.until - past.since,
        account=account,
        changes=tuple(changes[:CHANGES_MAX]),
        upstream=upstream_of(state, deployment.pools(), held_back, line),
        trend=trend,
        record=record,
    )


def _labels_of_queued(deployment: SeenDeployment, queued: Queued) -> dict[str, RunLabel]:
    ids = {run.run_id for run in queued.first}
    found = (run for run in deployment.unfinished_runs() if run.run_id in ids) if ids else ()
    return {run.run_id: label_of(run) for run in found}


def _bins(sample: Sample | None) -> tuple[Bin, ...]:
    counts = [0] * len(EDGES)
    for seconds in () if sample is None else sample.seconds:
        counts[bisect_right(EDGES, seconds) - 1] += 1
    return tuple(map(Bin, EDGES, (*EDGES[1:], None), counts))
