"""The facts about Dagster's health that the doctor relies on."""

from __future__ import annotations

import logging
import time
from typing import Any

import dagster as dg
import pytest
from dagster._core.instance.config import PoolGranularity
from dagster._core.op_concurrency_limits_counter import GlobalOpConcurrencyLimitsCounter
from dagster._core.storage.dagster_run import RunOpConcurrency
from dagster._daemon.monitoring import run_monitoring
from dagster._daemon.types import DaemonHeartbeat
from dagster._utils.error import SerializableErrorInfo

from dagster_lifeguard.compat import health
from dagster_lifeguard.compat.instance import DEFAULT_LIMIT_COMES_LATE
from dagster_lifeguard.compat.runs import plan_of_run

QUIET = {"telemetry": {"enabled": False}}


def instance_with(tmp_path: Any, **settings: Any) -> Any:
    return dg.instance_for_test(temp_dir=str(tmp_path), overrides={**QUIET, **settings})


def test_a_daemon_is_known_by_its_heartbeat(tmp_path) -> None:
    now = time.time()
    error = SerializableErrorInfo("first line\nsecond line\n", [], None)
    with instance_with(tmp_path, run_monitoring={"enabled": True}) as instance:
        before = {daemon.name: daemon for daemon in health.daemons(instance)}
        assert {health.QUEUE_DAEMON, health.MONITORING_DAEMON} <= before.keys()
        assert before[health.QUEUE_DAEMON] == health.Daemon(health.QUEUE_DAEMON, None, ())
        instance.add_daemon_heartbeat(DaemonHeartbeat(now, health.QUEUE_DAEMON, "id", [error]))
        after = {daemon.name: daemon for daemon in health.daemons(instance)}
    told = health.Daemon(health.QUEUE_DAEMON, now, ("first line\nsecond line\n",))
    assert after[health.QUEUE_DAEMON] == told


@pytest.mark.parametrize(
    ("settings", "queue"),
    [
        ({}, health.RunQueue(10, (), heeds_pools=True, buffer=0)),
        (
            {"concurrency": {"runs": {"max_concurrent_runs": 3},
                             "pools": {"op_granularity_run_buffer": 2}}},
            health.RunQueue(3, (), heeds_pools=True, buffer=2),
        ),
        (
            {"run_queue": {
                "max_concurrent_runs": -1,
                "tag_concurrency_limits": [
                    {"key": "a", "limit": 1},
                    {"key": "b", "value": "x", "limit": 2},
                    {"key": "c", "value": {"applyLimitPerUniqueValue": True}, "limit": 3},
                ],
                "block_op_concurrency_limited_runs": {"enabled": False}}},
            health.RunQueue(
                -1,
                (("a", None, False, 1), ("b", "x", False, 2), ("c", None, True, 3)),
                heeds_pools=False,
                buffer=0,
            ),
        ),
        (
            {"run_coordinator": {
                "module": "dagster._core.run_coordinator", "class": "DefaultRunCoordinator"}},
            None,
        ),
    ],
)  # fmt: skip
def test_the_run_queue(settings: dict[str, Any], queue: health.RunQueue | None, tmp_path) -> None:
    stock = {"module": "dagster._core.run_coordinator", "class": "QueuedRunCoordinator"}
    # An instance for tests has no queue unless it is told; what is under run_queue goes with it.
    asked = dict(settings)
    config = asked.pop("run_queue", None)
    asked.setdefault("run_coordinator", {**stock, "config": config} if config else stock)
    with instance_with(tmp_path, **asked) as instance:
        assert health.run_queue(instance) == queue


@pytest.mark.parametrize("buffer", [0, 1, 2])
def test_the_buffer_is_added_to_limits_at_granularity_run(buffer: int, tmp_path) -> None:
    """Why the doctor finds ``buffer-over-limit``."""
    needs = RunOpConcurrency(
        root_key_counts={"orders": 1}, has_unconstrained_root_nodes=False, all_pools={"orders"}
    )
    runs = [
        dg.DagsterRun(job_name="j", run_id=f"run-{n}", run_op_concurrency=needs) for n in range(5)
    ]
    with instance_with(tmp_path) as instance:
        storage = instance.event_log_storage
        storage.set_concurrency_slots("orders", 1)
        looked_up: dict[str, Any] = {}
        if DEFAULT_LIMIT_COMES_LATE:
            looked_up["pool_limits"] = storage.get_pool_limits()
            looked_up["concurrency_keys"] = storage.get_concurrency_keys()
        counter: Any = GlobalOpConcurrencyLimitsCounter(
            instance, runs, [], slot_count_offset=buffer, pool_granularity=PoolGranularity.RUN,
            **looked_up,
        )  # fmt: skip
        admitted = 0
        for run in runs:
            if not counter.is_blocked(run):
                counter.update_counters_with_launched_item(run)
                admitted += 1
    assert admitted == 1 + buffer


