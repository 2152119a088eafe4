"""Executions and their queueing as bars over one axis of time: pure but for what is read.

Times are seconds since the epoch.
"""

from __future__ import annotations

import heapq
from contextlib import suppress
from dataclasses import dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING, cast

from dagster import AssetKey

from dagster_lifeguard.deployment.history import Outcome
from dagster_lifeguard.engine.rules.pool_expressions import Term, asked_by, of_assets
from dagster_lifeguard.errors import ConfigError
from dagster_lifeguard.policy.partitions import all_partitions, of_partitions

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from dagster_lifeguard.deployment.contract import Deployment
    from dagster_lifeguard.deployment.history import RunExecution, StepExecution


class Phase(str, Enum):
    """What a run or a step does for a while."""

    QUEUED = "queued"
    """The run is in the run queue."""
    STARTING = "starting"
    """The run's process begins."""
    WAITING = "waiting"
    """The step waits for its pool."""
    EXECUTING = "executing"


@dataclass(frozen=True, slots=True)
class Span:
    """One phase; ``ended`` is the end of the timeline for one that goes on."""

    phase: Phase
    started: float
    ended: float


@dataclass(frozen=True, slots=True)
class Bar:
    """A run, or one attempt of one step.

    Attributes:
        run_id: The run.
        step_key: The step; None for a whole run.
        attempt: Of the step, 1 for the first.
        result: How it ended, or what it does: Dagster's status of a run, or the outcome of a step.
        spans: Its phases in order of time.
        failures: When steps of it failed.
        assets: The assets that it makes, each as ``a/b``, as far as they are known.
        partitions: Their partitions; empty if they have none.
    """

    run_id: str
    step_key: str | None
    attempt: int
    result: str
    spans: tuple[Span, ...]
    failures: tuple[float, ...] = ()
    assets: tuple[str, ...] = ()
    partitions: tuple[str, ...] = ()

    def seconds_in(self, phase: Phase) -> float:
        """How long it was in a phase."""
        return sum(span.ended - span.started for span in self.spans if span.phase is phase)


@dataclass(frozen=True, slots=True)
class Timeline:
    """Bars in the order in which they began.

    Attributes:
        since: The left edge: the beginning of the window, or of the first bar if that is later.
        until: The right edge.
        bars: The newest bars, in the order in which they began.
        left_out: How many older bars of the window are not in ``bars``.
    """

    since: float
    until: float
    bars: tuple[Bar, ...]
    left_out: int = 0


def bar_of_run(run: RunExecution, until: float) -> Bar:
    """A run from its enqueuing to its end."""
    begins = (
        (Phase.QUEUED, run.enqueued),
        (Phase.STARTING, run.dequeued),
        (Phase.EXECUTING, run.started),
    )
    known = [(phase, at) for phase, at in begins if at is not None]
    ends = [*(at for _, at in known[1:]), until if run.ended is None else run.ended]
    spans = (Span(phase, at, end) for (phase, at), end in zip(known, ends, strict=False))
    failed = (
        step.ended
        for step in run.steps
        if step.outcome is Outcome.FAILURE and step.ended is not None
    )
    return Bar(run.run_id, None, 1, run.status.lower(), _some_time(spans), tuple(failed))


def bar_of_step(run: RunExecution, step: StepExecution, until: float) -> Bar:
    """An attempt of a step, with the time that its run was queued before the first."""
    spans = []
    if step.attempt == 1 and run.enqueued is not None:
        left = run.dequeued or run.started or step.started
        spans.append(Span(Phase.QUEUED, run.enqueued, left))
    if step.waiting is not None:
        spans.append(Span(Phase.WAITING, step.waiting, step.started))
    ended = step.ended or run.ended or until
    spans.append(Span(Phase.EXECUTING, step.started, ended))
    result = step.outcome.value
    if step.outcome is Outcome.UNFINISHED and step.ended is None and run.ended is None:
        result = "executing"
    failed = step.outcome in (Outcome.FAILURE, Outcome.RETRY) and step.ended is not None
    failures = (cast("float", step.ended),) if failed else ()
    return Bar(
        step.run_id,
        step.step_key,
        step.attempt,
        result,
        _some_time(spans),
        failures,
        tuple(key.to_user_string() for key in step.asset_keys),
        step.partitions,
    )


