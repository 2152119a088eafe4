"""Why a run is in Dagster's run queue, and where."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from dagster_lifeguard.insight.forecast import (
    Candidate,
    Estimate,
    Occupant,
    forecast,
    latest_of,
)
from dagster_lifeguard.insight.past import SAMPLES_MIN

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from dagster_lifeguard.compat.health import RunQueue, TagLimit
    from dagster_lifeguard.deployment.contract import Run, Settings
    from dagster_lifeguard.insight.past import Past, Sample
    from dagster_lifeguard.insight.pools import Pool, PoolSummary

IN_PROGRESS = ("STARTING", "STARTED", "CANCELING")
"""The runs that Dagster's run queue counts as going on."""

BEFORE_LAUNCH = ("QUEUED", "NOT_STARTED", "MANAGED")


class Obstacle(str, Enum):
    """What keeps a run in the queue."""

    RUNS_MAX = "max-concurrent-runs"
    """As many runs go on as may at once."""
    TAG = "tag-limit"
    """As many runs with one of its tags go on as may at once."""
    POOL = "pool"
    """A pool that it needs is full; under granularity ``op``, all that it may begin with."""


@dataclass(frozen=True, slots=True)
class RunOutline:
    """A run that goes on.

    Attributes:
        elapsed: Since when it began, or was submitted if it did not yet.
    """

    run_id: str
    job_name: str
    status: str
    elapsed: float


@dataclass(frozen=True, slots=True)
class Blockage:
    """One thing that keeps a run in the queue.

    Attributes:
        name: The tag as ``key=value``, or the pool; empty for the number of runs.
        limit: How many may go on at once, or the pool's slots.
        taken: How many do, or the slots that are held.
        behind: Who that is, oldest first.
        estimate: When this alone would let it go.
    """

    obstacle: Obstacle
    name: str
    limit: int
    taken: int
    behind: tuple[RunOutline, ...]
    estimate: Estimate


@dataclass(frozen=True, slots=True)
class QueuePlace:
    """Where a run stands in the queue.

    Attributes:
        position: 1 for the run that is looked at first.
        length: How many runs are in the queue.
        priority: Runs with a higher one are looked at before.
        blockages: What keeps it there; empty if it leaves when the daemon looks next.
        estimate: When it leaves.
    """

    position: int
    length: int
    priority: int
    blockages: tuple[Blockage, ...]
    estimate: Estimate | None


def place_in_queue(
    run: Run,
    unfinished: Sequence[Run],
    pools: Mapping[str, Pool],
    queue: RunQueue | None,
    settings: Settings,
    past: Past,
    now: float,
) -> QueuePlace:
    """Where a queued run stands, and why.

    Args:
        run: The run.
        unfinished: All runs that are not over, oldest first.
        pools: The pools that the run asks for.
        queue: How the run queue lets runs go; None if there is none.
        settings: Of the deployment.
        past: For estimates.
        now: When all this was read.
    """
    going_on = [other for other in unfinished if other.status in IN_PROGRESS]
    line = sorted((r for r in unfinished if r.status == "QUEUED"), key=lambda r: -r.priority)
    ids = [other.run_id for other in line]
    position = ids.index(run.run_id) + 1 if run.run_id in ids else len(ids) + 1
    ahead = line[: position - 1]
    blockages = [
        *(_by_number(run, going_on, ahead, queue.runs_max, past, now) if queue else ()),
        *(_by_tags(run, going_on, ahead, queue.tag_limits, past, now) if queue else ()),
        *(_by_pools(run, pools, settings, past) if queue is None or queue.heeds_pools else ()),
    ]
    return QueuePlace(
        position=position,
        length=len(line),
        priority=run.priority,
        blockages=tuple(blockages),
        estimate=latest_of(blockage.estimate for blockage in blockages),
    )


