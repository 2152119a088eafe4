"""Which limits to set: the smallest that meet a target for waits, found by playing the past.

The search has two parts, and each step of it is a play of the whole past. First it raises limits:
the executions that wait longer than the target point to the pool where they stood longest, and the
limit of that pool doubles, until every target is met or nothing that may be raised would help. Then
it lowers each raised limit as far as no target is lost, by halving the interval. So each advised
limit is the smallest with the other advised limits as they are. Their sum need not be the smallest.

A limit of 1 is a lock: it keeps two executions from one table, and more slots would break that. It
is raised only where a budget names the pool.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, NamedTuple

from dagster_lifeguard.engine.rules.admission import PATIENCE_SECONDS
from dagster_lifeguard.engine.rules.model import Demand
from dagster_lifeguard.engine.rules.pool_settings import BACKFILL_TAG, LIMIT_MAX, NOTHING_SET
from dagster_lifeguard.insight.durations import quantile
from dagster_lifeguard.insight.simulation.answer import Answer, play_recording, simulate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from dagster_lifeguard.engine.rules.pool_settings import PoolSettings
    from dagster_lifeguard.insight.simulation.recording import Recording
    from dagster_lifeguard.insight.simulation.world import Arrival, Play

Verdict = Literal["met", "raised", "lowered", "unmet"]
Obstacle = Literal["lock", "paused", "rate", "budget"]

PARTITION_TAG = "dagster/partition"

CULPRIT_MIN = 0.1
"""A pool is held responsible for at least this share of the time that late executions stood."""

KEPT = 1.05
"""Where a target cannot be met, a limit is lowered while the wait grows by no more than this."""

OTHER_WAYS_MAX = 5
"""For this many pools, those with the longest waits, other ways than a larger limit are played."""

GAIN_MIN = 0.5
"""Another way is mentioned if it takes at least this share off the wait."""


class Target(NamedTuple):
    """A wait that is short enough.

    Attributes:
        share: The share of a pool's executions that must not wait longer, 0 to 1.
        seconds: How long.
    """

    share: float
    seconds: float


class Blocked(NamedTuple):
    """A pool that keeps a target from being met, and why it cannot be raised."""

    pool: str
    why: Obstacle


@dataclass(frozen=True, slots=True)
class PoolAdvice:
    """What to do with the limit of one pool.

    Attributes:
        pool: Its name.
        target: What its executions should have.
        executions: How many asked for it.
        settings: What is set of it now.
        limit: The advised limit; the one in force if nothing is to be changed.
        late: How many executions waited longer than the target, in the play of today's limits.
        wait: The wait that the target is about, in seconds, with today's limits. Infinite if
            executions never started.
        advised: The same with all advised limits.
        one_less: The same with this limit lower by one; None if that was not needed to decide.
        utilisation: The part of its slots that was held with today's limit, 0 to 1.
        most: The most slots held at once, with today's limits.
        verdict: ``met`` without a change, ``raised``, ``lowered``, or ``unmet``.
        blocked: What keeps the target from being met.
    """

    pool: str
    target: Target
    executions: int
    settings: PoolSettings
    limit: int
    late: int
    wait: float
    advised: float
    one_less: float | None
    utilisation: float | None
    most: int
    verdict: Verdict
    blocked: tuple[Blocked, ...] = ()


@dataclass(frozen=True, slots=True)
class OtherWay:
    """Something other than a larger limit that shortens the waits of a pool.

    Attributes:
        kind: ``fair-order`` between backfills, or ``partition-pools``: one pool per partition.
        pool: The pool.
        executions: The executions that gain: those outside of backfills, or all.
        wait: Their wait of the target's share now, in seconds.
        after: The same this way.
        backfill: For partition pools, the backfill with the most runs in line; None without one.
        runs: How many runs of it asked for the pool.
        span: For how long, in seconds, from the first that asked to the last that started.
    """

    kind: Literal["fair-order", "partition-pools"]
    pool: str
    executions: int
    wait: float
    after: float
    backfill: str | None = None
    runs: int = 0
    span: float = 0.0


@dataclass(frozen=True, slots=True)
class Advice:
    """Which limits to set.

    Attributes:
        answer: How well the play fits the past; see ``simulate``.
        pools: By name.
        other_ways: Sorted by pool.
        unused: Pools with a limit of their own that no execution asked for.
        never_full: Pools with a limit above 1, and the most slots that were held at once, which is
            less.
        plays: How often the past was played.
    """

    answer: Answer
    pools: tuple[PoolAdvice, ...]
    other_ways: tuple[OtherWay, ...]
    unused: tuple[str, ...]
    never_full: tuple[tuple[str, int, int], ...]
    plays: int

    @property
    def limits(self) -> dict[str, int]:
        """The limits to set, by pool: those that differ from the limits in force."""
        return {p.pool: p.limit for p in self.pools if p.limit != p.settings.limit}


def advise(
    recording: Recording,
    target: Target,
    *,
    targets: Mapping[str, Target] | None = None,
    budgets: Mapping[str, int] | None = None,
    own_limits: Mapping[str, int] | None = None,
    lower: bool = False,
    patience_seconds: float | None = None,
    on_play: Callable[[int], None] | None = None,
) -> Advice:
    """Find the smallest limits that meet a target.

    Args:
        recording: The past.
        target: For every pool.
        targets: For single pools, instead.
        budgets: The largest limit of single pools. A lock that is named here may be raised.
        own_limits: The limits that are set of pools, to name those that nobody needs.
        lower: Whether limits that are larger than needed are lowered too.
        patience_seconds: How long a ticket lets later ones pass; None: the default.
        on_play: Called before each play with the number of plays so far.
    """
    patience = PATIENCE_SECONDS if patience_seconds is None else patience_seconds
    tell = on_play or (lambda _: None)
    tell(0)
    answer = simulate(recording, {}, patience_seconds=patience)
    search = _Search(
        _under_todays_settings(recording), target, targets or {}, budgets or {}, patience, tell
    )
    search.raise_limits()
    search.lower_limits(all_pools=lower)
    pools = tuple(map(search.advice_of, search.pools))
    other_ways = tuple(_OtherWays(search).found())
    return Advice(
        answer=answer,
        pools=pools,
        other_ways=other_ways,
        unused=tuple(sorted((own_limits or {}).keys() - recording.pools)),
        never_full=tuple(
            (p.pool, p.settings.limit, p.most)
            for p in pools
            if p.settings.limit is not None and p.settings.limit > 1 and p.most < p.settings.limit
        ),
        plays=search.plays + 1,
    )


def _under_todays_settings(recording: Recording) -> Recording:
    """The same past with the settings at its end, as if they had been in force all the time."""
    settings = dict(recording.settings)
    settings.update((change.pool, change.settings) for change in recording.changes)
    return replace(recording, settings=settings, changes=())


class _Played:
    """One play, as targets see it."""

    def __init__(self, past: Recording, played: Play, places: Mapping[str, list[int]]) -> None:
        self._played = played
        self._places = places
        self._ordered: dict[str, list[float]] = {}
        self.use = played.use
        self.waits = [_wait(past, played, place) for place in range(len(past.arrivals))]

    def wait(self, pool: str, share: float) -> float:
        ordered = self._ordered.get(pool)
        if ordered is None:
            ordered = sorted(self.waits[place] for place in self._places[pool])
            self._ordered[pool] = ordered
        return quantile(ordered, share)

    def late(self, pool: str, seconds: float) -> list[int]:
        return [place for place in self._places[pool] if self.waits[place] > seconds]

    def stood(self, places: Sequence[int]) -> list[str]:
        """The pools where these stood for a good part of their time, the longest first."""
        sums: Counter[str] = Counter()
        for place in places:
            sums.update(self._played.stood.get(place, {}))
        whole = sum(sums.values())
        return [pool for pool, part in sums.most_common() if part > CULPRIT_MIN * whole]

    def span(self, places: Sequence[int]) -> float:
        """From when the first of these asked until the last started, in seconds."""
        asked = [at for place in places if (at := self._played.asked[place]) is not None]
        granted = [at for place in places if (at := self._played.granted[place]) is not None]
        return max(granted) - min(asked) if asked and granted else 0.0


def _wait(past: Recording, played: Play, place: int) -> float:
    if past.waited[place] is None:
        return 0.0  # It started before the window.
    waited = played.waited(place)
    return math.inf if waited is None else waited


class _Search:
    """Limits, and what a play of the past makes of each choice of them."""

    def __init__(
        self,
        past: Recording,
        target: Target,
        targets: Mapping[str, Target],
        budgets: Mapping[str, int],
        patience: float,
        on_play: Callable[[int], None],
    ) -> None:
        self.past = past
        self.patience = patience
        self.plays = 0
        self._on_play = on_play
        self._target = target
        self._targets = targets
        self._budgets = budgets
        self.places: dict[str, list[int]] = defaultdict(list)
        for place, arrival in enumerate(past.arrivals):
            if past.waited[place] is not None:
                for pool in arrival.demand.pools:
                    self.places[pool].append(place)
        self.now: dict[str, int] = {}
        for pool in sorted(self.places):
            limit = past.settings.get(pool, NOTHING_SET).limit
            if limit is not None:
                self.now[pool] = limit
        self.limits = dict(self.now)
        self._known: dict[tuple[int, ...], _Played] = {}
        self._one_less: dict[str, float] = {}

    @property
    def pools(self) -> list[str]:
        """The pools that have a limit and were asked for."""
        return list(self.now)

    def target(self, pool: str) -> Target:
        return self._targets.get(pool, self._target)

    def play(self, past: Recording) -> _Played:
        """Play some past, with the same arrivals at the same places."""
        self.plays += 1
        self._on_play(self.plays)
        return _Played(past, play_recording(past, self.patience), self.places)

    def played(self, limits: Mapping[str, int]) -> _Played:
        known = tuple(limits[pool] for pool in self.now)
        if known not in self._known:
            wanted = {pool: {"limit": n} for pool, n in limits.items() if n != self.now[pool]}
            self._known[known] = self.play(self.past.with_settings(wanted))
        return self._known[known]

    def wait(self, pool: str, limits: Mapping[str, int]) -> float:
        return self.played(limits).wait(pool, self.target(pool).share)

    def missed(self, limits: Mapping[str, int]) -> list[str]:
        return [p for p in self.now if self.wait(p, limits) > self.target(p).seconds]

    # ---- up, and down again --------------------------------------------------------------------

    def raise_limits(self) -> None:
        """Raise limits until each target is met, or nothing that may be raised would help."""
        while True:
            wanted = {
                culprit
                for pool in self.missed(self.limits)
                if (culprit := self._to_raise(pool)) is not None
            }
            if not wanted:
                return
            for pool in wanted:
                most = self._budgets.get(pool, LIMIT_MAX)
                self.limits[pool] = min(2 * self.limits[pool], most)

    def _culprits(self, pool: str) -> list[str]:
        played = self.played(self.limits)
        return played.stood(played.late(pool, self.target(pool).seconds))

    def _to_raise(self, pool: str) -> str | None:
        return next((c for c in self._culprits(pool) if self._obstacle(c) is None), None)

    def _obstacle(self, pool: str) -> Obstacle | None:
        limit = self.limits.get(pool)
        if limit is None:
            return "rate"
        if limit == 0:
            return "paused"
        if limit >= self._budgets.get(pool, LIMIT_MAX):
            return "budget"
        if self.now[pool] == 1 and pool not in self._budgets:
            return "lock"
        # More slots are no use where the rate alone keeps steps from starting.
        use = self.played(self.limits).use.get(pool)
        return None if use is not None and use.most >= limit else "rate"

    def lower_limits(self, *, all_pools: bool) -> None:
        """Lower each limit that was raised, as far as every wait stays as short as it must be.

        Args:
            all_pools: Lower the limits that were not raised as well, but no lock.
        """
        bounds = {
            pool: max(self.target(pool).seconds, KEPT * self.wait(pool, self.limits))
            for pool in self.now
        }
        for pool, now in self.now.items():
            if self.limits[pool] > now or (all_pools and now > 1):
                least = 1 if all_pools and now > 1 else now
                self._lower(pool, least, bounds)

    def _lower(self, pool: str, least: int, bounds: Mapping[str, float]) -> None:
        def is_enough(limit: int) -> bool:
            limits = {**self.limits, pool: limit}
            return all(self.wait(other, limits) <= bounds[other] for other in self.now)

        low, high = least, self.limits[pool]  # The high one is enough.
        while low < high:
            middle = (low + high) // 2
            if is_enough(middle):
                high = middle
            else:
                low = middle + 1
        self.limits[pool] = high
        if high > least:
            self._one_less[pool] = self.wait(pool, {**self.limits, pool: high - 1})

    # ---- what came of it -----------------------------------------------------------------------

    def advice_of(self, pool: str) -> PoolAdvice:
        now, target = self.played(self.now), self.target(pool)
        limit, before = self.limits[pool], self.now[pool]
        advised = self.wait(pool, self.limits)
        blocked: tuple[Blocked, ...] = ()
        verdict: Verdict = "met"
        if advised > target.seconds:
            verdict = "unmet"
            blocked = tuple(self._blocked(pool))
        elif limit != before:
            verdict = "raised" if limit > before else "lowered"
        use = now.use.get(pool)
        return PoolAdvice(
            pool=pool,
            target=target,
            executions=len(self.places[pool]),
            settings=self.past.settings[pool],
            limit=limit,
            late=len(now.late(pool, target.seconds)),
            wait=now.wait(pool, target.share),
            advised=advised,
            one_less=self._one_less.get(pool),
            utilisation=None if use is None else use.share,
            most=0 if use is None else use.most,
            verdict=verdict,
            blocked=blocked,
        )

    def _blocked(self, pool: str) -> Iterator[Blocked]:
        for culprit in self._culprits(pool):
            why = self._obstacle(culprit)
            if why is None and culprit in self._budgets:
                why = "budget"  # As many slots as that would not help further.
            if why is not None:
                yield Blocked(culprit, why)


class _OtherWays:
    """Tries what may help more than a larger limit, at the pools with the longest waits."""

    def __init__(self, search: _Search) -> None:
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

    return replace(past, arrivals=tuple(map(moved, past.arrivals)), settings=settings)
