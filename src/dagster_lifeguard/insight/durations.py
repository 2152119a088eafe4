"""How long steps held and waited before: what an estimate and a percentile are drawn from."""

from __future__ import annotations

from collections import defaultdict, deque
from dataclasses import dataclass, field
from math import ceil, inf
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from dagster_lifeguard.engine.rules.pool_expressions import Term, asked_by, of_assets
from dagster_lifeguard.errors import ConfigError
from dagster_lifeguard.insight.graphs import as_holders
from dagster_lifeguard.insight.shapes import SAMPLES_MIN, Shapes
from dagster_lifeguard.policy.partitions import of_partitions

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from dagster_lifeguard.deployment.contract import Deployment, Settings
    from dagster_lifeguard.deployment.history import RunExecution, StepExecution
    from dagster_lifeguard.insight.shapes import RunSoFar

_Key = TypeVar("_Key")

SAMPLES_MAX = 1000
"""Of each pool and step only so many of the newest executions are kept."""

RUNS_MAX = 500
"""Of the runs that ended only so many of the latest are read, and as many of those under way: what
a look at the past costs does not grow with the window, or with how much runs."""


@dataclass(frozen=True, slots=True)
class Sample:
    """Durations that were seen, sorted."""

    seconds: tuple[float, ...]

    @classmethod
    def of(cls, seconds: Iterable[float]) -> Sample:
        """The sample of these durations."""
        return cls(tuple(sorted(max(0.0, s) for s in seconds)))

    def __len__(self) -> int:
        return len(self.seconds)

    def quantile(self, share: float) -> float:
        """The shortest that at least this share of all do not exceed; see ``quantile``."""
        return quantile(self.seconds, share)

    def spread(self) -> Spread | None:
        """How the durations are spread; None if there are none."""
        if not self.seconds:
            return None
        return Spread(count=len(self.seconds), p50=self.quantile(0.5), p95=self.quantile(0.95))


@dataclass(frozen=True, slots=True)
class Spread:
    """The distribution of durations, in seconds.

    Attributes:
        count: How many durations there are.
        p50: At least half of the durations were no longer.
        p95: At least 95 % of the durations were no longer.
    """

    count: int
    p50: float
    p95: float


@dataclass(frozen=True, slots=True)
class Durations:
    """What happened in a window of time.

    Attributes:
        since: Its beginning; later than what was asked for, if the runs since then were too many.
        until: Its end.
        waits: For each pool, how long steps waited before they went in, in the run queue and at
            the pool; 0 for one that did not have to. See ``Use``. Under granularity ``run``: how
            long runs were in the queue.
        queue_waits: For each pool, how long of that their runs were in the run queue.
        pool_waits: For each pool, how long of that they waited at the pool, in their run's time.
        holds: For each pool, how long it was held.
        own_holds: The same for each pool and step, or, under granularity ``run``, pool and job.
        shapes: What runs and holds were like, for estimates.
        so_far: How far the runs in progress had come at the end of the window, by run id.
    """

    since: float
    until: float
    waits: Mapping[str, Sample] = field(default_factory=dict)
    queue_waits: Mapping[str, Sample] = field(default_factory=dict)
    pool_waits: Mapping[str, Sample] = field(default_factory=dict)
    holds: Mapping[str, Sample] = field(default_factory=dict)
    own_holds: Mapping[tuple[str, str], Sample] = field(default_factory=dict)
    shapes: Shapes = field(default_factory=Shapes)
    so_far: Mapping[str, RunSoFar] = field(default_factory=dict)

    def holds_of(self, pool: str, name: str) -> Sample | None:
        """How long this step (or job), or else any step, holds the pool; None: not known."""
        for sample in (self.own_holds.get((pool, name)), self.holds.get(pool)):
            if sample is not None and len(sample) >= SAMPLES_MIN:
                return sample
        return None


def quantile(ordered: Sequence[float], share: float) -> float:
    """The smallest value that at least this share of all do not exceed: the nearest rank.

    Args:
        ordered: Values in order, at least one.
        share: More than 0, and at most 1.
    """
    rank = ceil(round(share * len(ordered), 9))  # 0.07 * 100 is a little more than 7.
    return ordered[max(rank, 1) - 1]


def read_history(deployment: Deployment, since: float, until: float) -> tuple[RunExecution, ...]:
    """The runs of a window, or of the end of it where these are many."""
    return tuple(deployment.history(since, until, latest=RUNS_MAX))


def read_durations(
    deployment: Deployment, settings: Settings, since: float, until: float
) -> Durations:
    """Look at the executions of a window, or of the end of it where these are many."""
    return durations_of(read_history(deployment, since, until), settings, since, until)


