"""The place of a run in Dagster's run queue, and what keeps it there.

The daemon goes down the queue and launches each run that no limit keeps there. A launched run
counts against the limits of the runs behind it. Under granularity ``op`` the daemon keeps a run if
the pools of its first steps are all full. It counts as taken: held slots, waiting steps, and the
slots for the first steps of runs that began less than ``ALLOTTED_SECONDS`` ago. Under granularity
``run`` it keeps a run while one of its pools has as many runs in progress as slots.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from enum import Enum
from math import inf
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from dagster_lifeguard.engine.rules.launch_order import IN_PROGRESS, by_priority, counted_for
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

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

    from dagster_lifeguard.compat.health import RunQueue
    from dagster_lifeguard.deployment.contract import Deployment, PoolState, Run, Settings
    from dagster_lifeguard.insight.durations import Durations, Sample
    from dagster_lifeguard.insight.pools import Pool

ALLOTTED_SECONDS = 5.0
"""How long after its start the first steps of a run count as if they asked for their pools now.

Dagster's default. The daemon reads another value from the environment variable
``DAGSTER_OP_CONCURRENCY_KEYS_ALLOTTED_FOR_STARTED_RUN_SECONDS``, which only its process sees.
"""

IN_QUEUE_OR_PROGRESS = ("QUEUED", *IN_PROGRESS)
"""The statuses of runs that the daemon reads."""

NO_STATES: Mapping[str, PoolState] = MappingProxyType({})

BEFORE_LAUNCH = ("QUEUED", "NOT_STARTED", "MANAGED")


class Obstacle(str, Enum):
    """What keeps a run in the queue."""

    RUNS_MAX = "max-concurrent-runs"
    """The largest number of runs at once is in progress."""
    TAG = "tag-limit"
    """The largest number of runs at once with one of its tags is in progress."""
    POOL = "pool"
    """A pool that it needs is full; under granularity ``op``: every pool of its first steps."""


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
) -> Queued:
    """The runs in the queue that will ask for the pool, with details of the first, or of all.

    Under granularity ``run`` there are none: there they wait at the pool.
    """
    if settings.granularity == "run":
        return Queued(0, ())
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


def count_queued(unfinished: Iterable[Run], settings: Settings) -> Counter[str]:
    """How many runs in the queue will ask for each pool.

    None under granularity ``run``: there they wait at the pool.
    """
    if settings.granularity == "run":
        return Counter()
    return Counter(pool for run in in_line(unfinished) for pool in run.pools or ())


def count_in_queue(unfinished: Iterable[Run], settings: Settings) -> int:
    """How many runs are in the queue; none under granularity ``run``, as before."""
    return 0 if settings.granularity == "run" else len(in_line(unfinished))


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
    look = _Look(unfinished, seen, deployment.run_queue(), settings, now)
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


def in_line(unfinished: Iterable[Run]) -> list[Run]:
    """The runs in the queue, in the order in which the daemon looks at them.

    Args:
        unfinished: Runs that are not over, from ``Deployment.unfinished_runs``.
    """
    return by_priority(run for run in unfinished if run.status == "QUEUED")


class _Keeper(NamedTuple):
    """What keeps a run in the queue, and the runs that count against it; see ``Blockage``."""

    obstacle: Obstacle
    name: str
    limit: int
    runs: Sequence[Run] = ()


class _Look:
    """The daemon's next look at the queue.

    Attributes:
        states: The pools of the queued runs, by name.
        going_on: The runs in progress, and the runs that this look launches.
    """

    def __init__(
        self,
        unfinished: Iterable[Run],
        states: Iterable[PoolState],
        queue: RunQueue | None,
        settings: Settings,
        now: float,
    ) -> None:
        self.states = {state.pool: state for state in states}
        self.going_on = [run for run in unfinished if run.status in IN_PROGRESS]
        self._queue = queue
        self._by_run = settings.granularity == "run"
        self._for_runs: Counter[str] = Counter()
        self._tagged: dict[tuple[str, str | None], list[Run]] = defaultdict(list)
        for run in self.going_on:
            self._count_tags(run)
        for run in self.going_on:
            begins = run.status == "STARTING" or (
                run.status == "STARTED" and now - (run.started or now) < ALLOTTED_SECONDS
            )
            if self._by_run or begins:
                self._for_runs.update(self._asks(run))

    def keeps(self, run: Run) -> Iterator[_Keeper]:
        """What keeps a run in the queue, after the runs ahead of it were looked at."""
        if self._queue is not None:
            runs_max = self._queue.runs_max
            if 0 <= runs_max <= len(self.going_on):
                yield _Keeper(Obstacle.RUNS_MAX, "", runs_max, self.going_on)
            yield from self._by_tags(run, self._queue)
            if not self._queue.heeds_pools:
                return
        asks = self._asks(run)
        full = [name for name in sorted(asks) if self._left(name) <= 0]
        if full and (self._by_run or len(full) == len(asks)):
            for name in full:
                yield _Keeper(Obstacle.POOL, name, self.states[name].limit or 0)

    def launch(self, run: Run) -> None:
        """No limit keeps the run: it counts against the limits of the runs behind it."""
        self.going_on.append(run)
        self._count_tags(run)
        self._for_runs.update(self._asks(run))

    def promised(self, name: str) -> int:
        """The slots of a pool that count as taken although they are not held."""
        if self._by_run:
            return max(0, self._for_runs[name] - self.states[name].held)
        return len(self.states[name].waiting) + self._for_runs[name]

    def _left(self, name: str) -> float:
        state = self.states[name]
        if state.limit is None:
            return inf
        taken = self._for_runs[name] if self._by_run else state.held + self.promised(name)
        return state.limit + (self._queue.buffer if self._queue else 0) - taken

    def _asks(self, run: Run) -> Mapping[str, int]:
        return dict.fromkeys(run.pools or (), 1) if self._by_run else run.first_pools or {}

    def _count_tags(self, run: Run) -> None:
        if self._queue is not None:
            for key in {key for key, *_ in self._queue.tag_limits} & run.tags.keys():
                self._tagged[key, None].append(run)
                self._tagged[key, run.tags[key]].append(run)

    def _by_tags(self, run: Run, queue: RunQueue) -> Iterator[_Keeper]:
        for key, value, limit in counted_for(run.tags, queue.tag_limits):
            counted = self._tagged[key, value]
            if len(counted) >= limit:
                name = key if value is None else f"{key}={value}"
                yield _Keeper(Obstacle.TAG, name, limit, counted)


class _Descriptions:
    """Turns keepers into blockages, with estimates."""

    def __init__(
        self,
        deployment: Deployment,
        unfinished: Sequence[Run],
        look: _Look,
        settings: Settings,
        past: Durations,
        now: float,
    ) -> None:
        self._deployment, self._unfinished = deployment, unfinished
        self._look, self._past, self._now = look, past, now
        self._outlined: dict[tuple[Obstacle, str, int], tuple[RunOutline, ...]] = {}
        self._by_run = settings.granularity == "run"
        self._pools: dict[str, Pool] = {}

    def blockage(self, keeper: _Keeper, run: Run, staying: Sequence[Run]) -> Blockage:
        """One thing that keeps a run, behind these other runs that stay in the queue."""
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

    def _pool_blockage(self, keeper: _Keeper, run: Run, staying: Sequence[Run]) -> Blockage:
        name = keeper.name
        pool = self._pools.get(name)
        if pool is None:
            state = self._look.states[name]
            runs = runs_in(self._deployment, [state], self._unfinished)
            pool = look_into(state, runs, self._past, self._now)
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

    def _outlines(self, keeper: _Keeper) -> tuple[RunOutline, ...]:
        key = keeper.obstacle, keeper.name, len(keeper.runs)
        if key not in self._outlined:
            found = [
                RunOutline(r.run_id, r.job_name, r.status, self._elapsed(r)) for r in keeper.runs
            ]
            self._outlined[key] = tuple(sorted(found, key=lambda outline: -outline.elapsed))
        return self._outlined[key]
