"""Past executions: what ran when, read from the event log that Dagster keeps anyway.

Everything comes through the public instance API, so it is the same for every storage, and for runs
that were made before Lifeguard was installed. All times are seconds since the epoch, as floats.

What the event log cannot promise, and so neither can this module:

- An event bears the clock of the process that wrote it. Between machines, intervals are only as
  exact as their clocks agree.
- A step's interval is what Dagster saw: from just before to just after the code of the step ran.
  Work that outlives the step (a query still running in a warehouse) is not in it.
- A process that was killed writes no end. Its step is ``UNFINISHED``, and the end of its run, where
  somebody wrote one, is the best bound there is; it may be later than the truth.
- A step knows the assets that its run planned it to make. The inner steps of a graph asset, which
  only hand values on, know none.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING

from dagster import AssetKey, DagsterEventType, RunsFilter

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence

    from dagster import DagsterEvent, DagsterInstance, RunRecord


class Outcome(Enum):
    """How one execution of a step ended."""

    SUCCESS = "success"
    FAILURE = "failure"
    RETRY = "retry"
    """It failed, and its run would try again."""
    UNFINISHED = "unfinished"
    """It still runs, or its process died without a word."""


@dataclass(frozen=True, slots=True)
class StepExecution:
    """One attempt of one step of one run.

    Attributes:
        run_id: The run it belongs to.
        step_key: The step, unique within the run together with ``attempt``.
        asset_keys: The assets it makes, in the order of their names; empty for a plain op.
        attempt: 1 for the first; a retry counts one more.
        started: When it started. One that failed before its code started has no length.
        ended: When it ended; None if no end was recorded.
        outcome: How it ended.
        error: What the innermost exception said, for ``FAILURE`` and ``RETRY``.
    """

    run_id: str
    step_key: str
    asset_keys: tuple[AssetKey, ...]
    attempt: int
    started: float
    ended: float | None
    outcome: Outcome
    error: str | None = None


@dataclass(frozen=True, slots=True)
class RunExecution:
    """One run: its way through the queue, and its steps in the order in which they started.

    Attributes:
        run_id: Dagster's id of the run.
        job_name: The job it ran.
        status: Dagster's status of the run when it was read, such as ``SUCCESS``.
        enqueued: When it entered the run queue; None if it went around it.
        dequeued: When the launch of its process began; None if it did not yet.
        started: When its process began to execute; None if it did not yet.
        ended: When it succeeded, failed or was canceled; None if it has not ended.
        steps: Every attempt of every step that started.
    """

    run_id: str
    job_name: str
    status: str
    enqueued: float | None
    dequeued: float | None
    started: float | None
    ended: float | None
    steps: tuple[StepExecution, ...]


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


def read_runs(
    instance: DagsterInstance, run_ids: Collection[str] | None = None
) -> tuple[RunExecution, ...]:
    """Read the history of runs, in the order in which they were created.

    The whole event log of each run is read, so the cost grows with the number of their steps.

    Args:
        instance: Where to read.
        run_ids: The runs to read; None for all of them. An id that the instance does not know is
            left out.
    """
    if run_ids is not None and not run_ids:
        return ()
    filters = None if run_ids is None else RunsFilter(run_ids=list(run_ids))
    records = instance.get_run_records(filters=filters, ascending=True)
    return tuple(_read_run(instance, record) for record in records)


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


_RUN_MOMENTS = {
    DagsterEventType.RUN_ENQUEUED: "enqueued",
    DagsterEventType.RUN_STARTING: "dequeued",
    DagsterEventType.RUN_START: "started",
    DagsterEventType.RUN_SUCCESS: "ended",
    DagsterEventType.RUN_FAILURE: "ended",
    DagsterEventType.RUN_CANCELED: "ended",
}
_STEP_STARTS = {DagsterEventType.STEP_START, DagsterEventType.STEP_RESTARTED}
_STEP_ENDS = {
    DagsterEventType.STEP_SUCCESS: Outcome.SUCCESS,
    DagsterEventType.STEP_FAILURE: Outcome.FAILURE,
    DagsterEventType.STEP_UP_FOR_RETRY: Outcome.RETRY,
}
_STEP_ASSETS = {
    DagsterEventType.ASSET_MATERIALIZATION_PLANNED,
    DagsterEventType.ASSET_MATERIALIZATION,
    DagsterEventType.ASSET_OBSERVATION,
}
_READ = {*_RUN_MOMENTS, *_STEP_STARTS, *_STEP_ENDS, *_STEP_ASSETS}


def _read_run(instance: DagsterInstance, record: RunRecord) -> RunExecution:
    run = record.dagster_run
    events = tuple(_read_events(instance, run.run_id))
    moments: dict[str, float] = {}
    for timestamp, event in events:
        moment = _RUN_MOMENTS.get(event.event_type)
        if moment == "ended":
            moments[moment] = timestamp  # the last word counts: a failed launch may be tried again
        elif moment is not None:
            moments.setdefault(moment, timestamp)
    return RunExecution(
        run_id=run.run_id,
        job_name=run.job_name,
        status=run.status.value,
        enqueued=moments.get("enqueued"),
        dequeued=moments.get("dequeued"),
        started=moments.get("started"),
        ended=moments.get("ended") if run.is_finished else None,
        steps=_pair_steps(run.run_id, events),
    )


def _read_events(instance: DagsterInstance, run_id: str) -> Iterator[tuple[float, DagsterEvent]]:
    cursor: str | None = None
    while True:
        page = instance.get_records_for_run(run_id, cursor=cursor, of_type=_READ)
        for record in page.records:
            event = record.event_log_entry.dagster_event
            if event is not None:
                yield record.timestamp, event
        if not page.has_more:
            return
        cursor = page.cursor


def _pair_steps(
    run_id: str, events: Sequence[tuple[float, DagsterEvent]]
) -> tuple[StepExecution, ...]:
    """Pair each start of a step with its end."""
    assets: dict[str, set[AssetKey]] = defaultdict(set)
    for _, event in events:
        if event.event_type in _STEP_ASSETS and event.step_key and event.asset_key:
            assets[event.step_key].add(event.asset_key)

    attempts: dict[str, list[StepExecution]] = defaultdict(list)
    for timestamp, event in events:
        step_key = event.step_key
        if step_key is None:
            continue
        known = attempts[step_key]
        outcome = _STEP_ENDS.get(event.event_type)
        going_on = bool(known) and known[-1].outcome is Outcome.UNFINISHED
        # A step can also fail before its code starts, for want of a resource or of its process.
        if event.event_type in _STEP_STARTS or (outcome is not None and not going_on):
            known.append(
                StepExecution(
                    run_id=run_id,
                    step_key=step_key,
                    asset_keys=tuple(sorted(assets[step_key], key=AssetKey.to_user_string)),
                    attempt=len(known) + 1,
                    started=timestamp,
                    ended=None,
                    outcome=Outcome.UNFINISHED,
                )
            )
        if outcome is not None:
            known[-1] = replace(
                known[-1], ended=timestamp, outcome=outcome, error=_innermost_error(event)
            )
    executions = [execution for known in attempts.values() for execution in known]
    return tuple(sorted(executions, key=lambda execution: execution.started))


def _innermost_error(event: DagsterEvent) -> str | None:
    """What the exception at the root said: Dagster wraps it in exceptions of its own."""
    error = getattr(event.event_specific_data, "error", None)
    while error is not None and error.cause is not None:
        error = error.cause
    return None if error is None else str(error.message).strip()