def _some_time(spans: Iterable[Span]) -> tuple[Span, ...]:
    known = tuple(spans)
    return tuple(span for span in known if span.ended > span.started) or known


def asks_for(step: StepExecution, pool: str) -> bool:
    """Whether a step asked for this pool, alone or among others."""
    if step.pool is None or step.pool == pool:
        return step.pool is not None
    terms = of_assets(_terms(step.pool), [key.path for key in step.asset_keys])
    return any(pool in _names(term, step) for term in terms)


def _terms(text: str) -> tuple[Term, ...]:
    try:
        return asked_by(text)
    except ConfigError:  # Dagster's own storage took it for a name.
        return (Term(text),)


def _names(term: Term, step: StepExecution) -> Iterator[str]:
    """The pools that a term stood for: one for each partition that it names."""
    if not term.is_by_partition:
        yield term.name
        return
    yield all_partitions(term).name
    with suppress(ValueError):  # It asked for all of them, as it did for many.
        yield from (filled.name for filled in of_partitions(term, step.partitions))


def timeline_of_runs(
    deployment: Deployment, *, since: float, until: float, count_max: int
) -> Timeline:
    """The newest runs that were not over before ``since``."""
    bars = (bar_of_run(run, until) for run in deployment.history(since, until))
    return _newest(bars, since, until, count_max)


def timeline_of_pool(
    deployment: Deployment, pool: str, *, since: float, until: float, count_max: int
) -> Timeline:
    """The newest steps that asked for a pool, including the present waiters."""

    def bars() -> Iterator[Bar]:
        for run in deployment.history(since, until):
            for step in run.steps:
                if asks_for(step, pool):
                    yield bar_of_step(run, step, until)
        yield from _waiting(deployment, [pool], None, until)

    return _newest(bars(), since, until, count_max)


def timeline_of_asset(
    deployment: Deployment, asset: str, *, since: float, until: float, count_max: int
) -> Timeline:
    """The newest steps that made an asset, ``a/b``, including steps that wait now to make it."""

    def bars() -> Iterator[Bar]:
        for run in deployment.history(since, until):
            for step in run.steps:
                if any(key.to_user_string() == asset for key in step.asset_keys):
                    yield bar_of_step(run, step, until)
        texts = deployment.assets().get(asset, ())
        key = AssetKey.from_user_string(asset).path
        terms = of_assets((term for text in texts for term in _terms(text)), [key])
        pools = {term.name for term in terms if not term.fields}
        yield from _waiting(deployment, pools, asset, until)

    return _newest(bars(), since, until, count_max)


def _waiting(
    deployment: Deployment, pools: Iterable[str], asset: str | None, until: float
) -> Iterator[Bar]:
    seen = set()
    for state in deployment.pools(list(pools)):
        for step in state.waiting:
            if (step.run_id, step.step_key) in seen or step.since is None:
                continue
            seen.add((step.run_id, step.step_key))
            if asset is None or _makes(deployment, step.run_id, step.step_key, asset):
                span = Span(Phase.WAITING, step.since, until)
                yield Bar(step.run_id, step.step_key or None, 1, "waiting", (span,))


def _makes(deployment: Deployment, run_id: str, step_key: str, asset: str) -> bool:
    planned = deployment.planned_steps(run_id)
    return any(asset in step.assets for step in planned if step.step_key == step_key)


def _newest(bars: Iterable[Bar], since: float, until: float, count_max: int) -> Timeline:
    """The bars of the window that began last; the bars may be given in any order."""
    kept: list[tuple[float, int, Bar]] = []
    count = 0
    for bar in bars:
        spans = tuple(span for span in bar.spans if span.ended >= since and span.started <= until)
        if spans:
            count += 1
            heapq.heappush(kept, (bar.spans[0].started, count, replace(bar, spans=spans)))
            if len(kept) > count_max:
                heapq.heappop(kept)
    ordered = sorted(kept, key=lambda item: (item[2].spans[0].started, item[1]))
    edge = max(since, ordered[0][2].spans[0].started) if ordered else since
    return Timeline(edge, until, tuple(bar for *_, bar in ordered), count - len(kept))
