"""What is known of the past, in the form in which it can be played."""

from __future__ import annotations

import heapq
import math
from collections import Counter, defaultdict
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Literal, NamedTuple

from dagster_lifeguard.engine.rules.model import Demand
from dagster_lifeguard.engine.rules.pool_settings import (
    NOTHING_SET,
    PoolSettings,
    limit_in_force,
)
from dagster_lifeguard.insight.simulation.arrivals import Arrival, Change, Submission
from dagster_lifeguard.insight.simulation.run_queue import QueuePlay

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

    from dagster_lifeguard.engine.rules.model import TicketKey
    from dagster_lifeguard.insight.simulation.doubts import Doubt
    from dagster_lifeguard.insight.simulation.past_runs import PastQueue, PastRun

    Tags = Callable[[Collection[str]], Mapping[str, Mapping[str, str]]]

Source = Literal["ledger", "event-logs"]


@dataclass(frozen=True, slots=True)
class Recorded:
    """One execution as it really was. Times are seconds since the epoch.

    Attributes:
        key: The step of the run.
        demand: The slots that it asked for.
        asked: When it asked.
        granted: When it acquired its slots.
        ended: When it released its slots.
        priority: A higher priority starts first.
        tags: The tags of its run.
        judged: Whether its wait counts: it started within the window.
    """

    key: TicketKey
    demand: Demand
    asked: float
    granted: float
    ended: float
    priority: int
    tags: Mapping[str, str]
    judged: bool = True


@dataclass(frozen=True, slots=True)
class Recording:
    """The past of a window.

    Attributes:
        source: Where it was read.
        since: The beginning of the window, in seconds since the epoch.
        until: The end of the window.
        arrivals: The steps that asked, in the order in which they asked.
        waited: How long each really waited, in seconds; None if its wait does not count. For the
            steps with which a run began, the time of the run in the run queue counts too.
        settings: The settings of each pool at the beginning, with the limit in force.
        changes: Changes of these settings, in order of time; with the ends of temporary limits
            that are still to come.
        doubts: What is not known.
        queue: The runs, and how the run queue lets them go; None if there is no run queue.
        queued: How long each run was really in the queue; None if it was not within the window.
    """

    source: Source
    since: float
    until: float
    arrivals: tuple[Arrival, ...]
    waited: tuple[float | None, ...]
    settings: Mapping[str, PoolSettings]
    changes: tuple[Change, ...] = ()
    doubts: tuple[Doubt, ...] = ()
    queue: QueuePlay | None = None
    queued: tuple[float | None, ...] = ()

    @classmethod
    def of(
        cls,
        source: Source,
        window: tuple[float, float],
        ordered: Ordered,
        settings: Mapping[str, PoolSettings],
        queue: PastQueue,
        changes: tuple[Change, ...] = (),
        doubts: tuple[Doubt, ...] = (),
    ) -> Recording:
        """The recording of these executions and of their runs; see the attributes."""
        since, until = window
        return cls(
            source,
            since,
            until,
            ordered.arrivals,
            ordered.waited,
            settings,
            changes,
            doubts,
            None
            if queue.rules is None
            else QueuePlay(ordered.submissions, queue.rules, queue.by_run),
            ordered.queued,
        )

    @property
    def pools(self) -> set[str]:
        """The pools that any step asked for."""
        return {pool for arrival in self.arrivals for pool in arrival.demand.pools}

    def with_settings(self, wanted: Mapping[str, Mapping[str, object]]) -> Recording:
        """The same arrivals under other settings, for all of the window.

        Args:
            wanted: By pool, the settings that are given, by the names of ``PoolSettings``.
        """

        def changed(pool: str, settings: PoolSettings) -> PoolSettings:
            return replace(settings, **wanted.get(pool, {}))  # type: ignore[arg-type]

        pools = self.settings.keys() | wanted.keys()
        return replace(
            self,
            settings={p: changed(p, self.settings.get(p, NOTHING_SET)) for p in sorted(pools)},
            changes=tuple(c._replace(settings=changed(c.pool, c.settings)) for c in self.changes),
        )

    def with_demands(self, demands: Mapping[int, Demand | None]) -> Recording:
        """The same executions, of which some ask for other pools.

        Args:
            demands: By the place of the arrival; None for nothing.
        """
        if not demands:
            return self
        arrivals = tuple(
            arrival._replace(demand=demands[place] or UNLIMITED) if place in demands else arrival
            for place, arrival in enumerate(self.arrivals)
        )
        queue = self.queue
        if queue is not None:
            asked: dict[int, list[Arrival]] = defaultdict(list)
            for arrival in arrivals:
                if arrival.run is not None:
                    asked[arrival.run].append(arrival)
            submissions = tuple(
                _asking(submission, asked[run]) for run, submission in enumerate(queue.submissions)
            )
            queue = queue._replace(submissions=submissions)
        return replace(self, arrivals=arrivals, queue=queue)

    def with_runs_max(self, runs_max: int | None) -> Recording:
        """The same with another number of runs at once; None: with the same."""
        if self.queue is None or runs_max is None:
            return self
        rules = replace(self.queue.rules, runs_max=runs_max)
        return replace(self, queue=self.queue._replace(rules=rules))


