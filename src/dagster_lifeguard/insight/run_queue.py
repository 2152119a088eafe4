"""Why a run is in Dagster's run queue, where, and when it leaves it."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

from dagster_lifeguard.insight.pools import runs_in
from dagster_lifeguard.insight.queue_look import Keeper, Obstacle, QueueLook, in_line

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from dagster_lifeguard.deployment.contract import Deployment, PoolState, Run, Settings
    from dagster_lifeguard.insight.estimate import Estimate
    from dagster_lifeguard.insight.outlook import Outlook

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
    """

    obstacle: Obstacle
    name: str
    limit: int
    taken: int
    promised: int
    behind: tuple[RunOutline, ...]


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
    now: float,
    count_max: int | None,
    unfinished: Sequence[Run],
    outlook: Outlook,
) -> Queued:
    """The runs in the queue that will ask for the pool, with details of the first, or of all.

    Under granularity ``run`` there are none: there they wait at the pool. ``unfinished`` are those
    in the queue or in progress.
    """
    if settings.granularity == "run":
        return Queued(0, ())
    found = [run for run in in_line(unfinished) if pool in (run.pools or ())]
    if not found:
        return Queued(0, ())
    first = {run.run_id: run for run in found[:count_max]}
    places = places_in_queue(deployment, first, unfinished, settings, now, outlook)
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
    now: float,
    outlook: Outlook,
    states: Mapping[str, PoolState] = NO_STATES,
) -> dict[str, QueuePlace]:
    """The places of queued runs, by run id; without runs that have left the queue.

    Args:
        deployment: The deployment of the runs.
        run_ids: The runs.
        unfinished: The runs in the queue or in progress, from ``Deployment.unfinished_runs``.
        settings: The settings of the deployment.
        now: When all this was read.
        outlook: For estimates.
        states: The pools that were read then, by name; other pools are read now.
    """
    line = in_line(unfinished)
    last = max((place for place, run in enumerate(line) if run.run_id in run_ids), default=-1)
    names = {pool for run in line[: last + 1] for pool in run.pools or ()}
    unread = names - states.keys()
    seen = [state for name, state in states.items() if name in names]
    seen += deployment.pools(unread) if unread else ()
    look = QueueLook(unfinished, seen, deployment.run_queue(), settings, now)
    described = _Descriptions(deployment, unfinished, look, now)
    estimates = outlook.of_runs(run_ids)
    places: dict[str, QueuePlace] = {}
    for position, run in enumerate(line[: last + 1], start=1):
        kept = tuple(look.keeps(run))
        if run.run_id in run_ids:
            blockages = tuple(map(described.blockage, kept))
            estimate = estimates.get(run.run_id) if kept else None
            places[run.run_id] = QueuePlace(position, len(line), run.priority, blockages, estimate)
        if not kept:
            look.launch(run)
    return places


class _Descriptions:
    """Turns keepers into blockages."""

    def __init__(
        self, deployment: Deployment, unfinished: Sequence[Run], look: QueueLook, now: float
    ) -> None:
        self._deployment, self._unfinished = deployment, unfinished
        self._look, self._now = look, now
        self._outlined: dict[tuple[Obstacle, str, int], tuple[RunOutline, ...]] = {}

    def blockage(self, keeper: Keeper) -> Blockage:
        """One thing that keeps a run in the queue."""
        is_pool = keeper.obstacle is Obstacle.POOL
        return Blockage(
            obstacle=keeper.obstacle,
            name=keeper.name,
            limit=keeper.limit,
            taken=self._look.states[keeper.name].held if is_pool else len(keeper.runs),
            promised=self._look.promised(keeper.name) if is_pool else 0,
            behind=self._outlines(keeper),
        )

    def _outlines(self, keeper: Keeper) -> tuple[RunOutline, ...]:
        key = keeper.obstacle, keeper.name, len(keeper.runs)
        if key not in self._outlined:
            if keeper.obstacle is Obstacle.POOL:
                self._outlined[key] = self._holders(self._look.states[keeper.name])
            else:
                found = [
                    RunOutline(r.run_id, r.job_name, r.status, self._elapsed(r))
                    for r in keeper.runs
                ]
                self._outlined[key] = tuple(sorted(found, key=lambda outline: -outline.elapsed))
        return self._outlined[key]

    def _holders(self, state: PoolState) -> tuple[RunOutline, ...]:
        runs = runs_in(self._deployment, [state], self._unfinished)
        found = []
        for step in state.holding:
            run = runs.get(step.run_id)
            job_name, status = ("", "") if run is None else (run.job_name, run.status)
            elapsed = 0.0 if step.since is None else max(0.0, self._now - step.since)
            found.append(RunOutline(step.run_id, job_name, status, elapsed))
        return tuple(found)

    def _elapsed(self, run: Run) -> float:
        if run.status == "QUEUED":  # It is about to be launched.
            return 0.0
        return max(0.0, self._now - (run.started or run.created))