@pytest.mark.parametrize(
    ("monitoring", "seconds"),
    [
        ({}, None),
        ({"free_slots_after_run_end_seconds": 60}, None),
        ({"enabled": True}, None),
        ({"enabled": True, "free_slots_after_run_end_seconds": 60}, 60),
    ],
)
def test_slots_are_freed_by_an_enabled_run_monitoring(monitoring, seconds, tmp_path) -> None:
    with instance_with(tmp_path, run_monitoring=monitoring) as instance:
        assert health.free_slots_after_seconds(instance) == seconds


def test_assigning_promises_to_one_waiter_each_time(tmp_path) -> None:
    with instance_with(tmp_path) as instance:
        storage = instance.event_log_storage
        storage.set_concurrency_slots("orders", 2)
        for n in range(3):
            storage.add_pending_step("orders", f"run-{n}", "step", 0, should_assign=False)
        health.assign_waiting(instance, "orders", 2)
        info = storage.get_concurrency_info("orders")
        promised = [s.run_id for s in info.pending_steps if s.assigned_timestamp is not None]
    assert sorted(promised) == ["run-0", "run-1"]


class TestExecutors:
    @pytest.mark.parametrize(
        ("config", "cause"),
        [
            ({"config": {"max_concurrent": 1}}, "max_concurrent: 1"),
            ({"config": {"multiprocess": {"max_concurrent": 1}}}, "max_concurrent: 1"),
            ({"config": {"multiprocess": {"max_concurrent": 2}}}, None),
            ({}, None),
        ],
    )
    def test_a_runs_configuration(self, config, cause: str | None, tmp_path) -> None:
        run = dg.DagsterRun(job_name="j", run_id="r", run_config={"execution": config})
        with instance_with(tmp_path) as instance:
            found = health.executes_one_by_one(instance, run)
        assert (found is None) if cause is None else (found or "").endswith(cause)

    def test_the_in_process_executor_says_so(self, tmp_path) -> None:
        @dg.op
        def work() -> None: ...

        @dg.job
        def some_job() -> None:
            work()

        with instance_with(tmp_path) as instance:
            done = some_job.execute_in_process(instance=instance)
            assert health.executes_one_by_one(instance, done.dagster_run) == (
                "the in_process executor"
            )


def test_the_older_tag_beside_a_pool(tmp_path) -> None:
    @dg.op(pool="orders")
    def limited() -> None: ...

    @dg.op(tags={"dagster/concurrency_key": "older"})
    def tagged() -> None: ...

    @dg.job
    def some_job() -> None:
        limited.tag({"dagster/concurrency_key": "other"})()
        limited()
        tagged()

    with instance_with(tmp_path) as instance:
        run = some_job.execute_in_process(instance=instance).dagster_run
        found = {
            (s.step_key, s.tag, s.pool) for s in health.tagged_steps(instance, [plan_of_run(run)])
        }
    assert ("limited", "other", "orders") in found
    assert len(found) == 2
    assert {key for key, tag, _ in found if tag == "older"} == {"tagged"}


@pytest.mark.parametrize("tag", health.MAX_RUNTIME_TAGS)
def test_a_run_is_ended_for_its_age_counted_from_the_start_of_its_process(tag, tmp_path) -> None:
    """So what its steps wait for is in it, and its time in the run queue is not."""

    @dg.op
    def work() -> None: ...

    @dg.job
    def some_job() -> None:
        work()

    with instance_with(tmp_path, run_monitoring={"enabled": True}) as instance:
        assert health.is_monitored(instance)
        assert health.max_runtime_of_all(instance) == (None, None)
        run = instance.create_run_for_job(some_job, tags={tag: "30"})
        assert health.max_runtime_of(run.tags) == (tag, 30.0)
        (record,) = instance.get_run_records()
        log = logging.getLogger("test")

        def status(started: float | None) -> dg.DagsterRunStatus:
            run_monitoring.check_run_timeout(
                instance, record._replace(start_time=started), log, 0.0
            )
            found = instance.get_run_by_id(run.run_id)
            assert found is not None
            return found.status

        assert status(None) is run.status
        assert status(time.time() - 20) is run.status
        assert status(time.time() - 40) is dg.DagsterRunStatus.FAILURE


def test_the_longest_that_any_run_may_take(tmp_path) -> None:
    with instance_with(tmp_path, run_monitoring={"max_runtime_seconds": 60}) as instance:
        assert not health.is_monitored(instance)
        assert health.max_runtime_of_all(instance) == ("run_monitoring.max_runtime_seconds", 60.0)
    assert health.max_runtime_of({"dagster/max_runtime": "soon"}) == ("dagster/max_runtime", None)
    assert health.max_runtime_of({}) == (None, None)
