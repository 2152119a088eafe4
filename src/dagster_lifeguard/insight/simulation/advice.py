"""Advice: which limits to set, and why."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from dagster_lifeguard.engine.rules.pool_settings import PoolSettings
    from dagster_lifeguard.insight.simulation.answer import Answer

Verdict = Literal["met", "raised", "lowered", "unmet"]
Obstacle = Literal["lock", "paused", "rate", "budget", "run-queue"]


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
