"""What Dagster knows of its own health: daemons, run queue, storage, and how runs execute."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import dagster as dg
from dagster._core.run_coordinator import QueuedRunCoordinator
from dagster._core.storage.event_log import SqlEventLogStorage
from dagster._core.storage.tags import GLOBAL_CONCURRENCY_TAG

from dagster_lifeguard.compat.ops import POOL_OF_USE_TAG
from dagster_lifeguard.compat.plans import read_plans

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from dagster_lifeguard.engine.rules.launch_order import TagLimit

QUEUE_DAEMON = "QUEUED_RUN_COORDINATOR"
MONITORING_DAEMON = "MONITORING"


@dataclass(frozen=True)
class Daemon:
    """One of the threads of ``dagster-daemon`` that an instance needs.

    Attributes:
        last_heartbeat: Seconds since the epoch, by the daemon's clock; None if there was none.
        errors: What went wrong in it lately.
    """

    name: str
    last_heartbeat: float | None
    errors: tuple[str, ...]


@dataclass(frozen=True)
class RunQueue:
    """How the run queue lets runs go.

    Attributes:
        runs_max: How many may be in progress; -1 is any number.
        tag_limits: How many may be in progress with some tag.
        heeds_pools: Whether it holds back runs that would wait for a pool.
        buffer: How many runs more than a pool has slots it lets go.
        interval_seconds: How often its daemon looks; Dagster's default where that is not told.
        launches_at_once: How many runs its daemon launches at once; 1 where that is not told.
    """

    runs_max: int
    tag_limits: tuple[TagLimit, ...]
    heeds_pools: bool
    buffer: int
    interval_seconds: float = 5.0
    launches_at_once: int = 1


@dataclass(frozen=True)
class DagsterTables:
    """What an event log storage and its tables support.

    Attributes:
        storage: The class of the storage.
        is_sql: Whether it is one of Dagster's SQL storages, or derived from one.
        has_pools: Whether it supports pools.
        has_limits: Whether there is a table of limits, with a mark for default limits.
        revision: The revisions of the tables and of this Dagster; None if not known.
    """

    storage: str
    is_sql: bool
    has_pools: bool
    has_limits: bool
    revision: tuple[str | None, str | None] | None


@dataclass(frozen=True)
class TaggedStep:
    """A step with the tag ``dagster/concurrency_key``, which named pools before there were any.

    Attributes:
        pool: What stands in ``op.pool``; if there is one, the tag has no effect.
    """

    step_key: str
    tag: str
    pool: str | None


def daemons(instance: dg.DagsterInstance) -> tuple[Daemon, ...]:
    """The daemons that an instance needs.

    Relies on: ``DagsterInstance.get_daemon_statuses`` (1.10.0).
    """
    found = cast("Any", instance).get_daemon_statuses()
    return tuple(
        Daemon(
            name,
            None if status.last_heartbeat is None else status.last_heartbeat.timestamp,
            tuple(
                error.message
                for error in (status.last_heartbeat and status.last_heartbeat.errors) or ()
            ),
        )
        for name, status in found.items()
    )


def run_queue(instance: dg.DagsterInstance) -> RunQueue | None:
    """The run queue; None if runs are launched as soon as they are submitted.

    Relies on: ``DagsterInstance.run_coordinator``, ``QueuedRunCoordinator``, its
    ``dequeue_interval_seconds``, and ``get_concurrency_config().run_queue_config`` (1.10.0).
    """
    found: Any = instance
    if not isinstance(found.run_coordinator, QueuedRunCoordinator):
        return None
    config = found.get_concurrency_config().run_queue_config
    return RunQueue(
        config.max_concurrent_runs,
        tuple(map(tag_limit, config.tag_concurrency_limits or ())),
        bool(config.should_block_op_concurrency_limited_runs),
        config.op_concurrency_slot_buffer or 0,
        float(found.run_coordinator.dequeue_interval_seconds),
    )


def tag_limit(limit: Mapping[str, Any]) -> TagLimit:
    """A limit by tag, as it stands in ``dagster.yaml``."""
    value = limit.get("value")
    per_value = isinstance(value, dict) and bool(value.get("applyLimitPerUniqueValue"))
    return limit["key"], value if isinstance(value, str) else None, per_value, limit["limit"]


def run_coordinator_name(instance: dg.DagsterInstance) -> str:
    """The class that takes the runs that are submitted."""
    return type(cast("Any", instance).run_coordinator).__name__


def free_slots_after_seconds(instance: dg.DagsterInstance) -> int | None:
    """After how long the daemon frees the slots of runs that are over; None if it does not.

    Relies on: ``run_monitoring_enabled``, ``run_monitoring_settings`` (1.10.0).
    """
    found: Any = instance
    seconds = found.run_monitoring_settings.get("free_slots_after_run_end_seconds")
    return int(seconds) if seconds and found.run_monitoring_enabled else None


MAX_RUNTIME_TAGS = ("dagster/max_runtime", "dagster/max_runtime_seconds")
"""The tags of a run that say how long it may take; the first one counts."""


def is_monitored(instance: dg.DagsterInstance) -> bool:
    """Whether run monitoring is enabled, which ends runs that take too long.

    Relies on: ``run_monitoring_enabled`` (1.10.0).
    """
    return bool(cast("Any", instance).run_monitoring_enabled)


def max_runtime_of(tags: Mapping[str, str]) -> tuple[str | None, float | None]:
    """The tag that says how long a run may take, and the seconds; None of both without one.

    Relies on: ``check_run_timeout`` of run monitoring, which counts from the start of the run's
    process, and ends no run for a tag that is no number (1.10.0).
    """
    for tag in MAX_RUNTIME_TAGS:
        if tags.get(tag):
            try:
                return tag, float(tags[tag])
            except ValueError:
                return tag, None
    return None, None


def max_runtime_of_all(instance: dg.DagsterInstance) -> tuple[str | None, float | None]:
    """The setting that says how long runs without a tag may take, and the seconds.

    Relies on: ``run_monitoring_max_runtime_seconds`` (1.10.0).
    """
    seconds = cast("Any", instance).run_monitoring_max_runtime_seconds
    return ("run_monitoring.max_runtime_seconds", float(seconds)) if seconds else (None, None)


def tables(instance: dg.DagsterInstance) -> DagsterTables:
    """What the tables of the event log can hold.

    Relies on: ``supports_global_concurrency_limits``, ``alembic_version`` of an event log storage,
    ``has_default_pool_limit_col`` of ``SqlEventLogStorage`` (1.10.0).
    """
    event_log: Any = instance.event_log_storage
    is_sql = isinstance(event_log, SqlEventLogStorage)
    version = event_log.alembic_version()
    return DagsterTables(
        storage=type(event_log).__name__,
        is_sql=is_sql,
        has_pools=bool(event_log.supports_global_concurrency_limits),
        has_limits=not is_sql or bool(event_log.has_default_pool_limit_col),
        revision=None if version is None else (version[0], version[1]),
    )


def assign_waiting(instance: dg.DagsterInstance, pool: str, count: int) -> None:
    """Promise free slots of a pool to its first waiters, as a release of the stock storage does.

    Relies on: ``SqlEventLogStorage.assign_pending_steps``, one waiter each time (1.10.0).
    """
    event_log = instance.event_log_storage
    assert isinstance(event_log, SqlEventLogStorage)
    event_log.assign_pending_steps([pool] * count)


def tagged_steps(instance: dg.DagsterInstance, plans: Iterable[str]) -> Iterator[TaggedStep]:
    """The steps of these plans that bear the old tag, and not from a policy; plan by plan.

    Relies on: the ``tags`` and ``pool`` of the steps of an ``ExecutionPlanSnapshot`` (1.10.0).
    """
    plans = list(plans)
    found = dict(read_plans(instance, plans))
    for step in (step for plan in plans if plan in found for step in found[plan].steps):
        tags = step.tags or {}
        tag = tags.get(GLOBAL_CONCURRENCY_TAG)
        if tag is not None and POOL_OF_USE_TAG not in tags:
            yield TaggedStep(step.key, tag, step.pool)


def executor_settings(
    instance: dg.DagsterInstance, runs: Iterable[dg.DagsterRun]
) -> dict[str, tuple[str, ...]]:
    """By run id, the names of what can be configured of the executor of its job.

    None if that is not seen: an executor that is configured in code shows none. Runs of the same
    version of a job cost one statement.

    Relies on: ``job_snapshot_id`` of a run, and of its snapshot ``mode_def_snaps`` with
    ``root_config_key`` and ``config_schema_snapshot`` (1.10.0).
    """
    jobs = {run.run_id: cast("Any", run).job_snapshot_id for run in runs}
    settings = {
        job: _executor_settings(cast("Any", instance).get_job_snapshot(job))
        for job in dict.fromkeys(jobs.values())
        if job is not None
    }
    return {run_id: settings.get(job, ()) for run_id, job in jobs.items()}


def _executor_settings(snapshot: Any) -> tuple[str, ...]:
    schema = snapshot.config_schema_snapshot
    snap = schema.get_config_snap(snapshot.mode_def_snaps[0].root_config_key)
    for name in ("execution", "config"):
        if name not in (snap.field_names if snap.fields else ()):
            return ()
        snap = schema.get_config_snap(snap.get_field(name).type_key)
    return tuple(snap.field_names) if snap.fields else ()


def executes_one_by_one(instance: dg.DagsterInstance, run: dg.DagsterRun) -> str | None:
    """Which setting makes a run execute its steps one by one; None if none is seen.

    An executor that is configured in code does not show in the run.

    Relies on: the message of the engine event with which the in-process executor begins, and
    the run's ``execution: config: [multiprocess:] max_concurrent`` (1.10.0).
    """
    config: Any = (cast("Any", run.run_config).get("execution") or {}).get("config") or {}
    if (config.get("multiprocess") or config).get("max_concurrent") == 1:
        return "execution: config: max_concurrent: 1"
    events = instance.all_logs(run.run_id, of_type=dg.DagsterEventType.ENGINE_EVENT)
    for event in events:
        message = (event.dagster_event and event.dagster_event.message) or ""
        if message.startswith("Executing steps in process"):
            return "the in_process executor"
    return None
