"""What past runs and holds were like: simulations draw the runs and holds to come from these."""

from __future__ import annotations

from collections import defaultdict, deque
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from dagster_lifeguard.engine.rules.model import Demand

SAMPLES_MIN = 3
"""With fewer past executions than this nothing is drawn from them."""

RUNS_KEPT_MAX = 100
"""Of each kind of run only so many are kept, the newest: a machine is not always as fast."""

HOLDS_KEPT_MAX = 200
"""The same for the holds of each pool and step."""


class ShapeStep(NamedTuple):
    """One step of a past run that asked for pools.

    Attributes:
        at: When it asked: in seconds after the end of ``after``, else after the launch of the run.
        seconds: How long it held.
        after: The place, among the steps of the run, of the step that ended before it asked.
    """

    step_key: str
    demand: Demand
    at: float
    seconds: float
    after: int | None


class Shape(NamedTuple):
    """A past run, without its waits.

    Attributes:
        pools: The pools for which its steps asked.
        starts: In how many seconds after its launch its process started.
        rest: For how many seconds it went on after its last step with a pool; without such a step,
            after its launch.
        steps: The steps that asked for pools, in the order in which they asked.
    """

    job_name: str
    pools: frozenset[str]
    starts: float
    rest: float
    steps: tuple[ShapeStep, ...]


class RunSoFar(NamedTuple):
    """How far a run in progress has come. Times are seconds since the epoch.

    Attributes:
        launched: When it left the run queue.
        done: When each of its steps ended that held pools and ended already.
    """

    launched: float
    done: dict[str, float]


class Shapes:
    """Past runs and holds, the oldest added first.

    Attributes:
        launching_share: For which share of a run's start-up the daemon launches nothing else.
            Dagster's own launcher waits until the process of a run has started; one that only asks
            a cluster for it does not.
    """

    def __init__(self) -> None:
        self.launching_share = 0.0
        self._of_kind: dict[tuple[str, frozenset[str]], deque[Shape]] = defaultdict(_runs)
        self._of_job: dict[str, deque[Shape]] = defaultdict(_runs)
        self._of_all: deque[Shape] = _runs()
        self._holds: dict[tuple[str, str | None], deque[float]] = defaultdict(_holds)

    def add_run(self, shape: Shape) -> None:
        """Remember a run that ended."""
        self._of_kind[shape.job_name, shape.pools].append(shape)
        self._of_job[shape.job_name].append(shape)
        self._of_all.append(shape)

    def add_hold(self, pools: Iterable[str], step_key: str, seconds: float) -> None:
        """Remember how long a step held pools."""
        for pool in pools:
            self._holds[pool, step_key].append(seconds)
            self._holds[pool, None].append(seconds)

    def runs_like(self, job_name: str, pools: frozenset[str] | None) -> Sequence[Shape]:
        """Past runs of the job with these pools; None: with any. None if too few are known."""
        if pools is None:
            found = self._of_job.get(job_name, ())
        else:
            found = self._of_kind.get((job_name, pools), ())
        return tuple(found) if len(found) >= SAMPLES_MIN else ()

    def runs_near(self, job_name: str) -> Sequence[Shape]:
        """The newest past runs of the job, else those of all jobs, however few they are."""
        return tuple(self._of_job.get(job_name) or self._of_all)

    def holds_of(self, pool: str, step_key: str) -> tuple[str | None, Sequence[float]]:
        """How long this step, or else any step, held the pool, in seconds.

        Returns:
            The step, or None for any, and the holds, the oldest first; none if too few are known.
        """
        for name in (step_key, None):
            found = self._holds.get((pool, name), ())
            if len(found) >= SAMPLES_MIN:
                return name, tuple(found)
        return None, ()


def _runs() -> deque[Shape]:
    return deque(maxlen=RUNS_KEPT_MAX)


def _holds() -> deque[float]:
    return deque(maxlen=HOLDS_KEPT_MAX)
