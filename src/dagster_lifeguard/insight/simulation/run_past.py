"""The recording of a deployment whose pools hold back runs: granularity ``run``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dagster_lifeguard.engine.rules.model import Demand, TicketKey
from dagster_lifeguard.insight.simulation.doubts import general_doubts
from dagster_lifeguard.insight.simulation.recording import (
    Recorded,
    Recording,
    in_order,
    settings_in_force,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dagster_lifeguard.engine.rules.pool_settings import PoolSettings
    from dagster_lifeguard.insight.simulation.past_runs import PastQueue


def from_runs(
    queue: PastQueue,
    live: Mapping[str, PoolSettings],
    default_limit: int | None,
    window: tuple[float, float],
) -> Recording:
    """The recording in which each run holds its pools from its launch to its end.

    Args:
        queue: The runs, and what is known of the run queue.
        live: What is set of pools now.
        default_limit: The limit of a pool that has none of its own.
        window: From when until when.
    """
    since, until = window
    runs = queue.past_runs(since, until)
    executions = (
        Recorded(
            TicketKey(past.run.run_id, past.run.job_name),
            Demand.of(dict.fromkeys(past.run.pools, 1)),
            past.launched,
            past.launched,
            past.ended,
            past.run.priority,
            past.run.tags,
            judged=past.launched >= since,
        )
        for past in runs
        if past.run.pools
    )
    unended = sum(past.run.ended is None for past in runs)
    return Recording.of(
        "event-logs",
        window,
        in_order(executions, runs),
        settings_in_force(live, default_limit, queue.pools),
        queue,
        doubts=(*general_doubts(unended), *queue.doubts()),
    )
