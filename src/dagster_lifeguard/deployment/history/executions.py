"""Executions: the steps of a run as intervals, put together from the events of the run."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from typing import TYPE_CHECKING

from dagster import AssetKey, DagsterEventType

from dagster_lifeguard.compat.events import asset_key_of
from dagster_lifeguard.engine.rules.launch_order import OVER

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from dagster_lifeguard.compat.events import EventRow
    from dagster_lifeguard.compat.plans import StepPlan


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
        pool: What stands in ``op.pool``, which may be an expression; None: not limited.
        partitions: Those that it makes, sorted; empty if the assets have none.
        waiting: When it was first told that its pool is full; None if it was not.
    """

    run_id: str
    step_key: str
    asset_keys: tuple[AssetKey, ...]
    attempt: int
    started: float
    ended: float | None
    outcome: Outcome
    error: str | None = None
    pool: str | None = None
    partitions: tuple[str, ...] = ()
    waiting: float | None = None


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
        pools: What stands in ``op.pool`` of the steps that it planned, sorted; None if the plan
            is not known, and then neither are the pools of its steps.
        in_process: Whether its process executes its steps one after another.
    """

    run_id: str
    job_name: str
    status: str
    enqueued: float | None
    dequeued: float | None
    started: float | None
    ended: float | None
    steps: tuple[StepExecution, ...]
    pools: tuple[str, ...] | None = ()
    in_process: bool = False


_RUN_MOMENTS = {
    DagsterEventType.RUN_ENQUEUED.value: "enqueued",
    DagsterEventType.RUN_STARTING.value: "dequeued",
    DagsterEventType.RUN_START.value: "started",
    DagsterEventType.RUN_SUCCESS.value: "ended",
    DagsterEventType.RUN_FAILURE.value: "ended",
    DagsterEventType.RUN_CANCELED.value: "ended",
}
_STEP_STARTS = {DagsterEventType.STEP_START.value, DagsterEventType.STEP_RESTARTED.value}
_STEP_ENDS = {
    DagsterEventType.STEP_SUCCESS.value: Outcome.SUCCESS,
    DagsterEventType.STEP_FAILURE.value: Outcome.FAILURE,
    DagsterEventType.STEP_UP_FOR_RETRY.value: Outcome.RETRY,
}
_STEP_ASSETS = {
    DagsterEventType.ASSET_MATERIALIZATION_PLANNED.value,
    DagsterEventType.ASSET_MATERIALIZATION.value,
    DagsterEventType.ASSET_OBSERVATION.value,
}
_ENGINE_EVENT = DagsterEventType.ENGINE_EVENT.value
_STEP_KINDS = {*_STEP_STARTS, *_STEP_ENDS, *_STEP_ASSETS, _ENGINE_EVENT}

READ = tuple(DagsterEventType(value) for value in (*_RUN_MOMENTS, *sorted(_STEP_KINDS)))
"""The types of events that are looked at."""

_MADE_WHILE_GOING_ON = re.compile(r"\[[^\]]*\]")


def put_together(
    run_id: str,
    job_name: str,
    status: str,
    events: Iterable[EventRow],
    plan: Iterable[StepPlan] | None,
) -> RunExecution:
    """The execution of a run of which these events and this plan are known.

    Args:
        run_id: The run.
        job_name: Its job.
        status: Its status.
        events: In the order in which they were stored.
        plan: What it planned to execute; None if that is not known.
    """
    moments: dict[str, float] = {}
    steps = _Steps()
    in_process = False
    for event in events:
        if event.kind in _STEP_KINDS:
            if event.step_key is not None:
                steps.add(event, event.step_key)
            elif event.kind == _ENGINE_EVENT:
                in_process = True
            continue
        moment = _RUN_MOMENTS[event.kind]
        if moment == "ended":
            moments[moment] = event.at  # the last word counts: a launch may be tried again
        else:
            moments.setdefault(moment, event.at)
    pools = None if plan is None else {step.step_key: step.pool for step in plan if step.pool}
    return RunExecution(
        run_id=run_id,
        job_name=job_name,
        status=status,
        enqueued=moments.get("enqueued"),
        dequeued=moments.get("dequeued"),
        started=moments.get("started"),
        ended=moments.get("ended") if status in OVER else None,
        steps=steps.executions(run_id, pools or {}),
        pools=None if pools is None else tuple(sorted(set(pools.values()))),
        in_process=in_process,
    )


class _Attempt:
    """What is known of an attempt while its events are read."""

    __slots__ = ("ended", "error", "number", "outcome", "started", "step_key", "waiting")

    def __init__(self, step_key: str, number: int, started: float, waiting: float | None) -> None:
        self.step_key = step_key
        self.number = number
        self.started = started
        self.waiting = waiting
        self.ended: float | None = None
        self.outcome = Outcome.UNFINISHED
        self.error: str | None = None


class _Steps:
    """Pairs each start of a step with its end."""

    def __init__(self) -> None:
        self._attempts: list[_Attempt] = []
        self._last: dict[str, _Attempt] = {}
        self._waiting: dict[str, float] = {}
        self._assets: defaultdict[str, set[str]] = defaultdict(set)
        self._partitions: defaultdict[str, set[str]] = defaultdict(set)

    def add(self, event: EventRow, step_key: str) -> None:
        kind, at, _, asset, partition, error = event
        if kind in _STEP_ASSETS:
            if asset is not None:
                self._assets[step_key].add(asset)
            if partition is not None:
                self._partitions[step_key].add(partition)
            return
        if kind == _ENGINE_EVENT:
            self._waiting.setdefault(step_key, at)
            return
        outcome = _STEP_ENDS.get(kind)
        attempt = self._last.get(step_key)
        # A step can also fail before its code starts, for want of a resource or of its process.
        if outcome is None or attempt is None or attempt.ended is not None:
            number = 1 if attempt is None else attempt.number + 1
            waiting = self._waiting.pop(step_key, None)
            attempt = self._last[step_key] = _Attempt(step_key, number, at, waiting)
            self._attempts.append(attempt)
        if outcome is not None:
            attempt.ended = at
            attempt.outcome = outcome
            attempt.error = error

    def executions(self, run_id: str, pools: Mapping[str, str]) -> tuple[StepExecution, ...]:
        assets = {key: _asset_keys(tuple(found)) for key, found in self._assets.items()}
        partitions = {key: tuple(sorted(found)) for key, found in self._partitions.items()}
        self._attempts.sort(key=lambda attempt: attempt.started)
        return tuple(
            StepExecution(
                run_id,
                a.step_key,
                assets.get(a.step_key, ()),
                a.number,
                a.started,
                a.ended,
                a.outcome,
                a.error,
                _pool(pools, a.step_key),
                partitions.get(a.step_key, ()),
                a.waiting,
            )
            for a in self._attempts
        )


@lru_cache(maxsize=100_000)
def _asset_keys(texts: tuple[str, ...]) -> tuple[AssetKey, ...]:
    return tuple(sorted(map(asset_key_of, texts), key=AssetKey.to_user_string))


def _pool(pools: Mapping[str, str], step_key: str) -> str | None:
    found = pools.get(step_key)
    if found is None and "[" in step_key:
        return pools.get(_MADE_WHILE_GOING_ON.sub("[?]", step_key))
    return found
