"""What may help more than a larger limit: a fair order, or one pool for each partition."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING

from dagster_lifeguard.engine.rules.model import Demand
from dagster_lifeguard.engine.rules.pool_settings import BACKFILL_TAG
from dagster_lifeguard.insight.durations import quantile
from dagster_lifeguard.insight.simulation.advice import OtherWay
from dagster_lifeguard.insight.simulation.arrivals import PARTITION_TAG

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dagster_lifeguard.insight.simulation.arrivals import Arrival, Submission
    from dagster_lifeguard.insight.simulation.limit_search import Search
    from dagster_lifeguard.insight.simulation.recording import Recording


OTHER_WAYS_MAX = 5
"""For this many pools, those with the longest waits, other ways than a larger limit are played."""

GAIN_MIN = 0.5
"""Another way is mentioned if it takes at least this share off the wait."""


class OtherWays:
    """Tries what may help more than a larger limit, at the pools with the longest waits."""

    def __init__(self, search: Search) -> None:
        self._search = search
        self._now = search.played(search.now)

    def found(self) -> Iterator[OtherWay]:
        search = self._search
        missed = [
            (self._now.wait(pool, search.target(pool).share), pool)
            for pool in search.missed(search.now)
            if pool in self._now.stood(self._now.late(pool, search.target(pool).seconds))
        ]
        longest = sorted(missed, reverse=True)[:OTHER_WAYS_MAX]
        for pool in sorted(pool for _, pool in longest):
            yield from self._fair_order(pool)
            if search.now[pool] == 1:
                yield from self._partition_pools(pool)

    def _fair_order(self, pool: str) -> Iterator[OtherWay]:
        search, past = self._search, self._search.past
        if past.settings[pool].fair_by is not None:
            return
        places = search.places[pool]
        others = [p for p in places if BACKFILL_TAG not in past.arrivals[p].tags]
        if not others or len(others) == len(places):
            return
        fair = search.play(past.with_settings({pool: {"fair_by": BACKFILL_TAG}}))
        share = search.target(pool).share
        before, after = (
            quantile(sorted(played.waits[p] for p in others), share) for played in (self._now, fair)
        )
        if after <= (1 - GAIN_MIN) * before and before > search.target(pool).seconds:
            yield OtherWay("fair-order", pool, len(others), before, after)

    def _partition_pools(self, pool: str) -> Iterator[OtherWay]:
        search, past = self._search, self._search.past
        places = search.places[pool]
        partitions = {past.arrivals[p].tags.get(PARTITION_TAG) for p in places} - {None}
        if len(partitions) < 2:  # noqa: PLR2004 - one partition is no choice
            return
        split = search.play(_with_partition_pools(past, pool))
        share = search.target(pool).share
        before, after = (
            quantile(sorted(played.waits[p] for p in places), share)
            for played in (self._now, split)
        )
        if after > (1 - GAIN_MIN) * before:
            return
        of_backfill: dict[str, list[int]] = defaultdict(list)
        for place in places:
            backfill = past.arrivals[place].tags.get(BACKFILL_TAG)
            if backfill is not None:
                of_backfill[backfill].append(place)
        backfill = max(of_backfill, key=lambda b: (len(of_backfill[b]), b), default=None)
        found = of_backfill[backfill] if backfill is not None else []
        yield OtherWay(
            *("partition-pools", pool, len(places), before, after, backfill),
            runs=len({past.arrivals[place].key.run_id for place in found}),
            span=self._now.span(found),
        )


def _with_partition_pools(past: Recording, pool: str) -> Recording:
    """The same past, with a pool for each partition in place of one."""
    settings = dict(past.settings)
    known: dict[tuple[Demand, str], Demand] = {}

    def moved(arrival: Arrival) -> Arrival:
        partition = arrival.tags.get(PARTITION_TAG)
        if partition is None or pool not in arrival.demand.pools:
            return arrival
        demand = known.get((arrival.demand, partition))
        if demand is None:
            name = f"{pool}[{partition}]"
            settings[name] = past.settings[pool]
            demand = known[arrival.demand, partition] = Demand.of(
                {name if t.name == pool else t.name: t.slots for t in arrival.demand.terms}
            )
        return arrival._replace(demand=demand)

    def moved_run(run: Submission) -> Submission:
        partition = run.tags.get(PARTITION_TAG)
        if partition is None or pool not in (run.pools or ()):
            return run
        name = f"{pool}[{partition}]"
        settings[name] = past.settings[pool]
        pools = frozenset(name if p == pool else p for p in run.pools or ())
        first = {name if p == pool else p: n for p, n in (run.first_pools or {}).items()}
        return run._replace(pools=pools, first_pools=None if run.first_pools is None else first)

    queue = past.queue
    if queue is not None:
        queue = queue._replace(submissions=tuple(map(moved_run, queue.submissions)))
    arrivals = tuple(map(moved, past.arrivals))
    return replace(past, arrivals=arrivals, settings=settings, queue=queue)
