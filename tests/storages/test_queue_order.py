"""Dagster's own run-queue daemon goes by the order of fair pools, on every page that it reads."""

from __future__ import annotations

import logging
import uuid
from typing import Any

import dagster as dg
import pytest
from dagster._core.storage.dagster_run import RunOpConcurrency
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
from dagster._daemon.run_coordinator.queued_run_coordinator_daemon import QueuedRunCoordinatorDaemon

try:
    from dagster._core import remote_origin as origins
except ImportError:  # before 1.11
    from dagster._core.remote_representation import origin as origins

from dagster_lifeguard.deployment.instance import InstanceDeployment
from dagster_lifeguard.insight.durations import Durations
from dagster_lifeguard.insight.outlook import read_outlook
from dagster_lifeguard.insight.queue_look import in_line
from dagster_lifeguard.insight.run_queue import places_in_queue
from dagster_lifeguard.storage.queue_rules import queue_rules, remembered_turns

QUEUED = dg.DagsterRunStatus.QUEUED
BACKFILL = "dagster/backfill"
_LOCATION = origins.InProcessCodeLocationOrigin(LoadableTargetOrigin())
ORIGIN = origins.RemoteJobOrigin(origins.RemoteRepositoryOrigin(_LOCATION, "repository"), "job")
QUEUE = dg.RunsFilter(statuses=[QUEUED])


@pytest.fixture
def make_instance(make_home, kind):
    """Makes an instance whose pool ``warehouse`` has 8 slots and is fair by backfill."""
    opened = []

    def make(runs_max: int = 1, *, granularity: str = "op", **queue) -> dg.DagsterInstance:
        home = make_home(
            kind,
            concurrency={
                "pools": {"granularity": granularity},
                "runs": {"max_concurrent_runs": runs_max, **queue},
            },
        )
        instance = dg.DagsterInstance.from_config(str(home.path))
        opened.append(instance)
        log: Any = instance.event_log_storage
        log.set_concurrency_slots("warehouse", 8)
        log.change_pool("warehouse", fair_by=BACKFILL)
        return instance

    yield make
    for instance in opened:
        instance.dispose()


def queue(instance, name, *, pool="warehouse", status=QUEUED, **tags):
    """A run in the queue, whose id begins with this name."""
    asked = RunOpConcurrency(
        root_key_counts={pool: 1}, has_unconstrained_root_nodes=False, all_pools={pool}
    )
    run_id = f"{name}-{uuid.uuid4()}"
    instance.add_run(
        dg.DagsterRun(
            "job",
            run_id=run_id,
            status=status,
            tags=tags,
            run_op_concurrency=asked,
            remote_job_origin=ORIGIN,
        )
    )
    return run_id


def backfill(instance, count, *, status=QUEUED, name="b"):
    return [queue(instance, f"{name}{n}", status=status, **{BACKFILL: name}) for n in range(count)]


def named(runs):
    return [run.run_id.partition("-")[0] for run in runs]


def chosen(instance, *, page_size=100):
    """The runs that one pass of Dagster's daemon would launch, in its order."""
    daemon = QueuedRunCoordinatorDaemon(interval_seconds=1, page_size=page_size)
    daemon._logger = logging.getLogger("daemon")
    return daemon._get_runs_to_dequeue(instance, instance.get_concurrency_config(), None)


def launch(instance, run):
    """What the daemon says of a run before it hands it over to the launcher."""
    event = dg.DagsterEvent("PIPELINE_STARTING", run.job_name)
    instance.report_dagster_event(event, run_id=run.run_id)


def end(instance, run):
    instance.report_run_canceled(instance.get_run_by_id(run.run_id))


