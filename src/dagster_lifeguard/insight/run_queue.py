"""Why a run is in Dagster's run queue, where, and when it leaves it."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

from dagster_lifeguard.insight.durations import SAMPLES_MIN
from dagster_lifeguard.insight.forecast import (
    LINE_MAX,
    OCCUPANTS_MAX,
    Candidate,
    Estimate,
    ForecastHolder,
    earliest_of,
    forecast,
    latest_of,
)
from dagster_lifeguard.insight.pools import look_into, runs_in
from dagster_lifeguard.insight.queue_look import (
    IN_QUEUE_OR_PROGRESS,
    Keeper,
    Obstacle,
    QueueLook,
    in_line,
)
from dagster_lifeguard.insight.waits import NOBODY

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from dagster_lifeguard.deployment.contract import Deployment, PoolState, Run, Settings
    from dagster_lifeguard.insight.durations import Durations, Sample
    from dagster_lifeguard.insight.pools import Pool

NO_STATES: Mapping[str, PoolState] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class RunOutline:
    """A run that takes up a limit.

    Attributes:
        elapsed: Seconds since it started, or since it was submitted if it has not started.
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
        limit: The largest number of runs at once, or the slots of the pool.
        taken: How many runs are in progress, or how many slots are held.
        promised: The further slots that the queue counts as taken: for waiting steps, and for runs
            that were just launched or will be launched before this one.
        behind: The runs or holders that take up the limit, oldest first.
        estimate: When the run could leave if nothing else kept it.
    """

    obstacle: Obstacle
    name: str
    limit: int
    taken: int
    promised: int
    behind: tuple[RunOutline, ...]
    estimate: Estimate


@dataclass(frozen=True, slots=True)
class QueuePlace:
    """The place of a run in the run queue.

    Attributes:
        position: 1 for the run that the daemon looks at first.
        length: How many runs are in the queue.
        priority: The priority of the run; the daemon looks at higher ones first.
        blockages: What keeps the run there; empty if it leaves at the daemon's next look.
        estimate: When the run is likely to leave the queue.
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
        waited: Seconds since the run was submitted.
        place: Its place in the queue, and what keeps it there.
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
    deployment: Deployment,
    pool: str,
    settings: Settings,
    past: Durations,
    now: float,
    count_max: int | None,
    unfinished: Sequence[Run] | None = None,
) -> Queued:
    """The runs in the queue that will ask for the pool, with details of the first, or of all.

    Under granularity ``run`` there are none: there they wait at the pool. ``unfinished`` are those
    in the queue or in progress, if they were read already.
    """
    if settings.granularity == "run":
        return Queued(0, ())
    if unfinished is None:
        unfinished = deployment.unfinished_runs(IN_QUEUE_OR_PROGRESS)
    found = [run for run in in_line(unfinished) if pool in (run.pools or ())]
    if not found:
        return Queued(0, ())
    first = {run.run_id: run for run in found[:count_max]}
    places = places_in_queue(deployment, first, unfinished, settings, past, now)
    return Queued(
        len(found),
        tuple(
            QueuedRun(run_id, run.job_name, max(0.0, now - run.created), places[run_id])
            for run_id, run in first.items()
        ),
    )


def places_in_queue(
    deployment: Deployment,
    run_ids: Collection[str],
    unfinished: Sequence[Run],
    settings: Settings,
    past: Durations,
    now: float,
    states: Mapping[str, PoolState] = NO_STATES,
) -> dict[str, QueuePlace]:
    """The places of queued runs, by run id; without runs that have left the queue.

    Args:
        deployment: The deployment of the runs.
        run_ids: The runs.
        unfinished: The runs in the queue or in progress, from ``Deployment.unfinished_runs``.
        settings: The settings of the deployment.
        past: Past durations, for estimates.
        now: When all this was read.
        states: The pools that were read then, by name; other pools are read now.
    """
    line = in_line(unfinished)
    last = max((place for place, run in enumerate(line) if run.run_id in run_ids), default=-1)
    names = {pool for run in line[: last + 1] for pool in run.pools or ()}
    unread = names - states.keys()
    seen = [state for name, state in states.items() if name in names]
    seen += deployment.pools(unread) if unread else ()
    look = QueueLook(unfinished, seen, deployment.run_queue(), settings, now)
    described = _Descriptions(deployment, unfinished, look, settings, past, now)
    places: dict[str, QueuePlace] = {}
    staying: list[Run] = []
    for position, run in enumerate(line[: last + 1], start=1):
        kept = tuple(look.keeps(run))
        if run.run_id in run_ids:
            blockages = tuple(described.blockage(keeper, run, staying) for keeper in kept)
            estimate = described.together(blockages)
            places[run.run_id] = QueuePlace(position, len(line), run.priority, blockages, estimate)
        if kept:
            staying.append(run)
        else:
            look.launch(run)
    return places


