"""How many slots of a pool were held in a window of time: what a sparkline draws."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dagster_lifeguard.insight.durations import pools_of_run, terms_used

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from dagster_lifeguard.deployment.contract import Deployment, Settings
    from dagster_lifeguard.deployment.history import RunExecution


def slots_over_time(
    deployment: Deployment,
    settings: Settings,
    pools: Collection[str],
    *,
    since: float,
    until: float,
    count: int,
) -> dict[str, tuple[float, ...]]:
    """The mean number of slots that were held, for each pool and each part of a window.

    Args:
        deployment: Where the history is.
        settings: Of the deployment.
        pools: Whose slots; each of them is in the answer.
        since: Begin of the window, in seconds since the epoch.
        until: Its end.
        count: Into how many parts of one length the window is divided.
    """
    length = (until - since) / count
    sums = {pool: [0.0] * count for pool in pools}
    for run in deployment.history(since, until):
        for pool, slots, started, ended in _holdings(run, settings, until):
            parts = sums.get(pool)
            begin, end = max(started, since), min(ended, until)
            if parts is None or end <= begin:
                continue
            first = int((begin - since) / length)
            last = min(int((end - since) / length), count - 1)
            for part in range(first, last + 1):
                edge = since + part * length
                parts[part] += slots * max(0.0, min(end, edge + length) - max(begin, edge))
    return {pool: tuple(total / length for total in parts) for pool, parts in sums.items()}


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