@pytest.mark.parametrize("page_size", [1, 7, 100])
@pytest.mark.parametrize("granularity", ["op", "run"])
def test_the_daily_run_is_the_next_one_wherever_it_is_in_the_queue(
    make_instance, granularity, page_size
):
    instance = make_instance(4, granularity=granularity)
    backfill(instance, 2, status=dg.DagsterRunStatus.STARTED, name="b")
    backfill(instance, 20, name="b")
    queue(instance, "daily")
    found = chosen(instance, page_size=page_size)
    assert named(found) == ["daily", "b0"]


def test_all_pages_have_each_run_once_in_the_order_of_launches(make_instance):
    instance = make_instance()
    backfill(instance, 5)
    queue(instance, "other", pool="orders")
    queue(instance, "daily")
    queue(instance, "urgent", pool="orders", **{"dagster/priority": "1"})
    pages, cursor = [], None
    while page := instance.get_runs(QUEUE, cursor, 3, ascending=True):
        pages.append(named(page))
        cursor = page[-1].run_id
    assert pages == [["urgent", "b0", "daily"], ["b1", "b2", "b3"], ["other", "b4"]]


def test_groups_take_turns_from_pass_to_pass_also_in_a_new_daemon(make_instance, kind):
    instance = make_instance()
    for name in "abc":
        backfill(instance, 4, name=name)
    launched = []
    for turn in range(12):
        if turn == 6:  # Another process goes on from what is written.
            instance = dg.DagsterInstance.from_ref(instance.get_ref())
        (run,) = chosen(instance)
        launch(instance, run)
        end(instance, run)
        launched.append(run.run_id[0])
        if len(launched) % 3 == 0:
            assert sorted(launched[-3:]) == ["a", "b", "c"], launched
    instance.dispose()


def test_what_changes_of_queued_runs_is_seen_in_the_next_pass(make_instance):
    instance = make_instance()
    first, second = backfill(instance, 2)
    assert named(chosen(instance)) == ["b0"]
    instance.add_run_tags(second, {"dagster/priority": "3"})
    assert named(chosen(instance)) == ["b1"]
    backfill(instance, 3, status=dg.DagsterRunStatus.STARTING)
    end(instance, instance.get_run_by_id(second))
    assert named(instance.get_runs(QUEUE, limit=9, ascending=True)) == ["b0"]
    instance.add_run_tags(first, {BACKFILL: "other"})
    queue(instance, "b9", **{BACKFILL: "b"})
    assert named(instance.get_runs(QUEUE, limit=9, ascending=True)) == ["b0", "b9"]


def test_a_run_that_leaves_the_queue_meanwhile_makes_no_page_short(make_instance):
    """Dagster takes a page with fewer runs than it asked for for the last one."""
    instance = make_instance()
    runs = backfill(instance, 6)
    page = instance.get_runs(QUEUE, limit=2, ascending=True)
    end(instance, instance.get_run_by_id(runs[2]))
    page = instance.get_runs(QUEUE, page[-1].run_id, 2, ascending=True)
    assert named(page) == ["b3", "b4"]
    page = instance.get_runs(QUEUE, page[-1].run_id, 2, ascending=True)
    assert named(page) == ["b5"]
    assert instance.get_runs(QUEUE, "unknown", 2, ascending=True) == []


def test_where_no_pool_is_fair_it_is_dagsters_own_order(make_instance):
    instance = make_instance(9)
    log: Any = instance.event_log_storage
    backfill(instance, 3)
    queue(instance, "daily")
    assert named(chosen(instance, page_size=2)) == ["b0", "daily", "b1", "b2"]
    log.change_pool("warehouse", fair_by=None)
    assert named(chosen(instance, page_size=2)) == ["b0", "b1", "b2", "daily"]
    log.change_pool("warehouse", fair_by="team")
    assert named(chosen(instance, page_size=2)) == ["b0", "b1", "b2", "daily"]


