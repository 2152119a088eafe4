"""A search for the smallest limits that meet targets for waits.

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
from typing import TYPE_CHECKING

from dagster_lifeguard.engine.rules.pool_settings import LIMIT_MAX, NOTHING_SET
from dagster_lifeguard.insight.durations import quantile
from dagster_lifeguard.insight.simulation.advice import Blocked, PoolAdvice
from dagster_lifeguard.insight.simulation.answer import play_recording
from dagster_lifeguard.insight.simulation.outcome import RUN_QUEUE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from dagster_lifeguard.insight.simulation.advice import Obstacle, Target, Verdict
    from dagster_lifeguard.insight.simulation.outcome import Play
    from dagster_lifeguard.insight.simulation.recording import Recording

CULPRIT_MIN = 0.1
"""A pool is held responsible for at least this share of the time that late executions stood."""

KEPT = 1.05
"""Where a target cannot be met, a limit is lowered while the wait grows by no more than this."""


class Played:
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


class Search:
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
        self._known: dict[tuple[int, ...], Played] = {}
        self._one_less: dict[str, float] = {}

    @property
    def pools(self) -> list[str]:
        """The pools that have a limit and were asked for."""
        return list(self.now)

    def target(self, pool: str) -> Target:
        return self._targets.get(pool, self._target)

    def play(self, past: Recording) -> Played:
        """Play some past, with the same arrivals at the same places."""
        self.plays += 1
        self._on_play(self.plays)
        return Played(past, play_recording(past, self.patience), self.places)

    def played(self, limits: Mapping[str, int]) -> Played:
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
        if pool == RUN_QUEUE:
            return "run-queue"
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
