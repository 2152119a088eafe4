"""What is known of the past, in the form in which it can be played."""

from __future__ import annotations

import heapq
from collections import defaultdict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, NamedTuple

from dagster_lifeguard.engine.rules.pool_settings import NOTHING_SET, PoolSettings
from dagster_lifeguard.insight.simulation.arrivals import Arrival, Change

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from dagster_lifeguard.engine.rules.model import Demand, TicketKey

Source = Literal["ledger", "event-logs"]


class Doubt(NamedTuple):
    """Something that is not known, or was left out.

    Attributes:
        code: A code for programs.
        message: The code in a sentence.
        pools: The pools concerned; empty: all pools.
    """

    code: str
    message: str
    pools: tuple[str, ...] = ()


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
        waited: How long each really waited, in seconds; None if its wait does not count.
        settings: The settings of each pool at the beginning, with the limit in force.
        changes: Changes of these settings, in order of time.
        doubts: What is not known.
    """

    source: Source
    since: float
    until: float
    arrivals: tuple[Arrival, ...]
    waited: tuple[float | None, ...]
    settings: Mapping[str, PoolSettings]
    changes: tuple[Change, ...] = ()
    doubts: tuple[Doubt, ...] = ()

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


def in_order(executions: Iterable[Recorded]) -> tuple[list[Arrival], list[float | None]]:
    """Arrivals in the order of asking, and how long each really waited.

    A step that asked after another step of its run had ended asks in a play so long after that
    end: it mostly needs what the other made, or its process. All others ask when they did.
    """
    found = sorted(executions, key=lambda e: (e.asked, e.granted))
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
        arrivals.append(
            Arrival(
                one.key,
                one.asked if before is None else one.asked - before[0],
                one.demand,
                max(0.0, one.ended - one.granted),
                one.priority,
                one.tags,
                None if before is None else before[1],
            )
        )
        waited.append(max(0.0, one.granted - one.asked) if one.judged else None)
    return arrivals, waited
