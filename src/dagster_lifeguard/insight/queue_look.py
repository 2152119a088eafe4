"""The daemon's next look at Dagster's run queue: which runs stay in it, and what keeps each.

The daemon goes down the line, launches each run that nothing keeps there, and counts it for those
behind. Under granularity ``op`` it keeps a run whose first steps all find a full pool; as taken it
counts the slots that are held, the steps that wait, and the slots for the first steps of runs that
it launched and that began less than ``ALLOTTED_SECONDS`` ago. Under granularity ``run`` it keeps a
run while one of its pools has as many runs in progress as slots.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from enum import Enum
from math import inf
from typing import TYPE_CHECKING, NamedTuple

from dagster_lifeguard.engine.rules.launch_order import IN_PROGRESS, by_priority, counted_for

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from dagster_lifeguard.compat.health import RunQueue
    from dagster_lifeguard.deployment.contract import PoolState, Run, Settings

ALLOTTED_SECONDS = 5.0
"""For so long after a run began, its first steps count as if they asked for their pools now.

Dagster's default; the daemon reads another from ``DAGSTER_OP_CONCURRENCY_KEYS_ALLOTTED_FOR_STARTED_
RUN_SECONDS``, which nobody else sees.
"""

IN_QUEUE_OR_PROGRESS = ("QUEUED", *IN_PROGRESS)
"""What the daemon looks at."""

BEFORE_LAUNCH = ("QUEUED", "NOT_STARTED", "MANAGED")


class Obstacle(str, Enum):
    """What keeps a run in the queue."""

    RUNS_MAX = "max-concurrent-runs"
    """As many runs go on as may at once."""
    TAG = "tag-limit"
    """As many runs with one of its tags go on as may at once."""
    POOL = "pool"
    """A pool that it needs is full; under granularity ``op``, each that it may begin with."""


def in_line(unfinished: Iterable[Run]) -> list[Run]:
    """The runs in the queue, in the order in which the daemon looks at them.

    Args:
        unfinished: Runs that are not over, as ``Deployment.unfinished_runs`` tells them.
    """
    return by_priority(run for run in unfinished if run.status == "QUEUED")


class Keeper(NamedTuple):
    """What keeps a run in the queue, and the runs that count there; see ``Blockage``."""

    obstacle: Obstacle
    name: str
    limit: int
    runs: Sequence[Run] = ()


class QueueLook:
    """The daemon's next look at the queue.

    Attributes:
        states: The pools of the runs in line, by name.
        going_on: The runs that go on, and those that this look launches.
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

    def keeps(self, run: Run) -> Iterator[Keeper]:
        """What keeps a run in the queue, once those ahead of it were looked at."""
        if self._queue is not None:
            runs_max = self._queue.runs_max
            if 0 <= runs_max <= len(self.going_on):
                yield Keeper(Obstacle.RUNS_MAX, "", runs_max, self.going_on)
            yield from self._by_tags(run, self._queue)
            if not self._queue.heeds_pools:
                return
        asks = self._asks(run)
        full = [name for name in sorted(asks) if self._left(name) <= 0]
        if full and (self._by_run or len(full) == len(asks)):
            for name in full:
                yield Keeper(Obstacle.POOL, name, self.states[name].limit or 0)

    def launch(self, run: Run) -> None:
        """Nothing keeps the run: it counts for those behind it."""
        self.going_on.append(run)
        self._count_tags(run)
        self._for_runs.update(self._asks(run))

    def promised(self, name: str) -> int:
        """The slots of a pool that count as taken besides those that are held."""
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

    def _by_tags(self, run: Run, queue: RunQueue) -> Iterator[Keeper]:
        for key, value, limit in counted_for(run.tags, queue.tag_limits):
            counted = self._tagged[key, value]
            if len(counted) >= limit:
                name = key if value is None else f"{key}={value}"
                yield Keeper(Obstacle.TAG, name, limit, counted)
