"""Runs as they are submitted: what they ask for, how far they are, and how they are cancelled."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, cast

import dagster as dg
from dagster._core.events import EngineEventData
from dagster._core.storage import tags as of_dagster
from dagster._serdes import serialize_value
from dagster._utils.error import serializable_error_info_from_exc_info

from dagster_lifeguard.compat.ops import ON_CONFLICT_TAG
from dagster_lifeguard.compat.plans import is_selected
from dagster_lifeguard.engine.rules.duplicates import (
    WorkOrder,
    WorkProgress,
    WorkStep,
    read_answers,
)
from dagster_lifeguard.engine.rules.launch_order import priority_of
from dagster_lifeguard.engine.rules.pool_naming import pool_name

if TYPE_CHECKING:
    from collections.abc import Collection
    from types import TracebackType

    from dagster_lifeguard.engine.rules.duplicates import Droppable

TAG_PREFIX = "lifeguard/"

CLAIM_TAGS = frozenset(
    {of_dagster.RUN_KEY_TAG, of_dagster.BACKFILL_ID_TAG, of_dagster.ASSET_EVALUATION_ID_TAG}
)
"""Tags of runs that are requested only once: no later request would do their work."""

BOOKKEEPING_TAGS = frozenset(
    {
        of_dagster.SCHEDULE_NAME_TAG,
        of_dagster.SENSOR_NAME_TAG,
        "dagster/tick",
        "dagster/from_ui",
        "dagster/from_automation_condition",
        of_dagster.AUTO_MATERIALIZE_TAG,
        of_dagster.AUTO_OBSERVE_TAG,
        of_dagster.USER_TAG,
        "dagster/code_location",
        of_dagster.PARTITION_SET_TAG,
        of_dagster.PARENT_RUN_ID_TAG,
        of_dagster.ROOT_RUN_ID_TAG,
        "dagster/parent_backfill_id",
        "dagster/root_backfill_id",
        of_dagster.RESUME_RETRY_TAG,
        "dagster/is_asset_resume_retry",
        of_dagster.STEP_SELECTION_TAG,
        of_dagster.OP_SELECTION_TAG,
        of_dagster.RETRY_NUMBER_TAG,
        "dagster/will_retry",
        "dagster/auto_retry_run_id",
        "dagster/failure_reason",
    }
)
"""Tags about the origin of a run, which say nothing about its work.