class _Descriptions:
    """Turns keepers into blockages, with estimates."""

    def __init__(
        self,
        deployment: Deployment,
        unfinished: Sequence[Run],
        look: QueueLook,
        settings: Settings,
        past: Durations,
        now: float,
    ) -> None:
        self._deployment, self._unfinished = deployment, unfinished
        self._look, self._past, self._now = look, past, now
        self._outlined: dict[tuple[Obstacle, str, int], tuple[RunOutline, ...]] = {}
        self._by_run = settings.granularity == "run"
        self._pools: dict[str, Pool] = {}

    def blockage(self, keeper: Keeper, run: Run, staying: Sequence[Run]) -> Blockage:
        """One thing that keeps a run, behind these that stay in the queue too."""
        if keeper.obstacle is Obstacle.POOL:
            return self._pool_blockage(keeper, run, staying)
        # Too many to play forward: see ``forecast``.
        counted = keeper.runs[: OCCUPANTS_MAX + 1]
        occupants = [ForecastHolder(1, self._elapsed(r), self._sample(r)) for r in counted]
        rivals = staying
        if keeper.obstacle is Obstacle.TAG:
            key, _, value = keeper.name.partition("=")
            rivals = [r for r in staying if key in r.tags and value in ("", r.tags[key])]
        candidates = [Candidate(1, self._sample(r)) for r in (*rivals[:LINE_MAX], run)]
        return Blockage(
            obstacle=keeper.obstacle,
            name=keeper.name,
            limit=keeper.limit,
            taken=len(keeper.runs),
            promised=0,
            behind=self._outlines(keeper),
            estimate=forecast(keeper.limit, occupants, candidates)[-1],
        )

    def together(self, blockages: Iterable[Blockage]) -> Estimate | None:
        """When a run leaves the queue that all these blockages keep there."""
        found = [b.estimate for b in blockages if b.obstacle is not Obstacle.POOL]
        of_pools = [b.estimate for b in blockages if b.obstacle is Obstacle.POOL]
        if of_pools and not self._by_run:  # One pool with a free slot is enough.
            of_pools = [earliest_of(of_pools)]
        return latest_of([*found, *of_pools])

    def _pool_blockage(self, keeper: Keeper, run: Run, staying: Sequence[Run]) -> Blockage:
        name = keeper.name
        pool = self._pools.get(name)
        if pool is None:
            state = self._look.states[name]
            runs = runs_in(self._deployment, [state], self._unfinished)
            pool = look_into(state, NOBODY, runs, self._past, self._now)
            self._pools[name] = pool
        promised = self._look.promised(name)
        # Under granularity op a run in the queue does not wait at the pool yet.
        estimates = [waiter.estimate for waiter in pool.queue if waiter.run_id == run.run_id]
        if not estimates:
            ahead = sum(name in (other.pools or ()) for other in staying)
            estimates = [self._at_the_end(pool, promised - len(pool.queue) + ahead)]
        return Blockage(
            obstacle=keeper.obstacle,
            name=name,
            limit=keeper.limit,
            taken=pool.summary.held,
            promised=promised,
            behind=tuple(
                RunOutline(h.run_id, h.job_name or "", h.run_status or "", h.elapsed or 0.0)
                for h in pool.holders
            ),
            estimate=estimates[0],
        )

    def _at_the_end(self, pool: Pool, ahead: int) -> Estimate:
        """When a run starts, after all waiters of a pool and after this many other runs."""
        name = pool.summary.pool
        occupants = [
            ForecastHolder(
                h.slots, h.elapsed or 0.0, self._past.holds_of(name, h.step_key), h.is_leaked
            )
            for h in pool.holders
        ]
        line = [Candidate(w.slots, self._past.holds_of(name, w.step_key)) for w in pool.queue]
        # Of a run in the queue it is not told which step will ask.
        line += [Candidate(1, self._past.holds_of(name, ""))] * max(0, ahead)
        return forecast(pool.summary.limit or 0, occupants, [*line, Candidate(1, None)])[-1]

    def _sample(self, run: Run) -> Sample | None:
        sample = self._past.run_seconds.get(run.job_name)
        return sample if sample is not None and len(sample) >= SAMPLES_MIN else None

    def _elapsed(self, run: Run) -> float:
        if run.status == "QUEUED":  # It is about to be launched.
            return 0.0
        return max(0.0, self._now - (run.started or run.created))

    def _outlines(self, keeper: Keeper) -> tuple[RunOutline, ...]:
        key = keeper.obstacle, keeper.name, len(keeper.runs)
        if key not in self._outlined:
            found = [
                RunOutline(r.run_id, r.job_name, r.status, self._elapsed(r)) for r in keeper.runs
            ]
            self._outlined[key] = tuple(sorted(found, key=lambda outline: -outline.elapsed))
        return self._outlined[key]
