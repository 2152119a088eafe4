"""Two runs in one asset at once: found in histories that fit into memory."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from dagster import AssetKey

    from dagster_lifeguard.deployment.history.executions import RunExecution, StepExecution


@dataclass(frozen=True, slots=True)
class Overlap:
    """Two runs that executed one asset at once.

    Attributes:
        asset_key: The asset.
        first: The execution that started first.
        second: The execution that started while the first one was going on.
        started: When the overlap began, which is when ``second`` started.
        seconds: How long both went on.
    """

    asset_key: AssetKey
    first: StepExecution
    second: StepExecution
    started: float
    seconds: float


def find_overlaps(runs: Iterable[RunExecution], *, until: float) -> tuple[Overlap, ...]:
    """Find every pair of executions of one asset by different runs that share a moment.

    An execution lasts over ``[started, ended)``: one that starts at the very moment at which the
    other ends does not overlap it. Three executions at once are three overlaps. Two steps of the
    same run are its author's choice and not an overlap.

    Args:
        runs: The runs to compare with each other.
        until: The end of what was observed. An execution without an end is taken to last until
            its run ended, or until here if its run has not ended either.

    Returns:
        The overlaps, by the moment they began and then by asset.
    """
    executions: dict[AssetKey, list[tuple[float, float, StepExecution]]] = defaultdict(list)
    for run in runs:
        for step in run.steps:
            end = next(t for t in (step.ended, run.ended, until) if t is not None)
            for asset_key in step.asset_keys:
                executions[asset_key].append((step.started, end, step))
    found = [
        overlap
        for asset_key, intervals in executions.items()
        for overlap in _overlaps_of_asset(asset_key, intervals)
    ]
    return tuple(sorted(found, key=lambda o: (o.started, o.asset_key.to_user_string())))


def _overlaps_of_asset(
    asset_key: AssetKey, intervals: list[tuple[float, float, StepExecution]]
) -> Iterator[Overlap]:
    going_on: list[tuple[float, StepExecution]] = []
    for start, end, second in sorted(intervals, key=lambda interval: interval[:2]):
        going_on = [other for other in going_on if other[0] > start]
        if end <= start:
            continue  # nothing overlaps an execution that took no time
        for first_end, first in going_on:
            if first.run_id != second.run_id:
                seconds = min(first_end, end) - start
                yield Overlap(asset_key, first, second, started=start, seconds=seconds)
        going_on.append((end, second))