What Dagster 1.10.0 has no name for is written out.
"""

_PARTITION_TAGS = (
    of_dagster.PARTITION_NAME_TAG,
    of_dagster.ASSET_PARTITION_RANGE_START_TAG,
    of_dagster.ASSET_PARTITION_RANGE_END_TAG,
)

_AHEAD = (
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
)
"""The states of a run that still does its work; a queued one does it all after it was asked."""


# --- what a run asks for --------------------------------------------------------------------------


def order_of(run: dg.DagsterRun, ignore_tags: Collection[str] = ()) -> WorkOrder:
    """What a run was asked to do, apart from its assets and checks.

    Args:
        run: The run.
        ignore_tags: Further tags to ignore, besides those of bookkeeping.

    Relies on: the fields of ``DagsterRun`` (1.10.0; ``partitions_subset`` where there is one).
    """
    of_run = cast("Any", run)
    origin = of_run.remote_job_origin  # None: nobody submitted it; it executes where it was made
    repository = None if origin is None else origin.repository_origin
    tags = {k: v for k, v in run.tags.items() if k not in ignore_tags}
    subset = getattr(run, "partitions_subset", None)
    # Where assets are selected, the ops that make them are among the resolved selection.
    selection = of_run.resolved_op_selection if of_run.op_selection is not None else None
    return WorkOrder(
        run_id=run.run_id,
        ancestors=frozenset(filter(None, (of_run.parent_run_id, of_run.root_run_id))),
        terms=(
            None if repository is None else repository.code_location_origin.location_name,
            None if repository is None else repository.repository_name,
            run.job_name,
            serialize_value(of_run.job_code_origin),
            json.dumps(run.run_config, sort_keys=True, default=str),
            frozenset((k, v) for k, v in tags.items() if _tells_what_to_do(k)),
            None if subset is None else serialize_value(subset),
            None if selection is None else frozenset(selection),
        ),
        claims=frozenset((k, v) for k, v in tags.items() if k in CLAIM_TAGS),
        priority=priority_of(tags),
    )


def _tells_what_to_do(tag: str) -> bool:
    return not (
        tag in BOOKKEEPING_TAGS
        or tag in CLAIM_TAGS
        or tag == of_dagster.PRIORITY_TAG
        or tag.startswith((of_dagster.HIDDEN_TAG_PREFIX, TAG_PREFIX))
    )


def planned_steps(instance: dg.DagsterInstance, run: dg.DagsterRun) -> tuple[WorkStep, ...]:
    """The steps that a run is to execute.

    None if nobody planned them, or if the run is to execute only some steps of its plan, as a
    retry from the failure does: what it does then depends on what its parent has done.

    Relies on: ``DagsterInstance.get_execution_plan_snapshot`` and, in the snapshot, the tags of
    each step's op, the selected assets among its outputs, and ``node_handle_id``, whose first part
    is the outermost node (1.10.0). A check that is not selected may be among the outputs before
    1.11, so the run's own selection is asked as well.
    """
    of_run = cast("Any", run)
    if of_run.execution_plan_snapshot_id is None:
        return ()
    plan: Any = instance.get_execution_plan_snapshot(of_run.execution_plan_snapshot_id)
    if {step.key for step in plan.steps} != set(plan.step_keys_to_execute):
        return ()
    return tuple(_planned(run, step) for step in plan.steps)


def _planned(run: dg.DagsterRun, step: Any) -> WorkStep:
    outputs = [output.properties for output in step.outputs if output.properties]
    assets = {output.asset_key for output in outputs if output.asset_key}
    checks = {
        output.asset_check_key
        for output in outputs
        if output.asset_check_key and is_selected(run, output.asset_check_key)
    }
    text = (step.tags or {}).get(ON_CONFLICT_TAG)
    members = {pool_name(key.path, "path") for key in (*assets, *(c.asset_key for c in checks))}
    return WorkStep(
        key=step.key,
        op=step.node_handle_id.split(".")[0],
        assets=frozenset(key.to_string() for key in assets),
        checks=frozenset(map(_check_text, checks)),
        after=frozenset(key for inp in step.inputs for key in inp.upstream_step_keys),
        on_conflict=None if text is None else read_answers(text, members),
    )


def _check_text(check: dg.AssetCheckKey) -> str:
    # No text of an asset key has anything after its closing bracket.
    return f"{check.asset_key.to_string()}:{check.name}"


# --- what other runs do ---------------------------------------------------------------------------


def runs_ahead(instance: dg.DagsterInstance, run: dg.DagsterRun) -> list[dg.DagsterRun]:
    """The queued and executing runs of the same job and partitions, the queued ones first.

    A run that is queued will begin after the new one was asked for, so that it sees what there is
    to see now.
    """
    partitions = {tag: run.tags[tag] for tag in _PARTITION_TAGS if tag in run.tags}
    found = instance.get_runs(
        dg.RunsFilter(job_name=run.job_name, statuses=list(_AHEAD), tags=partitions)
    )
    return sorted(
        (other for other in found if other.run_id != run.run_id),
        key=lambda other: _AHEAD.index(other.status),
    )


def where(run: dg.DagsterRun) -> Droppable | None:
    """Where a run stands: ``queued`` or ``running``; None if it is not there yet, or ends."""
    if run.status is dg.DagsterRunStatus.QUEUED:
        return "queued"
    return "running" if run.status in _AHEAD else None


_Event = dg.DagsterEventType
_STEP_GIVEN_UP = (_Event.STEP_FAILURE, _Event.STEP_SKIPPED)
_OUTPUT_MADE = (
    _Event.ASSET_MATERIALIZATION,
    _Event.ASSET_OBSERVATION,
    _Event.ASSET_CHECK_EVALUATION,
)


def progress_of(instance: dg.DagsterInstance, run: dg.DagsterRun) -> WorkProgress:
    """What a run has behind it, by its events.

    A step of a dynamic graph counts for all those of its kind, ``step[?]``, when it is given up.
    """
    if where(run) == "queued":
        return WorkProgress()
    outputs, succeeded, given_up = set(), set(), set()
    wanted = {_Event.STEP_SUCCESS, *_STEP_GIVEN_UP, *_OUTPUT_MADE}
    for entry in instance.all_logs(run.run_id, of_type=wanted):
        event: Any = entry.dagster_event
        if event.event_type is _Event.STEP_SUCCESS:
            succeeded.add(event.step_key)
        elif event.event_type in _STEP_GIVEN_UP:
            given_up |= {event.step_key, re.sub(r"\[.*\]", "[?]", event.step_key)}
        elif event.event_type is _Event.ASSET_CHECK_EVALUATION:
            outputs.add(_check_text(event.asset_check_evaluation_data.asset_check_key))
        elif event.asset_key is not None:
            outputs.add(event.asset_key.to_string())
    return WorkProgress(frozenset(outputs), frozenset(succeeded), frozenset(given_up))


# --- what becomes of a run ------------------------------------------------------------------------


def tell(
    instance: dg.DagsterInstance,
    run: dg.DagsterRun,
    message: str,
    *,
    other: str | None = None,
    error: BaseException | None = None,
) -> None:
    """Write an engine event into a run's log.

    Args:
        instance: The instance.
        run: The run.
        message: What to say.
        other: The id of another run, which Dagster's UI shows as a link.
        error: What went wrong, if something did.

    Relies on: ``DagsterInstance.report_engine_event``, ``EngineEventData`` (1.10.0).
    """
    data = EngineEventData(
        metadata={} if other is None else {"run": dg.MetadataValue.dagster_run(other)},
        error=None if error is None else _serializable(error),
    )
    cast("Any", instance).report_engine_event(message, run, data)


def _serializable(error: BaseException) -> Any:
    info: tuple[type[BaseException], BaseException, TracebackType | None] = (
        type(error), error, error.__traceback__,
    )  # fmt: skip
    return serializable_error_info_from_exc_info(cast("Any", info))


def mark_cancelled(instance: dg.DagsterInstance, run: dg.DagsterRun, message: str) -> None:
    """End a run that has not begun as CANCELED.

    This is what Dagster's own coordinator does to a queued run, and its UI to a starting one that
    a user forces to be canceled. A run worker that is launched afterwards does not begin the run;
    one that has read already that it is to begin does.

    Relies on: ``report_run_canceling``, ``report_run_canceled`` (1.10.0).
    """
    if run.status not in (dg.DagsterRunStatus.NOT_STARTED, dg.DagsterRunStatus.CANCELING):
        cast("Any", instance).report_run_canceling(run, message=message)
    cast("Any", instance).report_run_canceled(run, message=message)


def has_not_begun(instance: dg.DagsterInstance, run_id: str) -> bool:
    """Whether a run that was launched is not over, and no run worker said that it began it."""
    if reloaded(instance, run_id).is_finished:
        return False
    began = instance.all_logs(run_id, of_type=dg.DagsterEventType.RUN_START)
    return not began


def terminate(instance: dg.DagsterInstance, run_id: str) -> bool:
    """Ask the run launcher to end a run; whether it says that it did.

    Relies on: ``DagsterInstance.run_launcher.terminate`` (1.10.0).

    Raises:
        Exception: Whatever the launcher raises that cannot reach the run worker.
    """
    return bool(cast("Any", instance).run_launcher.terminate(run_id))


def reloaded(instance: dg.DagsterInstance, run_id: str) -> dg.DagsterRun:
    """The run as it is stored now."""
    run = instance.get_run_by_id(run_id)
    assert run is not None, run_id
    return run
