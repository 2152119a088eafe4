"""The recent past: the executions and runs that estimates are drawn from, and judged by.

The engine's ledger tells exactly when a step asked, and when it acquired and released its slots.
Without it the event logs tell when a step started and ended; the start-up of a step's own process,
which holds the slots too, is not in that.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field, replace
from math import inf
from typing import TYPE_CHECKING

from dagster_lifeguard.deployment.contract import Run
from dagster_lifeguard.deployment.history import read_ledger
from dagster_lifeguard.engine.rules.model import EntryKind, TicketKey
from dagster_lifeguard.engine.rules.pool_settings import limit_in_force
from dagster_lifeguard.engine.store.retry import retry
from dagster_lifeguard.errors import ConfigError
from dagster_lifeguard.insight.durations import pools_of_run, quantile, terms_used
from dagster_lifeguard.insight.graphs import as_holders
from dagster_lifeguard.insight.shapes import SAMPLES_MIN, Shape, Shapes, ShapeStep
from dagster_lifeguard.insight.simulation.past_runs import PastRun
from dagster_lifeguard.insight.simulation.recording import Recorded, demand_of, in_order

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from dagster_lifeguard.deployment.contract import Settings
    from dagster_lifeguard.deployment.history import RunExecution
    from dagster_lifeguard.engine.rules.model import Entry
    from dagster_lifeguard.engine.rules.pool_settings import PoolSettings
    from dagster_lifeguard.engine.store.contract import Store

ENTRIES_MAX = 6_000
"""Only so many entries of the ledger are read, the newest."""

AT_ONCE_SECONDS = 0.5
"""Runs that were launched within this time were launched by the threads of one look."""

FOLLOWING_MAX = 20
"""Of the runs that were launched next only so many are looked at."""


@dataclass(frozen=True, slots=True)
class RecentPast:
    """What happened lately, as far as it is read.

    Attributes:
        since: The beginning; later than what was asked for, if more than is read happened since.
        executions: The steps that acquired slots. ``ended`` is infinite while they hold.
        runs: The runs that were launched, in the order in which they were submitted. ``ended`` is
            infinite while they are in progress.
        limits: For each pool, when its limit was set and to what, as far as the ledger tells.
        reordered: For each pool, when its rate or its order was last changed.
    """

    since: float
    executions: tuple[Recorded, ...] = ()
    runs: tuple[PastRun, ...] = ()
    limits: Mapping[str, Sequence[tuple[float, int | None]]] = field(default_factory=dict)
    reordered: Mapping[str, float] = field(default_factory=dict)

    def changed(self, pools: Iterable[str], began: float, ended: float) -> bool:
        """Whether settings of these pools changed meanwhile, or are not known of the beginning."""
        for pool in pools:
            changes = self.limits.get(pool, ())
            if began <= self.reordered.get(pool, -inf):
                return True
            if changes and (
                began < changes[0][0] or any(began <= at <= ended for at, _ in changes)
            ):
                return True
        return False

    def settings_at(
        self, moment: float, live: Mapping[str, PoolSettings]
    ) -> dict[str, PoolSettings]:
        """The settings of pools at a moment.

        Args:
            moment: A moment that is not before the first change that is known of a pool.
            live: The settings now, with the limit in force.
        """
        found = dict(live)
        for pool, changes in self.limits.items():
            before = [limit for at, limit in changes if at <= moment]
            if before and pool in found:
                found[pool] = replace(found[pool], limit=before[-1])
        return found

    def shapes(self) -> Shapes:
        """What the runs and holds that are over were like."""
        found = Shapes()
        for one in sorted(self.executions, key=lambda e: e.ended):
            if one.ended != inf:
                found.add_hold(one.demand.pools, one.key.step_key, one.ended - one.granted)
        for _, shape in self.shapes_of_runs():
            found.add_run(shape)
        found.launching_share = launching_share(self.runs)
        return found

    def shapes_of_runs(self) -> list[tuple[PastRun, Shape]]:
        """The runs that are over, in the order in which they ended, each with its shape."""
        over = [past for past in self.runs if past.ended != inf]
        known = {past.run.run_id for past in over}
        executions = [one for one in self.executions if one.key.run_id in known]
        return sorted(
            zip(over, shapes_of(executions, over), strict=True), key=lambda pair: pair[0].ended
        )


def launching_share(runs: Iterable[PastRun]) -> float:
    """For which share of a run's start-up the daemon launched no other run, though some waited.

    Of all runs that were followed by one that had waited already, nearly the smallest share counts:
    what kept the daemon longer was a limit. 0 if too few are known.

    Args:
        runs: Runs that went through the run queue and have started.
    """
    launches = sorted((r for r in runs if r.is_queued), key=lambda r: r.launched)
    shares = []
    for number, run in enumerate(launches):
        startup = run.started - run.launched
        following = (
            other
            for other in launches[number + 1 : number + 1 + FOLLOWING_MAX]
            if other.launched - run.launched > AT_ONCE_SECONDS
        )
        after = next(following, None)
        if after is not None and after.submitted <= run.launched and startup > AT_ONCE_SECONDS:
            shares.append(min(1.0, (after.launched - run.launched) / startup))
    return quantile(sorted(shares), 0.1) if len(shares) >= SAMPLES_MIN else 0.0


def shapes_of(executions: Iterable[Recorded], runs: Sequence[PastRun]) -> list[Shape]:
    """The shape of each of these runs, which are over."""
    ordered = in_order(executions, runs)
    steps: list[list[ShapeStep]] = [[] for _ in runs]
    places: dict[int, int] = {}
    for place, arrival in enumerate(ordered.arrivals):
        if arrival.run is None:
            continue
        of_run = steps[arrival.run]
        places[place] = len(of_run)
        after = None if arrival.after is None else places[arrival.after]
        of_run.append(
            ShapeStep(arrival.key.step_key, arrival.demand, arrival.at, arrival.seconds, after)
        )
    return [
        Shape(
            past.run.job_name,
            past.run.pools or frozenset(),
            submission.starts,
            submission.rest,
            tuple(of_run),
        )
        for past, submission, of_run in zip(runs, ordered.submissions, steps, strict=True)
    ]


def recent_past(
    history: Iterable[RunExecution],
    settings: Settings,
    since: float,
    entries: Iterable[Entry] | None = None,
    ahead: float = 0.0,
) -> RecentPast:
    """Put together what happened.

    Args:
        history: The runs.
        settings: Of the deployment.
        since: From when on.
        entries: What the ledger tells of the same time; None without a ledger.
        ahead: By how many seconds the clock of the ledger is ahead of that of the runs.
    """
    executed = tuple(history)
    runs = [past for run in executed if (past := _past_run(run, settings)) is not None]
    runs.sort(key=lambda past: past.submitted)
    limits: dict[str, list[tuple[float, int | None]]] = defaultdict(list)
    reordered: dict[str, float] = {}
    if settings.granularity == "run":
        found = [_held_by_run(past) for past in runs if past.run.pools]
    elif entries is not None:
        told = list(entries)
        for entry in told:
            if entry.kind is EntryKind.LIMIT:
                limit = limit_in_force(entry.pool, entry.limit, settings.default_limit)
                limits[entry.pool].append((entry.at - ahead, limit))
            elif entry.kind in (EntryKind.RATE, EntryKind.ORDER):
                reordered[entry.pool] = entry.at - ahead
        found = list(_granted(told, ahead))
    else:
        found = [one for run in executed for one in _executed(run, settings)]
    return RecentPast(since, tuple(found), tuple(runs), limits, reordered)


def newest_entries(store: Store, since: float) -> tuple[float, Iterator[Entry]]:
    """The newest entries of the ledger, and since when they are all there are.

    Args:
        store: Where the ledger is.
        since: Nothing older than this, by the ledger's clock.

    Raises:
        StoreUnavailableError: The database does not answer.
    """
    newest = retry(lambda: store.ledger(count_max=1))
    first = max(1, newest[0].number - ENTRIES_MAX + 1) if newest else 1
    oldest = retry(lambda: store.entries(after=first - 1, count_max=1))
    if first > 1 and oldest:
        since = max(since, oldest[0].at)
    return since, read_ledger(store, since=since, first=first)


def _past_run(run: RunExecution, settings: Settings) -> PastRun | None:
    launched = run.dequeued if run.dequeued is not None else run.started
    if launched is None:
        return None
    submitted = launched if run.enqueued is None else min(run.enqueued, launched)
    return PastRun(
        run=Run(
            run.run_id,
            run.job_name,
            run.status,
            submitted,
            run.started,
            run.ended,
            pools=frozenset(pools_of_run(run, settings)),
        ),
        submitted=submitted,
        launched=launched,
        started=launched if run.started is None else max(launched, run.started),
        ended=inf if run.ended is None else max(launched, run.ended),
        is_queued=run.enqueued is not None,
    )


def _held_by_run(past: PastRun) -> Recorded:
    return Recorded(
        TicketKey(past.run.run_id, past.run.job_name),
        demand_of(dict.fromkeys(past.run.pools or (), 1)),
        past.launched,
        past.launched,
        past.ended,
        0,
        {},
    )


def _executed(run: RunExecution, settings: Settings) -> Iterator[Recorded]:
    for step in run.steps if settings.engine is False else as_holders(run.steps):
        if step.pool is None:
            continue
        try:
            demand = demand_of({term.name: term.slots for term in terms_used(step, settings)})
        except ConfigError:
            continue
        ended = step.ended if step.ended is not None else run.ended
        yield Recorded(
            TicketKey(step.run_id, step.step_key),
            demand,
            step.started if step.waiting is None else min(step.waiting, step.started),
            step.started,
            inf if ended is None else max(step.started, ended),
            0,
            {},
        )


def _granted(entries: Iterable[Entry], ahead: float) -> Iterator[Recorded]:
    grants: dict[tuple[str, str, int], dict[str, Entry]] = {}
    ends: dict[tuple[str, str, int], float] = {}
    for entry in entries:
        name = entry.run_id, entry.step_key, entry.fence
        if entry.kind is EntryKind.GRANTED:
            grants.setdefault(name, {})[entry.pool] = entry
        elif entry.kind in (EntryKind.RELEASED, EntryKind.EXPIRED):
            ends.setdefault(name, entry.at - ahead)
    for name, of_pools in grants.items():
        first = next(iter(of_pools.values()))
        at = first.at - ahead
        yield Recorded(
            TicketKey(first.run_id, first.step_key),
            demand_of({pool: entry.slots for pool, entry in of_pools.items()}),
            at - max(0.0, first.seconds or 0.0),
            at,
            max(at, ends.get(name, inf)),
            0,
            {},
        )
