"""The load of pools in a window of time, in parts of one length: what charts draw."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dagster_lifeguard.insight.durations import pools_of_run, quantile, terms_used, uses
from dagster_lifeguard.insight.pool_users import PoolUsers

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from dagster_lifeguard.deployment.contract import Deployment, PoolState, Settings
    from dagster_lifeguard.deployment.history import RunExecution
    from dagster_lifeguard.insight.waits import HeldBack

THROTTLED_SECONDS = 10.0
"""A start that waited at least this long counts as throttled.

Dagster's daemon looks at its queue every 5 seconds, so shorter waits occur without any limit.
"""


@dataclass(frozen=True, slots=True)
class Load:
    """The load of some pools. Each sequence has one value for each part of the window.

    Attributes:
        since: The beginning of the window.
        until: Its end.
        held: For each pool that was in use: slots held, the mean of each part.
        saturation: The share of the slots that were held, of the pools that were in use in that
            part; None if none of them has a limit. Past shares are of the present limits.
        backlog: How many steps waited at pools and runs waited in the run queue, on average.
        wait_p95: Of the steps that started in the part, 95 % waited no longer; None if none did.
        starts: How many steps started.
        throttled: How many of them had waited for at least ``THROTTLED_SECONDS``.
    """

    since: float
    until: float
    held: Mapping[str, tuple[float, ...]]
    saturation: tuple[float | None, ...]
    backlog: tuple[float, ...]
    wait_p95: tuple[float | None, ...]
    starts: tuple[int, ...]
    throttled: tuple[int, ...]


def read_load(
    deployment: Deployment,
    settings: Settings,
    states: Iterable[PoolState],
    held_back: HeldBack,
    *,
    since: float,
    until: float,
    now: float,
    count: int,
    only: str | None = None,
) -> Load:
    """Read the load of a window.

    Args:
        deployment: Where the history is.
        settings: Of the deployment.
        states: Its pools now, for their limits and for who waits now.
        held_back: The runs that the run queue holds back now.
        since: The beginning of the window, in seconds since the epoch.
        until: Its end, which may lie a part beyond ``now``.
        now: When the pools were looked at.
        count: Into how many parts the window is divided.
        only: Only this pool; None for all.
    """
    end = min(until, now)
    parts = _Parts(since, until, count, end)
    held: dict[str, list[float]] = defaultdict(parts.zeros)
    backlog = parts.zeros()
    waited: list[list[float]] = [[] for _ in range(count)]
    runs = deployment.history(since, end)
    for run in runs if only is None else PoolUsers(only, settings).among(runs):
        for pool, slots, began, ended in _holdings(run, settings, end):
            if only in (None, pool) and ended > since and began < until:
                parts.add(held[pool], began, ended, slots)
        for began, ended in _waits(run, settings, only):
            parts.add(backlog, began, ended, 1)
        for use in uses(run, settings):
            if only in (None, use.pool) and since <= use.started < until:
                waited[parts.index(use.started)].append(use.waited)
    limits = {state.pool: state.limit for state in states}
    for began in _waiting_now(states, held_back, only):
        parts.add(backlog, began, end, 1)
    means = {pool: tuple(sums) for pool, sums in held.items()}
    return Load(
        since=since,
        until=until,
        held=means,
        saturation=_saturation(means, limits, count),
        backlog=tuple(backlog),
        wait_p95=tuple(quantile(sorted(found), 0.95) if found else None for found in waited),
        starts=tuple(map(len, waited)),
        throttled=tuple(sum(s >= THROTTLED_SECONDS for s in found) for found in waited),
    )


class _Parts:
    """The parts of a window, of which the one at ``end`` may not be over."""

    def __init__(self, since: float, until: float, count: int, end: float) -> None:
        self._end = end
        self._since = since
        self._until = until
        self._count = count
        self._length = (until - since) / count

    def zeros(self) -> list[float]:
        return [0.0] * self._count

    def index(self, at: float) -> int:
        return min(int((at - self._since) / self._length), self._count - 1)

    def add(self, means: list[float], began: float, ended: float, amount: float) -> None:
        """Add what was there from ``began`` to ``ended`` to the mean of each part."""
        begin, end = max(began, self._since), min(ended, self._until)
        if end <= begin:
            return
        first, last = self.index(begin), self.index(end)
        length = self._length
        for part in range(first, last + 1):
            edge = self._since + part * length
            share = min(end, edge + length) - max(begin, edge)
            if share > 0:
                means[part] += amount * share / min(length, max(self._end - edge, share))


def _saturation(
    held: Mapping[str, tuple[float, ...]], limits: Mapping[str, int | None], count: int
) -> tuple[float | None, ...]:
    used, slots = [0.0] * count, [0] * count
    for pool, means in held.items():
        limit = limits.get(pool)
        if not limit:
            continue
        for part, mean in enumerate(means):
            if mean:
                used[part] += mean
                slots[part] += limit
    if not any(limits.values()):
        return (None,) * count
    return tuple(u / s if s else 0.0 for u, s in zip(used, slots, strict=True))


def _holdings(
    run: RunExecution, settings: Settings, until: float
) -> Iterator[tuple[str, int, float, float]]:
    """Each pool, slots of it, and from when to when they were held."""
    if settings.granularity == "run":
        if run.dequeued is not None:
            for name in pools_of_run(run, settings):
                yield name, 1, run.dequeued, until if run.ended is None else run.ended
        return
    for step in run.steps:
        ended = until if step.ended is None and run.ended is None else step.ended or run.ended
        assert ended is not None
        for term in terms_used(step, settings):
            yield term.name, term.slots, step.started, ended


def _waits(
    run: RunExecution, settings: Settings, only: str | None
) -> Iterator[tuple[float, float]]:
    """When a run was in the queue, and when its steps waited at pools; each once."""
    if run.enqueued is not None and run.dequeued is not None:
        pools = pools_of_run(run, settings)
        if pools if only is None else only in pools:
            yield run.enqueued, run.dequeued
    if settings.granularity == "run":
        return
    for step in run.steps:
        if step.waiting is not None and (
            only is None or any(term.name == only for term in terms_used(step, settings))
        ):
            yield step.waiting, step.started


def _waiting_now(
    states: Iterable[PoolState], held_back: HeldBack, only: str | None
) -> Iterable[float]:
    """Since when each step and run waits that waits now; each once."""
    found: dict[tuple[str, str], float] = {}
    for state in states:
        if only not in (None, state.pool):
            continue
        for step in state.waiting:
            if step.since is not None:
                found[step.run_id, step.step_key] = step.since
    for pool, runs in held_back.by_pool.items():
        if only in (None, pool):
            found.update({(run.run_id, ""): run.created for run in runs})
    return found.values()
