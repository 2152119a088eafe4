"""The recording that Dagster's event logs tell."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from dagster_lifeguard.engine.rules.launch_order import priority_of
from dagster_lifeguard.engine.rules.model import Demand, TicketKey
from dagster_lifeguard.errors import ConfigError
from dagster_lifeguard.insight.durations import terms_used
from dagster_lifeguard.insight.graphs import as_holders
from dagster_lifeguard.insight.simulation.doubts import Doubt, general_doubts
from dagster_lifeguard.insight.simulation.past_runs import PastQueue
from dagster_lifeguard.insight.simulation.recording import (
    Recorded,
    Recording,
    demand_of,
    in_order,
    settings_in_force,
)
from dagster_lifeguard.texts import number

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from dagster_lifeguard.deployment.contract import Settings
    from dagster_lifeguard.deployment.history import RunExecution, StepExecution
    from dagster_lifeguard.engine.rules.pool_settings import PoolSettings
    from dagster_lifeguard.insight.simulation.recording import Tags

_NO_QUEUE = PastQueue()


def from_event_logs(
    runs: Iterable[RunExecution],
    live: Mapping[str, PoolSettings],
    settings: Settings,
    window: tuple[float, float],
    tags_of: Tags,
    queue: PastQueue = _NO_QUEUE,
) -> Recording:
    """The recording that event logs tell.

    Args:
        runs: The runs of the window.
        live: What is set of pools now.
        settings: What holds for all pools.
        window: From when until when.
        tags_of: Looks up the tags of runs.
        queue: What is known of the run queue; the moments of runs are told by ``runs``.
    """
    since, until = window
    steps: list[tuple[StepExecution, Demand]] = []
    unknown_plans = unended = unread = 0
    moments: dict[str, RunExecution] = {}
    for run in runs:
        moments[run.run_id] = replace(run, steps=())
        unknown_plans += run.pools is None
        for step in run.steps if settings.engine is False else as_holders(run.steps):
            if step.pool is None or (step.ended is not None and step.ended < since):
                continue
            try:
                demand = demand_of({term.name: term.slots for term in terms_used(step, settings)})
            except ConfigError:
                unread += 1
                continue
            unended += step.ended is None
            steps.append((step, demand))
    tags = tags_of({step.run_id for step, _ in steps})
    queue = replace(queue, moments=moments)
    executions = (
        Recorded(
            TicketKey(step.run_id, step.step_key),
            demand,
            step.started if step.waiting is None else min(step.waiting, step.started),
            step.started,
            max(step.started, until if step.ended is None else step.ended),
            priority_of(of_run),
            of_run,
            judged=step.started >= since,
        )
        for step, demand in steps
        for of_run in (tags.get(step.run_id, {}),)
    )
    pools = {pool for _, demand in steps for pool in demand.pools}
    return Recording.of(
        "event-logs",
        window,
        in_order(executions, queue.past_runs(since, until), queue.in_process),
        settings_in_force(live, settings.default_limit, pools | queue.pools),
        queue,
        doubts=(
            *general_doubts(unended),
            *queue.doubts(),
            Doubt(
                "settings-of-today",
                "Event logs do not tell which limits, rates and orders were in force: the past is "
                "played with those of today.",
            ),
            Doubt(
                "step-priorities",
                "Priorities are those of runs: event logs do not tell those of steps.",
            ),
            *(
                [
                    Doubt(
                        "unknown-plans",
                        f"{number(unknown_plans, 'run')} of unknown plan: their "
                        "pools are not known, and they were left out.",
                    )
                ]
                if unknown_plans
                else []
            ),
            *(
                [
                    Doubt(
                        "unread-demands",
                        f"{number(unread, 'step')} asked for something that is no "
                        "demand, and were left out.",
                    )
                ]
                if unread
                else []
            ),
        ),
    )