def _by_number(
    run: Run,
    going_on: Sequence[Run],
    ahead: Sequence[Run],
    limit: int,
    past: Past,
    now: float,
) -> Iterator[Blockage]:
    if 0 <= limit <= len(going_on):
        yield _counted(Obstacle.RUNS_MAX, "", limit, going_on, [*ahead, run], past, now)


def _by_tags(
    run: Run,
    going_on: Sequence[Run],
    ahead: Sequence[Run],
    rules: Sequence[TagLimit],
    past: Past,
    now: float,
) -> Iterator[Blockage]:
    for key, wanted, per_value, limit in rules:
        own = run.tags.get(key)
        if own is None or (wanted is not None and own != wanted):
            continue
        is_exact = per_value or wanted is not None

        def counts(other: Run, key: str = key, own: str = own, exact: bool = is_exact) -> bool:  # noqa: FBT001
            return other.tags.get(key) == own if exact else key in other.tags

        counted = [other for other in going_on if counts(other)]
        if len(counted) >= limit:
            line = [*filter(counts, ahead), run]
            name = f"{key}={own}" if is_exact else key
            yield _counted(Obstacle.TAG, name, limit, counted, line, past, now)


def _counted(
    obstacle: Obstacle,
    name: str,
    limit: int,
    going_on: Sequence[Run],
    line: Sequence[Run],
    past: Past,
    now: float,
) -> Blockage:
    occupants = [Occupant(1, _elapsed(run, now), _sample(run, past)) for run in going_on]
    candidates = [Candidate(1, _sample(run, past)) for run in line]
    return Blockage(
        obstacle=obstacle,
        name=name,
        limit=limit,
        taken=len(going_on),
        behind=_outlines(going_on, now),
        estimate=forecast(limit, occupants, candidates)[-1],
    )


def _by_pools(
    run: Run, pools: Mapping[str, Pool], settings: Settings, past: Past
) -> Iterator[Blockage]:
    asked = sorted(run.pools or ())
    full = [name for name in asked if _is_full(pools[name].summary, settings)]
    if settings.granularity == "op" and full != asked:
        return
    for name in full:
        pool = pools[name]
        found = [waiter.estimate for waiter in pool.queue if waiter.run_id == run.run_id]
        if not found:  # Under granularity op a run in the queue does not wait at the pool yet.
            found = [_at_the_end(pool, past)]
        yield Blockage(
            obstacle=Obstacle.POOL,
            name=name,
            limit=pool.summary.limit or 0,
            taken=pool.summary.held,
            behind=tuple(
                RunOutline(h.run_id, h.job_name or "", h.run_status or "", h.elapsed or 0.0)
                for h in pool.holders
            ),
            estimate=found[0],
        )


def _is_full(pool: PoolSummary, settings: Settings) -> bool:
    """As the run queue counts it: under granularity ``op``, waiting steps take slots too."""
    if pool.limit is None:
        return False
    return pool.held + (pool.waiting if settings.granularity == "op" else 0) >= pool.limit


def _at_the_end(pool: Pool, past: Past) -> Estimate:
    name = pool.summary.pool
    occupants = [
        Occupant(h.slots, h.elapsed or 0.0, past.holds_of(name, h.step_key), h.is_leaked)
        for h in pool.holders
    ]
    line = [Candidate(w.slots, past.holds_of(name, w.step_key)) for w in pool.queue]
    return forecast(pool.summary.limit or 0, occupants, [*line, Candidate(1, None)])[-1]


def _sample(run: Run, past: Past) -> Sample | None:
    sample = past.run_seconds.get(run.job_name)
    return sample if sample is not None and len(sample) >= SAMPLES_MIN else None


def _elapsed(run: Run, now: float) -> float:
    return max(0.0, now - (run.started or run.created))


def _outlines(runs: Iterable[Run], now: float) -> tuple[RunOutline, ...]:
    found = [RunOutline(r.run_id, r.job_name, r.status, _elapsed(r, now)) for r in runs]
    return tuple(sorted(found, key=lambda outline: -outline.elapsed))
