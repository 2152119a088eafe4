"""What ran when: overlaps of hand-made histories, and histories of real runs."""

import time
import uuid

import dagster as dg
import pytest
from dagster import AssetKey

from dagster_lifeguard.compat import stored_runs
from dagster_lifeguard.compat.events import EventRow, read_event_rows
from dagster_lifeguard.deployment.history import (
    Outcome,
    RunExecution,
    StepExecution,
    executions,
    find_overlaps,
    read_history,
    read_runs,
)
from dagster_lifeguard.deployment.history import instance_history as reading


def step(run_id, asset, started, ended, *, attempt=1, outcome=Outcome.SUCCESS):
    keys = tuple(AssetKey(key) for key in ([asset] if isinstance(asset, str) else asset))
    if ended is None:
        outcome = Outcome.UNFINISHED
    return StepExecution(run_id, f"step_of_{asset}", keys, attempt, started, ended, outcome)


def run(run_id, *steps, ended=None):
    return RunExecution(run_id, "job", "SUCCESS", None, None, None, ended, steps)


def overlaps(*runs, until=100.0):
    return [
        (o.asset_key.to_user_string(), o.first.run_id, o.second.run_id, o.started, o.seconds)
        for o in find_overlaps(runs, until=until)
    ]


def test_executions_of_one_asset_that_share_time_overlap():
    a, b = run("a", step("a", "x", 1.0, 4.0)), run("b", step("b", "x", 3.0, 9.0))
    assert overlaps(a, b) == [("x", "a", "b", 3.0, 1.0)]
    assert overlaps(b, a) == [("x", "a", "b", 3.0, 1.0)]


def test_an_execution_within_another_overlaps_for_its_whole_length():
    assert overlaps(run("a", step("a", "x", 1.0, 9.0)), run("b", step("b", "x", 3.0, 5.0))) == [
        ("x", "a", "b", 3.0, 2.0)
    ]


def test_touching_executions_do_not_overlap():
    assert overlaps(run("a", step("a", "x", 1.0, 3.0)), run("b", step("b", "x", 3.0, 5.0))) == []


def test_an_execution_without_length_overlaps_nothing():
    a, b = run("a", step("a", "x", 1.0, 5.0)), run("b", step("b", "x", 3.0, 3.0))
    assert overlaps(a, b) == []
    assert overlaps(run("a", step("a", "x", 3.0, 5.0)), b) == []


def test_executions_that_start_together_overlap():
    assert overlaps(run("a", step("a", "x", 1.0, 2.0)), run("b", step("b", "x", 1.0, 3.0))) == [
        ("x", "a", "b", 1.0, 1.0)
    ]


def test_three_at_once_are_three_overlaps():
    runs = [run(r, step(r, "x", start, 10.0)) for r, start in (("a", 1.0), ("b", 2.0), ("c", 3.0))]
    assert overlaps(*runs) == [
        ("x", "a", "b", 2.0, 8.0),
        ("x", "a", "c", 3.0, 7.0),
        ("x", "b", "c", 3.0, 7.0),
    ]


def test_different_assets_at_once_do_not_overlap():
    assert overlaps(run("a", step("a", "x", 1.0, 9.0)), run("b", step("b", "y", 1.0, 9.0))) == []


def test_steps_of_one_run_do_not_overlap():
    assert overlaps(run("a", step("a", "x", 1.0, 9.0), step("a", "x", 2.0, 8.0))) == []


def test_a_step_that_makes_two_assets_overlaps_in_each():
    assert overlaps(
        run("a", step("a", ["x", "y"], 1.0, 4.0)), run("b", step("b", ["y", "x"], 2.0, 4.0))
    ) == [("x", "a", "b", 2.0, 2.0), ("y", "a", "b", 2.0, 2.0)]


def test_between_two_attempts_the_asset_is_free():
    retried = run(
        "a",
        step("a", "x", 1.0, 2.0, attempt=1, outcome=Outcome.RETRY),
        step("a", "x", 6.0, 8.0, attempt=2),
    )
    assert overlaps(retried, run("b", step("b", "x", 3.0, 5.0))) == []
    assert overlaps(retried, run("b", step("b", "x", 1.5, 7.0))) == [
        ("x", "a", "b", 1.5, 0.5),
        ("x", "b", "a", 6.0, 1.0),
    ]


def test_an_unfinished_execution_lasts_until_its_run_ended():
    killed = run("a", step("a", "x", 1.0, None), ended=5.0)
    assert overlaps(killed, run("b", step("b", "x", 3.0, 9.0))) == [("x", "a", "b", 3.0, 2.0)]
    assert overlaps(killed, run("b", step("b", "x", 6.0, 9.0))) == []


def test_an_unfinished_execution_of_an_unfinished_run_lasts_until_now():
    running = run("a", step("a", "x", 1.0, None))
    later = run("b", step("b", "x", 6.0, None))
    assert overlaps(running, later, until=10.0) == [("x", "a", "b", 6.0, 4.0)]


def test_nothing_overlaps_in_an_empty_history():
    assert overlaps() == []
    assert overlaps(run("a")) == []