@pytest.mark.parametrize(
    "asked",
    [
        {"filters": QUEUE, "limit": 9},
        {"filters": QUEUE, "ascending": True},
        {"filters": dg.RunsFilter(statuses=[QUEUED], tags={}, job_name="job"), "limit": 9},
    ],
)
def test_other_questions_about_the_queue_are_answered_by_age(make_instance, asked):
    instance = make_instance()
    backfill(instance, 3, status=dg.DagsterRunStatus.STARTED)
    backfill(instance, 2)
    queue(instance, "daily")
    by_age = ["b0", "b1", "daily"]
    found = named(instance.get_runs(**asked))
    assert found == (by_age if asked.get("ascending") else by_age[::-1])


def test_a_limit_by_tag_keeps_no_other_run_of_the_group_behind(make_instance):
    limits = [{"key": "team", "limit": 1}]
    instance = make_instance(4, tag_concurrency_limits=limits)
    queue(instance, "x", status=dg.DagsterRunStatus.STARTED, team="x")
    backfill(instance, 2, status=dg.DagsterRunStatus.STARTED)
    for n in range(6):
        queue(instance, f"kept{n}", team="x")
    backfill(instance, 6)
    queue(instance, "daily")
    assert named(chosen(instance)) == ["daily"]


def test_turns_are_written_with_the_order_that_they_belong_to(make_instance):
    instance = make_instance()
    log: Any = instance.event_log_storage
    backfill(instance, 2)
    launch(instance, chosen(instance)[0])
    rules = queue_rules(instance)
    assert rules is not None
    assert remembered_turns(instance, rules)["warehouse"].of_groups["b"] > 0
    log.change_pool("warehouse", fair_by="team")
    rules = queue_rules(instance)
    assert rules is not None
    assert remembered_turns(instance, rules) == {}


def test_a_launch_goes_on_where_its_turn_cannot_be_written(make_instance, monkeypatch, caplog):
    from sqlalchemy.exc import OperationalError

    instance = make_instance()
    backfill(instance, 1)
    (run,) = chosen(instance)

    def refuse(pairs) -> None:
        raise OperationalError("INSERT", {}, Exception("disk full"))

    monkeypatch.setattr(instance.run_storage, "set_cursor_values", refuse)
    launch(instance, run)
    assert instance.get_run_by_id(run.run_id).status is dg.DagsterRunStatus.STARTING
    assert "Whose turn is next in the run queue was not written" in caplog.text


@pytest.mark.parametrize("granularity", ["op", "run"])
def test_what_is_told_of_the_queue_is_the_order_in_which_the_daemon_launches(
    make_instance, granularity
):
    instance = make_instance(2, granularity=granularity)
    deployment = InstanceDeployment(instance, "it")
    backfill(instance, 4, name="a")
    backfill(instance, 4, name="b")
    queue(instance, "other", pool="orders")
    queue(instance, "daily")
    queue(instance, "urgent", **{"dagster/priority": "1"})
    for _ in range(5):
        told = [run.run_id for run in in_line(deployment.unfinished_runs())]
        found = chosen(instance)
        assert told[: len(found)] == [run.run_id for run in found]
        assert len(told) == len(set(told))
        unfinished, settings = deployment.unfinished_runs(), deployment.settings()
        outlook = read_outlook(deployment, settings, (), Durations(0, 0), 0, unfinished)
        places = places_in_queue(deployment, told, unfinished, settings, 0, outlook)
        assert [places[run_id].position for run_id in told] == list(range(1, len(told) + 1))
        launch(instance, found[0])
        end(instance, found[0])


def test_under_granularity_run_the_pool_tells_its_line_with_groups(make_instance):
    instance = make_instance(granularity="run")
    going_on = backfill(instance, 2, status=dg.DagsterRunStatus.STARTED)
    first, second = backfill(instance, 2)
    daily = queue(instance, "daily")
    (pool,) = InstanceDeployment(instance, "it").pools(["warehouse"])
    assert [(s.run_id, s.group) for s in pool.holding] == [(run_id, "b") for run_id in going_on]
    told = [(s.run_id, s.group) for s in pool.waiting]
    assert told == [(daily, ""), (first, "b"), (second, "b")]
