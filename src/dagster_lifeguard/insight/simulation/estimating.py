"""Estimates from many plays of the present, each with a future that is drawn.

The same question always gets the same answer: the draws are not random between calls. The more is
played, the fewer plays there are, so an estimate costs about the same in each deployment. Of n + 1
starts, of which one is real and n are played, the share that lies between the k-th of the played
ones and the k-th last is (n + 1 - 2 k) / (n + 1) on average. So 9 plays make as honest a range of
80 % as 199 do, only not as narrow a one.
"""

from __future__ import annotations

import random
from dataclasses import replace
from math import inf, isinf
from typing import TYPE_CHECKING

from dagster_lifeguard.engine.rules.pool_settings import NOTHING_SET
from dagster_lifeguard.insight.durations import quantile
from dagster_lifeguard.insight.estimate import PLAYS, WORK, Estimate, NoEstimate
from dagster_lifeguard.insight.simulation.drawing import Futures
from dagster_lifeguard.insight.simulation.world import play

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from dagster_lifeguard.engine.rules.model import TicketKey
    from dagster_lifeguard.insight.shapes import Shapes
    from dagster_lifeguard.insight.simulation.present import Present, PresentRun, Standing

TICKETS_MAX = 2_000
"""Of the tickets at pools only so many are played, those that asked first."""

RUNS_MAX = 500
"""A run further back in the run queue gets no estimate."""


def estimate(
    present: Present,
    shapes: Shapes,
    tickets: Collection[TicketKey] = (),
    runs: Collection[str] = (),
    *,
    work: int = WORK,
) -> tuple[dict[TicketKey, Estimate], dict[str, Estimate]]:
    """Estimate when waiting tickets start, and when queued runs leave the queue.

    Args:
        present: The present.
        shapes: The past.
        tickets: Tickets that wait.
        runs: Runs that are in the run queue, by id.
        work: How many tickets and runs are played in all.

    Returns:
        The estimates of those that wait or are in the queue.
    """
    wanted, wanted_runs = set(tickets), set(runs)
    told: dict[TicketKey, Estimate] = {}
    for ticket in present.waiting:
        if ticket.key in wanted and (reason := _never(present, ticket)) is not None:
            told[ticket.key] = Estimate(missing=reason)
    cut = _relevant(present, wanted - told.keys(), wanted_runs)
    futures = Futures(cut, shapes)
    waiting = {ticket.key: ticket for ticket in cut.waiting if ticket.key in wanted - told.keys()}
    queued = {run.run_id: run for run in cut.queued if run.run_id in wanted_runs}
    moments: dict[TicketKey, list[float]] = {key: [] for key in waiting}
    launches: dict[str, list[float]] = {run_id: [] for run_id in queued}
    count = _plays(futures.size, work) if waiting or queued else 0
    for number in range(count):
        future = futures.draw(random.Random(number))  # noqa: S311 - nothing secret about it
        start = future.start._replace(
            awaited=[future.tickets[key] for key in waiting],
            awaited_runs=[future.runs[run_id] for run_id in queued],
        )
        played = play(
            future.arrivals,
            cut.settings,
            cut.changes,
            window=(cut.at, cut.at),
            patience_seconds=cut.patience_seconds,
            queue=future.queue,
            start=start,
        )
        for key, found in moments.items():
            found.append(_wait(played.granted[future.tickets[key]], cut.at))
        for run_id, found in launches.items():
            found.append(_wait(played.launched[future.runs[run_id]], cut.at))
    samples = sum(futures.sampled.values())
    for key, found in moments.items():
        told[key] = _range(found, samples, _reason(cut, futures, waiting[key].demand.pools))
    told_runs = {
        run_id: _range(found, samples, _reason_of_run(cut, futures, queued[run_id]))
        for run_id, found in launches.items()
    }
    for ticket in present.waiting:
        if ticket.key in wanted:
            told.setdefault(ticket.key, Estimate(missing=NoEstimate.TOO_FAR))
    for run in present.queued:
        if run.run_id in wanted_runs:
            told_runs.setdefault(run.run_id, Estimate(missing=NoEstimate.TOO_FAR))
    return told, told_runs


def _plays(size: int, work: int) -> int:
    return next((count for count in PLAYS if count * size <= work), PLAYS[-1])