@lru_cache(maxsize=4096)
def _demand(slots: tuple[tuple[str, int], ...]) -> Demand:
    return Demand.of(dict(slots))


def demand_of(slots: Mapping[str, int]) -> Demand:
    """The demand for these slots of these pools; mostly the same object for the same slots."""
    return _demand(tuple(sorted(slots.items())))


UNLIMITED = Demand.of({"(no pool)": 1})
"""Stands for a step that asks for nothing."""


def _asking(submission: Submission, arrivals: Sequence[Arrival]) -> Submission:
    """The run, if its steps ask for these pools."""
    limited = [arrival for arrival in arrivals if arrival.demand != UNLIMITED]
    first = [arrival for arrival in arrivals if arrival.after is None]
    pools, first_pools = submission.pools, submission.first_pools
    if pools is not None:
        pools = frozenset(pool for arrival in limited for pool in arrival.demand.pools)
    if first_pools is not None:
        slots: Counter[str] = Counter()
        for arrival in first:
            slots.update({term.name: term.slots for term in arrival.demand.terms})
        first_pools = None if any(a.demand == UNLIMITED for a in first) else slots
    return submission._replace(pools=pools, first_pools=first_pools)


class Ordered(NamedTuple):
    """Arrivals in the order of asking, and how long each really waited; and their runs."""

    arrivals: tuple[Arrival, ...]
    waited: tuple[float | None, ...]
    submissions: tuple[Submission, ...] = ()
    queued: tuple[float | None, ...] = ()


def in_order(
    executions: Iterable[Recorded],
    runs: Sequence[PastRun] = (),
    in_process: Collection[str] = (),
) -> Ordered:
    """Put executions into the order of asking.

    A step that asked after another step of its run had ended asks in a play so long after that
    end: it mostly needs what the other made, or its process. The steps with which a run began ask
    so long after its launch; without a known launch, when they did.

    Args:
        executions: The executions.
        runs: The runs whose launch is played, in the order in which they were submitted.
        in_process: The ids of the runs whose process executes their steps one after another.
    """
    found = sorted(_once_free(executions, in_process), key=lambda e: (e.asked, e.granted))
    places = {past.run.run_id: run for run, past in enumerate(runs)}
    last_end: dict[int, float] = {}
    arrivals: list[Arrival] = []
    waited: list[float | None] = []
    ends: dict[str, list[tuple[float, int]]] = defaultdict(list)
    last: dict[str, tuple[float, int]] = {}
    for place, one in enumerate(found):
        of_run = ends[one.key.run_id]
        while of_run and of_run[0][0] <= one.asked:
            last[one.key.run_id] = heapq.heappop(of_run)
        heapq.heappush(of_run, (one.ended, place))
        before = last.get(one.key.run_id)
        run = places.get(one.key.run_id)
        began = queued = 0.0
        if before is not None:
            began = before[0]
        elif run is not None:
            began = min(runs[run].launched, one.asked)
            queued = runs[run].launched - runs[run].submitted
        if run is not None:
            last_end[run] = max(one.ended, last_end.get(run, one.ended))
        arrivals.append(
            Arrival(
                one.key,
                one.asked - began,
                one.demand,
                max(0.0, one.ended - one.granted),
                one.priority,
                one.tags,
                None if before is None else before[1],
                run,
            )
        )
        waited.append(queued + max(0.0, one.granted - one.asked) if one.judged else None)
    submissions = (
        Submission(
            past.run.run_id,
            past.submitted,
            past.started - past.launched,
            max(0.0, past.ended - last_end.get(run, past.launched)),
            past.run.priority,
            past.run.tags,
            past.run.pools,
            past.run.first_pools,
            past.is_queued,
        )
        for run, past in enumerate(runs)
    )
    queues = (past.launched - past.submitted if past.is_queued else None for past in runs)
    return Ordered(tuple(arrivals), tuple(waited), tuple(submissions), tuple(queues))


def _once_free(executions: Iterable[Recorded], in_process: Collection[str]) -> Iterator[Recorded]:
    """The same executions; a process that executes one step after another asks once it is free.

    Such a process may ask for several steps, but takes no slot for one while it executes another.
    """
    of_run: dict[str, list[Recorded]] = defaultdict(list)
    for one in executions:
        if one.key.run_id in in_process:
            of_run[one.key.run_id].append(one)
        else:
            yield one
    for steps in of_run.values():
        free = -math.inf
        for one in sorted(steps, key=lambda e: e.granted):
            yield replace(one, asked=max(one.asked, min(free, one.granted)))
            free = max(free, one.ended)


def settings_in_force(
    live: Mapping[str, PoolSettings], default_limit: int | None, pools: Iterable[str] = ()
) -> dict[str, PoolSettings]:
    """The settings of pools with the limit in force: of those in ``live``, and of ``pools``."""
    found = {}
    for pool in sorted({*live, *pools}):
        settings = live.get(pool, NOTHING_SET)
        limit = limit_in_force(pool, settings.limit, default_limit)
        found[pool] = replace(settings, limit=limit)
    return found
