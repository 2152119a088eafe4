"""The run queue: whether it is there, heeds pools, and is not full of runs that only wait."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from dagster_lifeguard.compat import health
from dagster_lifeguard.inspections.doctor.check import Told, check

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dagster_lifeguard.deployment.contract import Run
    from dagster_lifeguard.inspections.doctor.examined import Examined


@check(severity="error", source="instance")
def queue_absent(subject: Examined) -> Iterator[Told]:
    """Runs are not queued."""
    if health.run_queue(subject.instance) is not None:
        return
    name = health.run_coordinator_name(subject.instance)
    effect = "so many runs may start at once and wait for their pools, each in a process."
    if subject.why_not("deployment") is None and subject.settings.granularity == "run":
        effect = "so no limit has an effect: at granularity run only the queue heeds pools."
    yield Told(
        f"Runs start as soon as they are submitted, {effect}",
        "Take run_coordinator out of dagster.yaml, and start webserver and daemon again.",
        names=[name],
        evidence=[f"run_coordinator: {name}"],
    )


@check(severity="error", source="deployment")
def queue_ignores_pools(subject: Examined) -> Iterator[Told]:
    """The run queue does not heed pools."""
    queue = subject.deployment.run_queue()
    if queue is None or queue.heeds_pools:
        return
    effect = "so runs start only to wait for their pools."
    if subject.settings.granularity == "run":
        effect = "so no limit has an effect: at granularity run only the queue heeds them."
    yield Told(
        f"The run queue is told not to heed pools, {effect}",
        "Take block_op_concurrency_limited_runs out of dagster.yaml, and start the daemon again.",
        evidence=["block_op_concurrency_limited_runs.enabled: false"],
    )


@check(severity="error", source="deployment")
def buffer_over_limit(subject: Examined) -> Iterator[Told]:
    """The run queue lets more runs in than the limit."""
    queue = subject.deployment.run_queue()
    if queue is None:
        return
    if queue.buffer > 0 and subject.settings.granularity == "run":
        yield Told(
            f"At granularity run the buffer of {queue.buffer} is added to every limit: a pool "
            f"of limit 1 lets {1 + queue.buffer} runs in at once.",
            "Take op_granularity_run_buffer (or op_concurrency_slot_buffer) out of "
            "dagster.yaml, and start the daemon again.",
            evidence=[f"op_granularity_run_buffer: {queue.buffer}"],
        )


@check(severity="warning", source="deployment")
def queue_full_of_waiters(subject: Examined) -> Iterator[Told]:
    """Runs that only wait for pools keep others out."""
    queue = subject.deployment.run_queue()
    if queue is None:
        return
    in_progress = [r for r in subject.unfinished if r.status in ("STARTING", "STARTED")]
    holding = {step.run_id for state in subject.pools for step in state.holding}
    waiting = {step.run_id for state in subject.pools for step in state.waiting}
    idle = (waiting - holding) & {run.run_id for run in in_progress}
    for what, limit, runs in _full(queue, in_progress):
        blocked = [run for run in runs if run.run_id in idle]
        if blocked and 2 * len(blocked) >= len(runs):
            yield Told(
                f"{what} ({limit}) is reached, and {len(blocked)} of the {len(runs)} runs that "
                "it counts only wait for pools: others stay in the queue.",
                "Raise it, or let the queue hold back runs that would wait: that is what "
                "block_op_concurrency_limited_runs does unless it is switched off.",
                names=[run.run_id for run in blocked],
                evidence=[f"run {run.run_id} ({run.job_name}) waits" for run in blocked[:5]],
            )


def _full(queue: health.RunQueue, runs: list[Run]) -> Iterator[tuple[str, int, list[Run]]]:
    """The limits of the queue that are reached, and the runs that each counts."""
    if 0 < queue.runs_max <= len(runs):
        yield "max_concurrent_runs", queue.runs_max, runs
    for key, value, per_value, limit in queue.tag_limits:
        tagged = [r for r in runs if key in r.tags and value in (None, r.tags[key])]
        groups: dict[str, list[Run]] = defaultdict(list)
        for run in tagged:
            groups[run.tags[key]].append(run)
        for group in groups.values() if per_value else [tagged]:
            if 0 < limit <= len(group):
                yield f"The limit of the tag {key}", limit, group


CHECKS = (queue_absent, queue_ignores_pools, buffer_over_limit, queue_full_of_waiters)
