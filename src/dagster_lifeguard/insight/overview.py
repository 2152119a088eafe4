"""All pools in outline, those under most pressure first."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING

from dagster_lifeguard.deployment.contract import idle_pool
from dagster_lifeguard.engine.rules.pool_expressions import Term

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from dagster_lifeguard.deployment.contract import PoolState, Settings
    from dagster_lifeguard.engine.rules.pool_settings import FallBack
    from dagster_lifeguard.insight.durations import Durations, Sample, Spread
    from dagster_lifeguard.insight.waits import HeldBack


@dataclass(frozen=True, slots=True)
class PoolSummary:
    """One pool, summarized. Durations are seconds.

    Attributes:
        limit: The limit in force; 0: paused, None: unlimited.
        from_default: Whether ``limit`` is the default limit.
        fall_back: If ``limit`` is temporary: when it ends, and the limit after that.
        held: Slots that are held.
        waiting: How many wait: steps at the pool, and runs that the run queue holds back for it.
            Under granularity ``run``: the runs in the queue.
        queued: How many of them are runs that the run queue holds back; 0 under granularity
            ``run``.
        wanted: Slots that all of them ask for.
        oldest_wait: How long the longest of them has waited; None if nobody waits, or if it is
            not told since when.
        oldest_queued: The same of the runs that the run queue holds back.
        utilisation: Share of the slots that are held; above 1 while a lowered limit drains; None
            if the pool is paused or unlimited.
        waits: How long steps waited in the window that was looked at, in the run queue and at the
            pool; None if none went in.
        queue_waits: How long of that their runs were in the run queue.
        settings: What else is set of it, in the words of lifeguard.yaml, as far as that is told:
            ``rate``, such as ``100/minute, burst 10``, and ``order``, such as ``fair(tag:team)``.
    """

    pool: str
    limit: int | None
    from_default: bool
    fall_back: FallBack | None
    held: int
    waiting: int
    queued: int
    wanted: int
    oldest_wait: float | None
    oldest_queued: float | None
    utilisation: float | None
    waits: Spread | None
    queue_waits: Spread | None
    settings: Mapping[str, str]

    @property
    def is_idle(self) -> bool:
        """Whether the pool has neither holders nor waiters."""
        return not self.held and not self.waiting

    @property
    def pressure(self) -> float:
        """Slots held and asked for, divided by the limit; above 1 some step waits."""
        if self.limit is None:
            return 0.0
        asked = self.held + self.wanted
        return asked / self.limit if self.limit else inf if asked else 0.0


@dataclass(frozen=True, slots=True)
class Overview:
    """The pools of a deployment.

    Attributes:
        at: When the deployment was read, in seconds since the epoch.
        granularity: ``op`` if steps wait in their run, ``run`` if runs wait in the queue.
        engine: Whether the engine is in use; None if that cannot be seen.
        default_limit: Limit of a pool without a limit of its own; None if it is unlimited.
        window: How many seconds before ``at`` the ``waits`` cover; 0 if history was not read.
        pools: The pools under most pressure first.
        held: Slots held in all pools.
        waiting: Steps and runs that wait for some pool, at it or in the run queue, each counted
            once.
        queued: How many of them are runs that the run queue holds back.
        oldest_wait: How long the longest of them has waited.
        in_queue: How many runs are in the run queue, for whatever reason; 0 under granularity
            ``run``, where runs wait at the pools.
    """

    at: float
    granularity: str
    engine: bool | None
    default_limit: int | None
    window: float
    pools: tuple[PoolSummary, ...]
    held: int
    waiting: int
    queued: int
    oldest_wait: float | None
    in_queue: int

    @property
    def busy(self) -> tuple[PoolSummary, ...]:
        """The pools with holders or waiters."""
        return tuple(pool for pool in self.pools if not pool.is_idle)


def overview(
    states: Iterable[PoolState],
    held_back: HeldBack,
    settings: Settings,
    past: Durations,
    now: float,
) -> Overview:
    """All pools in outline, those under most pressure first.

    Beside the pools of ``states`` these are the ones that were used in the window: the engine lists
    a pool under the default limit only while it is in use.
    """
    states = (*states, *held_back.unlisted)
    used = past.waits.keys() - {state.pool for state in states}
    states += tuple(
        idle_pool(pool, settings.default_limit)
        for pool in used
        if not Term.written(pool).is_by_partition  # The history does not tell the partition.
    )
    summaries = [summarize(state, held_back, past, now) for state in states]
    summaries.sort(key=lambda s: (-s.pressure, -(s.oldest_wait or 0.0), -s.held, s.pool))
    waiting, queued = held_back.wait_for_any(states)
    waits = [s.oldest_wait for s in summaries if s.oldest_wait is not None]
    return Overview(
        at=now,
        granularity=settings.granularity,
        engine=settings.engine,
        default_limit=settings.default_limit,
        window=past.until - past.since,
        pools=tuple(summaries),
        held=sum(s.held for s in summaries),
        waiting=waiting,
        queued=queued,
        oldest_wait=max(waits, default=None),
        in_queue=held_back.in_queue,
    )


def summarize(state: PoolState, held_back: HeldBack, past: Durations, now: float) -> PoolSummary:
    """One pool in outline."""
    waits = held_back.waits_for(state)
    return PoolSummary(
        pool=state.pool,
        limit=state.limit,
        from_default=state.from_default,
        fall_back=state.settings.fall_back,
        held=state.held,
        waiting=waits.count,
        queued=len(waits.runs),
        wanted=waits.slots,
        oldest_wait=waits.oldest(now),
        oldest_queued=waits.oldest_queued(now),
        utilisation=state.held / state.limit if state.limit else None,
        waits=spread_of(past.waits.get(state.pool)),
        queue_waits=spread_of(past.queue_waits.get(state.pool)),
        settings=state.settings.texts_set,
    )


def spread_of(sample: Sample | None) -> Spread | None:
    return None if sample is None else sample.spread()