@dg.asset
def first_try_fails(context: dg.AssetExecutionContext):
    if context.retry_number == 0:
        raise dg.RetryRequested(max_retries=1) from ValueError("not yet")


@dg.asset
def alone_asset():
    pass


@dg.asset
def broken():
    raise ValueError("the sea is rough")


@dg.multi_asset(specs=[dg.AssetSpec(["sea", "b"]), dg.AssetSpec("a")])
def two():
    for key in (["sea", "b"], "a"):
        yield dg.MaterializeResult(asset_key=key)


@dg.op
def alone():
    pass


@dg.job
def plain():
    alone()


@pytest.fixture
def instance(tmp_path):
    (tmp_path / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        yield instance


def materialize(instance, *assets):
    return dg.materialize(assets, instance=instance, raise_on_error=False).run_id


def test_a_run_is_read_with_its_steps_and_times(instance):
    before = time.time()
    run_id = materialize(instance, two)
    after = time.time()
    (read,) = read_runs(instance)
    (step,) = read.steps
    assert (read.run_id, read.status) == (run_id, "SUCCESS")
    assert (read.enqueued, read.dequeued) == (None, None)
    assert before <= read.started <= step.started <= step.ended <= read.ended <= after
    assert (step.run_id, step.step_key, step.attempt) == (run_id, "two", 1)
    assert step.asset_keys == (AssetKey("a"), AssetKey(["sea", "b"]))
    assert (step.outcome, step.error) == (Outcome.SUCCESS, None)


def test_each_attempt_is_an_execution(instance):
    materialize(instance, first_try_fails)
    (read,) = read_runs(instance)
    one, two = read.steps
    assert [(s.attempt, s.outcome) for s in (one, two)] == [
        (1, Outcome.RETRY),
        (2, Outcome.SUCCESS),
    ]
    assert one.started <= one.ended <= two.started <= two.ended
    assert one.asset_keys == two.asset_keys == (AssetKey("first_try_fails"),)
    assert "not yet" in one.error


def test_a_failure_says_what_the_innermost_exception_said(instance):
    materialize(instance, broken)
    (read,) = read_runs(instance)
    assert read.status == "FAILURE"
    (step,) = read.steps
    assert (step.outcome, step.error) == (Outcome.FAILURE, "ValueError: the sea is rough")
    assert step.asset_keys == (AssetKey("broken"),)


def test_a_plain_op_makes_no_asset(instance):
    plain.execute_in_process(instance=instance)
    (read,) = read_runs(instance)
    assert [(s.step_key, s.asset_keys) for s in read.steps] == [("alone", ())]


def test_an_execution_that_goes_on_is_unfinished(instance):
    seen = []

    @dg.asset
    def watcher(context: dg.AssetExecutionContext):
        seen.extend(read_runs(context.instance))

    materialize(instance, watcher)
    (during,) = seen
    (step,) = during.steps
    assert (during.status, during.ended) == ("STARTED", None)
    assert (step.ended, step.outcome) == (None, Outcome.UNFINISHED)
    assert step.asset_keys == (AssetKey("watcher"),)


def report(instance, run_id, name, step_key):
    """Report an event as if a step had said it, in the words of another step of the run."""
    event_type = dg.DagsterEventType[name]
    model = instance.all_logs(run_id, of_type=event_type)[0].dagster_event
    event = dg.DagsterEvent(
        event_type.value,
        job_name="job",
        step_key=step_key,
        event_specific_data=model.event_specific_data,
    )
    instance.report_dagster_event(event, run_id=run_id)


def test_a_step_that_fails_before_its_code_starts_has_no_length(instance):
    run_id = materialize(instance, broken)
    report(instance, run_id, "STEP_FAILURE", "sailor")
    (read,) = read_runs(instance)
    (sailor,) = [s for s in read.steps if s.step_key == "sailor"]
    assert (sailor.outcome, sailor.attempt, sailor.error) == (
        Outcome.FAILURE,
        1,
        "ValueError: the sea is rough",
    )
    assert sailor.started == sailor.ended


def test_a_step_that_starts_again_without_an_end_leaves_an_unfinished_attempt(instance):
    run_id = materialize(instance, two)
    for name in ("STEP_START", "STEP_START", "STEP_SUCCESS"):
        report(instance, run_id, name, "sailor")
    (read,) = read_runs(instance)
    attempts = [s for s in read.steps if s.step_key == "sailor"]
    assert [(s.attempt, s.outcome) for s in attempts] == [
        (1, Outcome.UNFINISHED),
        (2, Outcome.SUCCESS),
    ]


def test_only_the_runs_asked_for_are_read_and_in_order(instance):
    one, two, three = (materialize(instance, broken) for _ in range(3))
    assert [r.run_id for r in read_runs(instance)] == [one, two, three]
    assert [r.run_id for r in read_runs(instance, [three, one, "unknown"])] == [one, three]
    assert read_runs(instance, []) == ()


daily = dg.DailyPartitionsDefinition("2026-01-01")


@dg.asset(partitions_def=daily, pool="orders")
def partitioned():
    pass


@dg.asset(pool="warehouse")
def pooled():
    pass


def test_an_execution_knows_its_pool_and_its_partition(instance):
    dg.materialize([partitioned], instance=instance, partition_key="2026-01-02")
    materialize(instance, pooled, broken)
    one, two = read_runs(instance)
    assert [(s.pool, s.partitions) for s in one.steps] == [("orders", ("2026-01-02",))]
    assert one.pools == ("orders",)
    pools = {s.step_key: (s.pool, s.partitions) for s in two.steps}
    assert pools == {"pooled": ("warehouse", ()), "broken": (None, ())}
    assert two.pools == ("warehouse",)


@dg.op(out=dg.DynamicOut())
def fan_out():
    yield dg.DynamicOutput(1, "a")
    yield dg.DynamicOutput(2, "b")


@dg.op(pool="orders")
def limited(number):
    pass


@dg.job
def fanned():
    fan_out().map(limited)


def test_steps_made_while_the_run_goes_on_know_their_pool(instance):
    fanned.execute_in_process(instance=instance)
    (read,) = read_runs(instance)
    pools = {step.step_key: step.pool for step in read.steps}
    assert pools == {"fan_out": None, "limited[a]": "orders", "limited[b]": "orders"}


def put(*events):
    return executions.put_together("run", "job", "SUCCESS", events, ()).steps


def test_a_step_that_was_told_to_wait_knows_since_when():
    waits = [EventRow("ENGINE_EVENT", at, "s") for at in (1.0, 2.0)]
    (step,) = put(*waits, EventRow("STEP_START", 5.0, "s"), EventRow("STEP_SUCCESS", 6.0, "s"))
    assert (step.waiting, step.started, step.ended) == (1.0, 5.0, 6.0)


def test_a_run_says_that_its_process_executes_the_steps_one_after_another():
    def is_in_process(*events):
        return executions.put_together("run", "job", "SUCCESS", events, ()).in_process

    assert is_in_process(EventRow("ENGINE_EVENT", 1.0), EventRow("STEP_START", 2.0, "s"))
    assert not is_in_process(EventRow("ENGINE_EVENT", 1.0, "s"))
    assert not is_in_process(EventRow("ASSET_MATERIALIZATION_PLANNED", 1.0))


def test_each_attempt_waits_by_itself():
    first, second = put(
        EventRow("ENGINE_EVENT", 1.0, "s"),
        EventRow("STEP_START", 2.0, "s"),
        EventRow("STEP_UP_FOR_RETRY", 3.0, "s"),
        EventRow("STEP_RESTARTED", 4.0, "s"),
    )
    assert (first.waiting, second.waiting) == (1.0, None)


def test_without_a_plan_the_pools_are_not_known():
    assert executions.put_together("run", "job", "STARTED", (), None).pools is None


def test_history_has_the_runs_that_were_not_over_before(instance):
    early, late = (materialize(instance, broken) for _ in range(2))
    waiting = dg.DagsterRun(job_name="job", run_id=str(uuid.uuid4()))
    instance.add_run(waiting)
    ended = {run.run_id: run.ended for run in read_runs(instance)}

    def found(since, until=None):
        return [run.run_id for run in read_history(instance, since, until)]

    assert found(0.0) == [early, late, waiting.run_id]
    assert found(ended[early]) == [early, late, waiting.run_id]
    assert found((ended[early] + ended[late]) / 2) == [late, waiting.run_id]
    assert found(ended[late] + 3600) == [waiting.run_id]
    assert found(0.0, until=1.0) == []


def test_history_is_read_in_pages(instance, monkeypatch):
    monkeypatch.setattr(stored_runs, "_AT_ONCE", 2)
    made = [materialize(instance, alone_asset) for _ in range(5)]
    read = list(read_history(instance))
    assert [run.run_id for run in read] == made
    assert [[step.step_key for step in run.steps] for run in read] == [["alone_asset"]] * 5


@pytest.mark.parametrize(
    ("runs_at_once", "steps_at_once", "expected"),
    [(3, 99, [3, 2]), (64, 2, [2, 2, 1]), (64, 0, [1, 1, 1, 1, 1])],
)
def test_what_is_in_memory_at_once_is_bounded_by_runs_and_by_their_steps(
    instance, monkeypatch, runs_at_once, steps_at_once, expected
):
    monkeypatch.setattr(reading, "RUNS_AT_ONCE", runs_at_once)
    monkeypatch.setattr(reading, "STEPS_AT_ONCE", steps_at_once)
    asked = []

    def spy(instance, run_ids, kinds):
        asked.append(len(run_ids))
        return read_event_rows(instance, run_ids, kinds)

    made = [materialize(instance, alone_asset) for _ in range(5)]
    monkeypatch.setattr(reading, "read_event_rows", spy)
    assert [run.run_id for run in read_history(instance)] == made
    assert asked == expected


def test_a_run_whose_events_are_gone_has_no_steps(instance):
    run_id = materialize(instance, broken)
    instance.event_log_storage.delete_events(run_id)
    (read,) = read_history(instance)
    assert (read.run_id, read.steps, read.started) == (run_id, (), None)
