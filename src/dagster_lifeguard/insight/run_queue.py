"""Why a run is in Dagster's run queue, and where."""

from __future__ import annotations

from collections import Counter
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
from dagster_lifeguard.insight.pools import look_into, runs_in

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from dagster_lifeguard.compat.health import RunQueue, TagLimit
    from dagster_lifeguard.deployment.contract import Deployment, Run, Settings
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


@dataclass(frozen=True, slots=True)
class QueuedRun:
    """A run in the queue that will ask for a pool.

    Attributes:
        waited: Since it was submitted, in seconds.
        place: Where it stands in the queue, and why.
    """

    run_id: str
    job_name: str
    waited: float
    place: QueuePlace


@dataclass(frozen=True, slots=True)
class Queued:
    """The runs in the queue that will ask for a pool.

    Attributes:
        count: How many there are.
        first: The first of them, in the order in which the daemon looks at them.
    """

    count: int
    first: tuple[QueuedRun, ...]


def queued_for(
    deployment: Deployment, pool: str, settings: Settings, past: Past, now: float, count_max: int
) -> Queued:
    """The runs in the queue that will ask for a pool; of them so many are looked into.

    Under granularity ``run`` there are none: there they wait at the pool.
    """
    if settings.granularity == "run":
        return Queued(0, ())
    unfinished = deployment.unfinished_runs()
    found = [run for run in in_line(unfinished) if pool in (run.pools or ())]
    if not found:
        return Queued(0, ())
    first = found[:count_max]
    states = deployment.pools({name for run in first for name in run.pools or ()})
    runs = runs_in(deployment, states)
    pools = {state.pool: look_into(state, runs, past, now) for state in states}
    queue = deployment.run_queue()
    return Queued(
        len(found),
        tuple(
            QueuedRun(
                run.run_id,
                run.job_name,
                max(0.0, now - run.created),
                place_in_queue(run, unfinished, pools, queue, settings, past, now),
            )
            for run in first
        ),
    )


def count_queued(unfinished: Iterable[Run], settings: Settings) -> Counter[str]:
    """How many runs in the queue will ask for each pool.

    None under granularity ``run``: there they wait at the pool.
    """
    if settings.granularity == "run":
        return Counter()
    queued = (run for run in unfinished if run.status == "QUEUED")
    return Counter(pool for run in queued for pool in run.pools or ())


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
    line = in_line(unfinished)
    ids = [other.run_id for other in line]
    position = ids.index(run.run_id) + 1 if run.run_id in ids else len(ids) + 1
    ahead = line[: position - 1]
    blockages = [
        *(_by_number(run, going_on, ahead, queue.runs_max, past, now) if queue else ()),
        *(_by_tags(run, going_on, ahead, queue.tag_limits, past, now) if queue else ()),
        *(_by_pools(run, ahead, pools, settings, past) if _heeds_pools(queue) else ()),
    ]
    return QueuePlace(
        position=position,
        length=len(line),
        priority=run.priority,
        blockages=tuple(blockages),
        estimate=latest_of(blockage.estimate for blockage in blockages),
    )


def in_line(unfinished: Iterable[Run]) -> list[Run]:
    """The runs in the queue, in the order in which the daemon looks at them.

    Args:
        unfinished: Runs that are not over, oldest first.
    """
    return sorted((r for r in unfinished if r.status == "QUEUED"), key=lambda r: -r.priority)


def _heeds_pools(queue: RunQueue | None) -> bool:
    return queue is None or queue.heeds_pools


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
    run: Run, ahead: Iterable[Run], pools: Mapping[str, Pool], settings: Settings, past: Past
) -> Iterator[Blockage]:
    asked = sorted(run.pools or ())
    full = [name for name in asked if _is_full(pools[name].summary, settings)]
    if settings.granularity == "op" and full != asked:
        return
    rivals = Counter(name for other in ahead for name in other.pools or ())
    for name in full:
        pool = pools[name]
        found = [waiter.estimate for waiter in pool.queue if waiter.run_id == run.run_id]
        if not found:  # Under granularity op a run in the queue does not wait at the pool yet.
            found = [_at_the_end(pool, rivals[name], past)]
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


def _at_the_end(pool: Pool, ahead: int, past: Past) -> Estimate:
    """When one goes in who comes after all who wait there, and after so many runs of the queue."""
    name = pool.summary.pool
    occupants = [
        Occupant(h.slots, h.elapsed or 0.0, past.holds_of(name, h.step_key), h.is_leaked)
        for h in pool.holders
    ]
    line = [Candidate(w.slots, past.holds_of(name, w.step_key)) for w in pool.queue]
    # Of a run in the queue it is not told which step will ask.
    line += [Candidate(1, past.holds_of(name, ""))] * ahead
    return forecast(pool.summary.limit or 0, occupants, [*line, Candidate(1, None)])[-1]


def _sample(run: Run, past: Past) -> Sample | None:
    sample = past.run_seconds.get(run.job_name)
    return sample if sample is not None and len(sample) >= SAMPLES_MIN else None


def _elapsed(run: Run, now: float) -> float:
    return max(0.0, now - (run.started or run.created))


def _outlines(runs: Iterable[Run], now: float) -> tuple[RunOutline, ...]:
    found = [RunOutline(r.run_id, r.job_name, r.status, _elapsed(r, now)) for r in runs]
    return tuple(sorted(found, key=lambda outline: -outline.elapsed))