def durations_of(
    history: Iterable[RunExecution], settings: Settings, since: float, until: float
) -> Durations:
    """What these runs tell of a window."""
    waits: dict[str, deque[float]] = defaultdict(_newest)
    queue_waits: dict[str, deque[float]] = defaultdict(_newest)
    pool_waits: dict[str, deque[float]] = defaultdict(_newest)
    holds: dict[str, deque[float]] = defaultdict(_newest)
    own_holds: dict[tuple[str, str], deque[float]] = defaultdict(_newest)
    ends = []
    for run in history:
        if run.ended is not None:
            ends.append(run.ended)
        for use in uses(run, settings):
            waits[use.pool].append(use.waited)
            queue_waits[use.pool].append(use.queued)
            pool_waits[use.pool].append(use.waited - use.queued)
            if use.held is not None:
                holds[use.pool].append(use.held)
                own_holds[use.pool, use.name].append(use.held)
    return Durations(
        since=min(ends) if len(ends) == RUNS_MAX else since,
        until=until,
        waits=_samples(waits),
        queue_waits=_samples(queue_waits),
        pool_waits=_samples(pool_waits),
        holds=_samples(holds),
        own_holds=_samples(own_holds),
    )


def terms_of(pool: str, settings: Settings) -> tuple[Term, ...]:
    """The pools, and slots of each, for which a step with this in ``op.pool`` asks."""
    if settings.engine is False:
        return (Term(pool),)
    try:
        return asked_by(pool)
    except ConfigError:
        return (Term(pool),)


def terms_of_step(pool: str, assets: Iterable[str], settings: Settings) -> Iterator[Term]:
    """The same of a step that makes these assets, each ``a/b``."""
    from dagster import AssetKey  # noqa: PLC0415 - a shell that completes a name does without

    keys = [AssetKey.from_user_string(asset).path for asset in assets]
    return of_assets(terms_of(pool, settings), keys)


def terms_of_asset(asset: str, pools: Iterable[str], settings: Settings) -> Iterator[Term]:
    """The same of steps that make an asset, by what stands in ``op.pool`` of their ops."""
    return (term for pool in pools for term in terms_of_step(pool, [asset], settings))


def pools_of_run(run: RunExecution, settings: Settings) -> set[str]:
    """The pools for which the steps of a run ask; partitions are not filled in."""
    keys = [key.path for step in run.steps for key in step.asset_keys]
    terms = (term for text in run.pools or () for term in terms_of(text, settings))
    return {term.name for term in of_assets(terms, keys)}


class Use(NamedTuple):
    """One use of a pool.

    Attributes:
        pool: The pool.
        name: The step, or, under granularity ``run``, the job.
        waited: How long it waited to go in. For a step with which its run began, the time that the
            run was in the run queue counts too: the history does not tell what kept it there.
        queued: How long of that the run was in the run queue.
        held: How long it held the pool; None if that is not over.
        started: When it went in.
    """

    pool: str
    name: str
    waited: float
    queued: float
    held: float | None
    started: float


def uses(run: RunExecution, settings: Settings) -> Iterator[Use]:
    """Each use of a pool."""
    queued = 0.0
    if run.dequeued is not None and run.enqueued is not None:
        queued = max(0.0, run.dequeued - run.enqueued)
    if settings.granularity == "run":
        if run.dequeued is None:
            return
        held = None if run.ended is None else run.ended - run.dequeued
        for pool in sorted(pools_of_run(run, settings)):
            yield Use(pool, run.job_name, queued, queued, held, run.dequeued)
        return
    first_end = min((step.ended for step in run.steps if step.ended is not None), default=inf)
    for step in run.steps if settings.engine is False else as_holders(run.steps):
        if step.pool is None:
            continue
        asked = step.started if step.waiting is None else step.waiting
        # Its run began with it if no step of the run had ended when it asked.
        in_queue = queued if asked <= first_end else 0.0
        waited = in_queue + step.started - asked
        held = None if step.ended is None else step.ended - step.started
        for term in terms_used(step, settings):
            yield Use(term.name, step.step_key, waited, in_queue, held, step.started)


def terms_used(step: StepExecution, settings: Settings) -> Iterator[Term]:
    """What a step asked for, its assets and its partition filled in."""
    if step.pool is not None:
        keys = [key.path for key in step.asset_keys]
        for term in of_assets(terms_of(step.pool, settings), keys):
            yield _filled(term, step)


def _filled(term: Term, step: StepExecution) -> Term:
    """The term with its partition filled in, where the step makes just one."""
    if not term.is_by_partition or len(step.partitions) != 1:
        return term
    try:
        (filled,) = of_partitions(term, step.partitions)
    except ValueError:  # It asked for all partitions, as its key is not written as the term says.
        return term
    return filled


def _newest() -> deque[float]:
    return deque(maxlen=SAMPLES_MAX)


def _samples(found: Mapping[_Key, deque[float]]) -> dict[_Key, Sample]:
    return {key: Sample.of(seconds) for key, seconds in found.items()}
