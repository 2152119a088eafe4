"""How often past waits ended within the range that would have been estimated when they began.

Nothing is written down when an estimate is given. Instead, for a past wait, the state at its
beginning is put together from the ledger and the runs, and estimated by what was known then: runs
and holds that had ended. So the record covers every wait, whether somebody looked at it or not, and
a deployment that is only looked at with the command has one too.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, NamedTuple

from dagster_lifeguard.engine.rules.admission import PATIENCE_SECONDS
from dagster_lifeguard.engine.rules.launch_order import by_priority
from dagster_lifeguard.engine.rules.rate import nanoseconds
from dagster_lifeguard.insight.durations import quantile
from dagster_lifeguard.insight.estimate import PLAYS
from dagster_lifeguard.insight.shapes import Shapes
from dagster_lifeguard.insight.simulation.estimating import estimate
from dagster_lifeguard.insight.simulation.present import Present, PresentRun, Standing
from dagster_lifeguard.insight.simulation.recent_past import launching_share

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from dagster_lifeguard.compat.health import RunQueue
    from dagster_lifeguard.deployment.contract import Run
    from dagster_lifeguard.engine.rules.pool_settings import PoolSettings
    from dagster_lifeguard.insight.shapes import Shape
    from dagster_lifeguard.insight.simulation.past_runs import PastRun
    from dagster_lifeguard.insight.simulation.recent_past import RecentPast
    from dagster_lifeguard.insight.simulation.recording import Recorded

WAITS_MAX = 200
"""Only so many waits are judged, spread over the time."""

WAITS_FEW = 10
"""At least so many waits are judged, however much of each is played."""

WORK = 40_000
"""So many tickets and runs are played in all, or a little more, in one to two seconds."""

WAIT_MIN = 1.0
"""A shorter wait, in seconds, is not judged."""


@dataclass(frozen=True, slots=True)
class TrackRecord:
    """How well estimates fitted.

    Attributes:
        since: From when on the waits began, in seconds since the epoch.
        waits: How many waits are judged.
        held: How many of them ended within their range.
        without: How many more had no estimate, since too little was known then.
        error: The median difference between the middle of the range and the wait, as a share of the
            wait; None without waits.
    """

    since: float
    waits: int
    held: int
    without: int = 0
    error: float | None = None

    @property
    def share(self) -> float | None:
        """The share of waits that ended within their range; None without waits."""
        return self.held / self.waits if self.waits else None


class Judged(NamedTuple):
    """One wait and the range that was estimated when it began, all in seconds.

    Attributes:
        is_of_run: Whether a run waited in the run queue; else a step waited at pools.
        latest: The end of the range; None: unknown.
    """

    is_of_run: bool
    wait: float
    soonest: float
    typical: float
    latest: float | None

    @property
    def holds(self) -> bool:
        """Whether the wait ended within the range."""
        return self.soonest <= self.wait <= (inf if self.latest is None else self.latest)


class _Wait(NamedTuple):
    began: float
    ended: float
    execution: Recorded | None
    run: PastRun | None

    @property
    def pools(self) -> Iterable[str]:
        if self.execution is not None:
            return self.execution.demand.pools
        return () if self.run is None else self.run.run.pools or ()


class Rules(NamedTuple):
    """What held for all pools.

    Attributes:
        settings: The settings of each pool now, with the limit in force.
        queue: How the run queue lets runs go; None if there is no queue.
        by_run: Whether the granularity is ``run``.
        patience_seconds: How long a ticket lets later ones pass.
    """

    settings: Mapping[str, PoolSettings]
    queue: RunQueue | None = None
    by_run: bool = False
    patience_seconds: float = PATIENCE_SECONDS


def record_of(judged: Sequence[Judged], without: int, since: float) -> TrackRecord:
    """The record of these waits."""
    errors = sorted(abs(one.typical - one.wait) / one.wait for one in judged)
    return TrackRecord(
        since=since,
        waits=len(judged),
        held=sum(one.holds for one in judged),
        without=without,
        error=quantile(errors, 0.5) if errors else None,
    )


def judge(
    past: RecentPast,
    rules: Rules,
    known_runs: Mapping[str, Run],
    *,
    pool: str | None = None,
    wait_min: float = WAIT_MIN,
    count_max: int = WAITS_MAX,
    work: int = WORK,
) -> tuple[list[Judged], int]:
    """Estimate past waits by what was known when they began.

    Args:
        past: What happened.
        rules: What held for all pools.
        known_runs: The priorities and tags of runs, by id.
        pool: Only waits for this pool; None for all.
        wait_min: The shortest wait that is judged, in seconds.
        count_max: How many waits are judged, or fewer where each is much work.
        work: How many tickets and runs are played in all.

    Returns:
        The waits that had an estimate, and how many had none.
    """
    waits = [
        wait
        for wait in _waits(past, rules, pool, wait_min)
        if not past.changed(wait.pools, wait.began, wait.ended)
    ]
    count = min(count_max, max(WAITS_FEW, work // (PLAYS[-1] * _usual_size(past, waits))))
    waits = _spread(waits, count)
    work //= max(1, len(waits))
    known = _Known(past, known_runs, rules)
    judged, without = [], 0
    for wait in waits:
        present, shapes = known.at(wait.began)
        if wait.execution is not None:
            key = wait.execution.key
            found = estimate(present, shapes, [key], work=work)[0][key]
        else:
            assert wait.run is not None
            run_id = wait.run.run.run_id
            found = estimate(present, shapes, (), [run_id], work=work)[1][run_id]
        if found.soonest is None or found.typical is None:
            without += 1
            continue
        waited = wait.ended - wait.began
        is_of_run = wait.execution is None
        judged.append(Judged(is_of_run, waited, found.soonest, found.typical, found.latest))
    return judged, without


def _spread(waits: list[_Wait], count: int) -> list[_Wait]:
    """So many of these, spread over the time."""
    if len(waits) <= count:
        return waits
    return [waits[n * len(waits) // count] for n in range(count)]


def _usual_size(past: RecentPast, waits: list[_Wait]) -> int:
    """About how much is played for one of these waits."""
    sizes = [1]
    for wait in _spread(waits, WAITS_FEW):
        now = wait.began
        runs = 0
        if wait.run is not None:  # A step at a pool is seldom passed by what is in the queue.
            runs = sum(run.submitted <= now < run.ended for run in past.runs)
        tickets = sum(one.asked <= now < one.ended for one in past.executions)
        sizes.append(tickets + runs * (2 + len(past.executions) // max(1, len(past.runs))))
    return max(1, sum(sizes) // len(sizes))


def _waits(past: RecentPast, rules: Rules, pool: str | None, wait_min: float) -> list[_Wait]:
    """The waits at pools and in the run queue, in the order in which they began."""
    found = []
    if not rules.by_run:
        found += [
            _Wait(one.asked, one.granted, one, None)
            for one in past.executions
            if one.granted - one.asked >= wait_min and pool in (None, *one.demand.pools)
        ]
    if rules.queue is not None:
        found += [
            _Wait(run.submitted, run.launched, None, run)
            for run in past.runs
            if run.is_queued
            and run.launched - run.submitted >= wait_min + rules.queue.interval_seconds
            and (pool is None or pool in (run.run.pools or ()))
        ]
    return sorted((w for w in found if w.began >= past.since), key=lambda wait: wait.began)


class _Known:
    """What was known at moments, each later than the one before."""

    def __init__(self, past: RecentPast, known_runs: Mapping[str, Run], rules: Rules) -> None:
        self._past, self._known_runs, self._rules = past, known_runs, rules
        self._shapes = Shapes()
        self._holds = sorted((e for e in past.executions if e.ended < inf), key=lambda e: e.ended)
        self._over: list[tuple[PastRun, Shape]] = past.shapes_of_runs()
        self._holds_seen = self._over_seen = 0

    def at(self, now: float) -> tuple[Present, Shapes]:
        while self._holds_seen < len(self._holds) and self._holds[self._holds_seen].ended <= now:
            one = self._holds[self._holds_seen]
            self._shapes.add_hold(one.demand.pools, one.key.step_key, one.ended - one.granted)
            self._holds_seen += 1
        while self._over_seen < len(self._over) and self._over[self._over_seen][0].ended <= now:
            self._shapes.add_run(self._over[self._over_seen][1])
            self._over_seen += 1
        started = [r for r in self._past.runs if r.launched <= r.started <= now]
        self._shapes.launching_share = launching_share(started)
        return self._present(now), self._shapes

    def _present(self, now: float) -> Present:
        rules = self._rules
        here = [one for one in self._past.executions if one.asked <= now]
        done: dict[str, dict[str, float]] = defaultdict(dict)
        for one in here:
            if one.ended <= now:
                done[one.key.run_id][one.key.step_key] = one.ended
        runs = [run for run in self._past.runs if run.submitted <= now < run.ended]
        waiting = sorted((one for one in here if one.granted > now), key=lambda one: one.asked)
        return Present(
            at=now,
            settings=self._past.settings_at(now, rules.settings),
            holding=tuple(
                self._standing(one, one.granted) for one in here if one.granted <= now < one.ended
            ),
            waiting=tuple(self._standing(one, one.asked) for one in waiting),
            queued=tuple(by_priority(self._run(run, {}) for run in runs if run.launched > now)),
            going_on=tuple(
                self._run(run, done[run.run.run_id], now) for run in runs if run.launched <= now
            ),
            rules=rules.queue,
            by_run=rules.by_run,
            due_ns=self._due(here, now),
            patience_seconds=rules.patience_seconds,
        )

    def _due(self, here: Iterable[Recorded], now: float) -> dict[str, int]:
        """The state of rates after all starts until now."""
        found: dict[str, int] = {}
        rates = {p: s.rate for p, s in self._rules.settings.items() if s.rate is not None}
        if rates:
            for one in sorted(here, key=lambda one: one.granted):
                for pool in rates.keys() & set(one.demand.pools):
                    if one.granted <= now:
                        at = nanoseconds(one.granted)
                        found[pool] = rates[pool].due_after_start(found.get(pool, 0), at)
        return found

    def _standing(self, one: Recorded, since: float) -> Standing:
        run = self._known_runs.get(one.key.run_id)
        if run is None:
            return Standing(one.key, one.demand, since)
        return Standing(one.key, one.demand, since, run.priority, run.tags)

    def _run(self, past: PastRun, done: Mapping[str, float], now: float = 0.0) -> PresentRun:
        run = self._known_runs.get(past.run.run_id, past.run)
        return PresentRun(
            run.run_id,
            run.job_name,
            run.priority,
            run.tags,
            past.run.pools,
            run.first_pools,
            past.launched if past.launched <= now else None,
            past.started if past.started <= now else None,
            done,
        )
