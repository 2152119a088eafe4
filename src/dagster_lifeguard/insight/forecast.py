"""Estimates when a waiting step starts, by simulating the queue with past durations.

Each simulation draws the remaining time of each holder from past holds that were longer than it has
held already, and the holding time of each waiter ahead from all past holds. The quantiles of many
simulations are the estimate. In a simulation no waiter passes another. In reality a small demand
may pass a large one under the engine, and in Dagster's run queue a run whose pools are free passes
a run whose pools are full. So an estimate may be too late.
"""

from __future__ import annotations

import heapq
import random
from dataclasses import dataclass
from enum import Enum
from math import inf, isinf
from typing import TYPE_CHECKING

from dagster_lifeguard.insight.durations import quantile

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from dagster_lifeguard.insight.durations import Sample

PLAYS = 200
LONGER_MIN = 2
"""How many known holds must be longer than a holder's hold so far, to estimate its end."""

LINE_MAX = 500
"""A waiter further back in a queue gets no estimate."""


OCCUPANTS_MAX = 500
"""With more holders there is no estimate, because each simulation draws for each holder."""


class NoEstimate(str, Enum):
    """Why there is no estimate."""

    NO_HISTORY = "no-history"
    """Too few past executions are known for a holder, or for a step ahead."""
    OUTLASTED = "outlasted"
    """A holder has already run longer than nearly every known execution."""
    LEAKED = "leaked"
    """The run of a holder is over, so its slots may never be released."""
    PAUSED = "paused"
    """The limit is 0."""
    TOO_LARGE = "too-large"
    """The step asks for more slots than the limit."""
    TOO_FAR = "too-far"
    """Too many steps are ahead."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """In how many seconds a step is likely to start.

    Attributes:
        soonest: One simulated wait in ten ended by then.
        typical: Half of the simulated waits ended by then.
        latest: Nine simulated waits in ten ended by then; None if the wait may be longer than any
            that is known.
        samples: How many past executions the durations were drawn from.
        missing: Why there is no estimate.
    """

    soonest: float | None = None
    typical: float | None = None
    latest: float | None = None
    samples: int = 0
    missing: NoEstimate | None = None


@dataclass(frozen=True, slots=True)
class ForecastHolder:
    """A holder.

    Attributes:
        slots: How many slots it holds.
        elapsed: For how many seconds it has held them.
        sample: Past holds of the same kind, in seconds; None if none are known.
        is_stuck: Whether it will never release the slots by itself.
    """

    slots: int
    elapsed: float
    sample: Sample | None
    is_stuck: bool = False


@dataclass(frozen=True, slots=True)
class Candidate:
    """A waiter: how many slots it asks for, and past holds of the same kind."""

    slots: int
    sample: Sample | None


def forecast(
    limit: int, occupants: Iterable[ForecastHolder], line: Sequence[Candidate]
) -> tuple[Estimate, ...]:
    """Estimate for each waiter, in queue order, when it starts.

    The same question always gets the same answer: the draws are not random between calls.

    Args:
        limit: How many slots there are.
        occupants: The present holders.
        line: The waiters, the first in the queue first.
    """
    occupants = tuple(occupants)
    if limit == 0:
        return (Estimate(missing=NoEstimate.PAUSED),) * len(line)
    # A waiter that can never start holds up no other.
    able = [candidate for candidate in line if candidate.slots <= limit]
    found = iter(_of_the_able(limit, occupants, able))
    return tuple(
        next(found) if candidate.slots <= limit else Estimate(missing=NoEstimate.TOO_LARGE)
        for candidate in line
    )


def later_of(one: Estimate, other: Estimate) -> Estimate:
    """The later of two, the first if neither is."""
    return latest_of((one, other)) or one


def latest_of(estimates: Iterable[Estimate]) -> Estimate | None:
    """The estimate for one that waits in several queues: when the slowest of them lets it in."""
    found = tuple(estimates)
    for estimate in found:
        if estimate.missing is not None:
            return estimate
    return max(found, key=lambda e: e.typical or 0.0, default=None)


def earliest_of(estimates: Sequence[Estimate]) -> Estimate:
    """The estimate for one that the quickest of several queues lets in."""
    known = [estimate for estimate in estimates if estimate.missing is None]
    return min(known, key=lambda e: e.typical or 0.0, default=estimates[0])


def _of_the_able(
    limit: int, occupants: Sequence[ForecastHolder], line: Sequence[Candidate]
) -> list[Estimate]:
    if len(occupants) > OCCUPANTS_MAX:
        return [Estimate(missing=NoEstimate.TOO_FAR)] * len(line)
    known = line[:LINE_MAX]
    in_front = 0
    while in_front < len(known) and known[in_front].sample is not None:
        in_front += 1
    known = known[: in_front + 1]
    draws = random.Random(0)  # noqa: S311 - nothing secret about it
    plays = [_play(limit, occupants, known, draws) for _ in range(PLAYS)]
    samples = _count(occupants, known)
    estimates = []
    for position, moments in enumerate(zip(*plays, strict=True)):
        estimates.append(_estimate(sorted(moments), samples[position], _never(occupants)))
    missing = NoEstimate.TOO_FAR if len(known) >= LINE_MAX else NoEstimate.NO_HISTORY
    rest = len(line) - len(estimates)
    return [*estimates, *[Estimate(missing=missing)] * rest]


def _play(
    limit: int, occupants: Sequence[ForecastHolder], line: Sequence[Candidate], draws: random.Random
) -> list[float]:
    """When each waiter starts, in one simulation."""
    ends = [(_remaining(occupant, draws), occupant.slots) for occupant in occupants]
    heapq.heapify(ends)
    free = limit - sum(occupant.slots for occupant in occupants)
    now = 0.0
    moments = []
    for candidate in line:
        while free < candidate.slots:
            now, slots = heapq.heappop(ends)
            free += slots
        moments.append(now)
        free -= candidate.slots
        seconds = draws.choice(candidate.sample.seconds) if candidate.sample else inf
        heapq.heappush(ends, (now + seconds, candidate.slots))
    return moments


def _remaining(occupant: ForecastHolder, draws: random.Random) -> float:
    if occupant.is_stuck or occupant.sample is None:
        return inf
    longer = occupant.sample.longer_than(occupant.elapsed)
    return draws.choice(longer) - occupant.elapsed if len(longer) >= LONGER_MIN else inf


def _count(occupants: Sequence[ForecastHolder], line: Sequence[Candidate]) -> list[int]:
    """For each in line, how many executions its estimate is drawn from, each counted once."""
    seen = {id(o.sample): len(o.sample) for o in occupants if o.sample is not None}
    counts = []
    for candidate in line:
        counts.append(sum(seen.values()))
        if candidate.sample is not None:
            seen[id(candidate.sample)] = len(candidate.sample)
    return counts


def _never(occupants: Iterable[ForecastHolder]) -> NoEstimate:
    """The reason for no estimate if a holder never releases its slots in most simulations."""
    if any(occupant.is_stuck for occupant in occupants):
        return NoEstimate.LEAKED
    known = all(occupant.sample is not None for occupant in occupants)
    return NoEstimate.OUTLASTED if known else NoEstimate.NO_HISTORY


def _estimate(moments: Sequence[float], samples: int, never: NoEstimate) -> Estimate:
    typical = quantile(moments, 0.5)
    if isinf(typical):
        return Estimate(samples=samples, missing=never)
    latest = quantile(moments, 0.9)
    return Estimate(
        soonest=quantile(moments, 0.1),
        typical=typical,
        latest=None if isinf(latest) else latest,
        samples=samples,
    )
