"""The present of a deployment, from which plays go on: holders, waiters and runs."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from dagster_lifeguard.engine.rules.admission import PATIENCE_SECONDS
from dagster_lifeguard.engine.rules.pool_settings import NOTHING_SET

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from dagster_lifeguard.compat.health import RunQueue
    from dagster_lifeguard.engine.rules.model import Demand, TicketKey
    from dagster_lifeguard.engine.rules.pool_settings import PoolSettings
    from dagster_lifeguard.insight.simulation.arrivals import Change

_NO_TAGS: Mapping[str, str] = {}
_NOTHING_DONE: Mapping[str, float] = {}


class Standing(NamedTuple):
    """A ticket that holds or waits.

    Attributes:
        since: When it got its slots, or began to wait; seconds since the epoch.
        tags: The groups of fair orders.
        is_stuck: Whether it holds and its run is over, so that it may never release its slots.
    """

    key: TicketKey
    demand: Demand
    since: float
    priority: int = 0
    tags: Mapping[str, str] = _NO_TAGS
    is_stuck: bool = False


class PresentRun(NamedTuple):
    """A run in the run queue or in progress. Times are seconds since the epoch.

    Attributes:
        first_pools: See ``Submission``.
        launched: When it left the queue; None if it is in it.
        started: When its process started; None if it did not yet.
        done: When each of its steps ended that held pools and ended already.
    """

    run_id: str
    job_name: str
    priority: int = 0
    tags: Mapping[str, str] = _NO_TAGS
    pools: frozenset[str] | None = None
    first_pools: Mapping[str, int] | None = None
    launched: float | None = None
    started: float | None = None
    done: Mapping[str, float] = _NOTHING_DONE


@dataclass(frozen=True, slots=True)
class Present:
    """Who holds and waits at one moment.

    Attributes:
        at: The moment, in seconds since the epoch.
        settings: The settings of each pool, with the limit in force. A pool that is missing is
            unlimited.
        holding: The holders.
        waiting: The waiters, in the order in which they asked.
        queued: The runs in the run queue, in the order in which the daemon looks at them.
        going_on: The runs in progress.
        rules: How the queue lets runs go; None if there is no queue.
        by_run: Whether the granularity is ``run``.
        due_ns: The state of the rate of each pool that has one.
        patience_seconds: How long a ticket lets later ones pass.
        changes: The ends of temporary limits, and what is in force from then on.
    """

    at: float
    settings: Mapping[str, PoolSettings]
    holding: tuple[Standing, ...] = ()
    waiting: tuple[Standing, ...] = ()
    queued: tuple[PresentRun, ...] = ()
    going_on: tuple[PresentRun, ...] = ()
    rules: RunQueue | None = None
    by_run: bool = False
    due_ns: Mapping[str, int] = field(default_factory=dict)
    patience_seconds: float = PATIENCE_SECONDS
    changes: tuple[Change, ...] = ()

    def limits_to_come(self, pool: str) -> list[int | None]:
        """The limit of a pool that is in force, and those that will be."""
        later = (change.settings.limit for change in self.changes if change.pool == pool)
        return [self.settings.get(pool, NOTHING_SET).limit, *later]

    def joined(self, pools: Collection[str]) -> set[str]:
        """These pools, and those that tickets join to them: one ticket asks for both."""
        asking: dict[str, list[Standing]] = defaultdict(list)
        for ticket in self.tickets():
            for pool in ticket.demand.pools:
                asking[pool].append(ticket)
        found, left = set(pools), list(pools)
        while left:
            for ticket in asking.pop(left.pop(), ()):
                left += [pool for pool in ticket.demand.pools if pool not in found]
                found.update(ticket.demand.pools)
        return found

    def tickets(self) -> Iterator[Standing]:
        """The holders and the waiters."""
        yield from self.holding
        yield from self.waiting