def _wait(moment: float | None, now: float) -> float:
    return inf if moment is None else max(0.0, moment - now)


def _range(moments: list[float], samples: int, never: NoEstimate) -> Estimate:
    moments.sort()
    typical = quantile(moments, 0.5)
    if isinf(typical):
        return Estimate(samples=samples, missing=never)
    latest = quantile(moments, 0.9)
    return Estimate(
        soonest=quantile(moments, 0.1),
        typical=typical,
        latest=None if isinf(latest) else latest,
        samples=samples,
        plays=len(moments),
    )


# ---- why there is no estimate --------------------------------------------------------------------


def _never(present: Present, ticket: Standing) -> NoEstimate | None:
    """Why a ticket starts in no play; None if it may."""
    asked = [(term.slots, present.limits_to_come(term.name)) for term in ticket.demand.terms]
    if any(set(limits) == {0} for _, limits in asked):
        return NoEstimate.PAUSED
    if any(all(limit is not None and slots > limit for limit in limits) for slots, limits in asked):
        return NoEstimate.TOO_LARGE
    return None


def _reason(present: Present, futures: Futures, pools: Iterable[str]) -> NoEstimate:
    """The reason for no estimate if there is none in most plays."""
    asked = set(pools)
    if any(ticket.is_stuck and asked & set(ticket.demand.pools) for ticket in present.holding):
        return NoEstimate.LEAKED
    if futures.is_outlasted and not futures.is_unknown:
        return NoEstimate.OUTLASTED
    return NoEstimate.NO_HISTORY


def _reason_of_run(present: Present, futures: Futures, run: PresentRun) -> NoEstimate:
    pools = run.pools or frozenset()
    limits = [present.limits_to_come(pool) for pool in run.first_pools or pools]
    if limits and (any if present.by_run else all)(set(found) == {0} for found in limits):
        return NoEstimate.PAUSED
    return _reason(present, futures, pools)


# ---- what matters --------------------------------------------------------------------------------


def _relevant(present: Present, tickets: set[TicketKey], runs: set[str]) -> Present:
    """The part of the present that the wanted starts may depend on, within bounds."""
    last = max((n for n, run in enumerate(present.queued) if run.run_id in runs), default=-1)
    queued = present.queued[: last + 1]
    asked = [ticket for ticket in present.waiting if ticket.key in tickets]
    pools = present.joined(
        {pool for ticket in asked for pool in ticket.demand.pools}
        | {pool for run in queued for pool in run.pools or ()}
    )
    if not runs and _may_be_passed(present, asked, pools):
        queued = tuple(run for run in present.queued if pools & (run.pools or frozenset()))
    has_runs = bool(queued) or _may_be_passed(present, asked, pools)

    def is_here(ticket: Standing) -> bool:
        return not pools.isdisjoint(ticket.demand.pools)

    holding = tuple(filter(is_here, present.holding))
    waiting = tuple(filter(is_here, present.waiting))
    if runs and present.rules is not None and present.rules.runs_max >= 0:
        # What runs in progress wait for elsewhere matters for their ends.
        busy = {run.run_id for run in present.going_on}
        holding = tuple(t for t in present.holding if is_here(t) or t.key.run_id in busy)
        waiting = tuple(t for t in present.waiting if is_here(t) or t.key.run_id in busy)
    if len(holding) > TICKETS_MAX:
        return replace(present, holding=(), waiting=(), queued=(), going_on=())
    in_turn = sorted(range(len(waiting)), key=lambda n: (-waiting[n].priority, n))
    kept = sorted(in_turn[: TICKETS_MAX - len(holding)])
    return replace(
        present,
        holding=holding,
        waiting=tuple(waiting[n] for n in kept),
        queued=queued[:RUNS_MAX],
        going_on=present.going_on[:TICKETS_MAX] if has_runs else (),
    )


def _may_be_passed(present: Present, tickets: Iterable[Standing], pools: Iterable[str]) -> bool:
    """Whether steps that do not wait yet may start before these."""
    if any(present.settings.get(pool, NOTHING_SET).fair_by is not None for pool in pools):
        return True
    return any(
        len(ticket.demand.terms) > 1 or ticket.demand.terms[0].slots > 1 for ticket in tickets
    ) or any(run.priority for run in (*present.queued, *present.going_on))
