"""What the storages answer to Dagster, asked in this process."""

from __future__ import annotations

import dagster as dg
import pytest
from dagster._core.execution.plan.instance_concurrency_context import InstanceConcurrencyContext
from dagster._core.storage.dagster_run import DagsterRun, RunOpConcurrency
from homes import eventually

from dagster_lifeguard.engine.rules.pool_settings import PoolSettings
from dagster_lifeguard.engine.rules.rate import Rate
from dagster_lifeguard.errors import ConfigError


def test_one_slot_goes_to_one_step_and_then_to_the_next(make_home, kind):
    with make_home(kind).instance() as instance:
        log = instance.event_log_storage
        log.set_concurrency_slots("orders", 1)
        assert log.claim_concurrency_slot("orders", "run1", "step").is_claimed
        blocked = log.claim_concurrency_slot("orders", "run2", "step")
        assert (blocked.is_claimed, blocked.sleep_interval) == (False, 0.0)
        assert not log.check_concurrency_claim("orders", "run2", "step").is_claimed
        assert log.check_concurrency_claim("orders", "run1", "step").is_claimed
        assert log.get_concurrency_run_ids() == {"run1", "run2"}
        log.free_concurrency_slot_for_step("run1", "step")
        assert log.claim_concurrency_slot("orders", "run2", "step").is_claimed
        log.free_concurrency_slots_for_run("run2")
        assert log.get_concurrency_run_ids() == set()


def test_the_page_of_pools_says_who_holds_and_who_waits(make_home, kind):
    with make_home(kind).instance() as instance:
        log = instance.event_log_storage
        log.set_concurrency_slots("orders", 3)
        log.set_concurrency_slots("paused", 0)
        assert log.get_concurrency_keys() == {"orders", "paused"}
        log.claim_concurrency_slot("{hold:step}orders*2", "run1", "a", 5)
        log.claim_concurrency_slot("{hold:step}orders*2", "run2", "b")
        info = log.get_concurrency_info("orders")
        assert (info.slot_count, info.limit, info.using_default_limit) == (3, 3, False)
        assert [(s.run_id, s.step_key) for s in info.claimed_slots] == [("run1", "a")] * 2
        assert (info.active_slot_count, info.active_run_ids) == (2, {"run1"})
        assert (info.pending_step_count, info.pending_run_ids) == (1, {"run2"})
        assert (info.assigned_step_count, info.assigned_run_ids) == (2, {"run1"})
        assert {s.priority for s in info.pending_steps if s.run_id == "run1"} == {5}
        assert set(log.get_concurrency_infos(["orders", "paused"])) == {"orders", "paused"}
        assert log.get_concurrency_info("never heard of").slot_count == 0


@pytest.mark.parametrize(
    ("default", "limits", "unlimited"),
    [(None, {}, True), (None, {"b": 2}, False), (1, {"b": 9}, False)],
)
def test_an_expression_is_unlimited_only_if_all_its_pools_are(
    make_home, default, limits, unlimited
):
    settings = {} if default is None else {"concurrency": {"pools": {"default_limit": default}}}
    with make_home("sqlite", **settings).instance() as instance:
        log = instance.event_log_storage
        for pool, limit in limits.items():
            log.set_concurrency_slots(pool, limit)
        with InstanceConcurrencyContext(instance, DagsterRun(job_name="one")) as context:
            assert context.claim("{hold:step}a+b*2", "step")
            assert (log.get_concurrency_run_ids() == set()) == unlimited
        with InstanceConcurrencyContext(instance, DagsterRun(job_name="two")) as context:
            assert context.claim("{hold:step}a+b*2", "step") == unlimited


def test_a_broken_expression_is_an_error_and_has_no_limit_of_its_own(make_home):
    with make_home("sqlite").instance() as instance:
        log = instance.event_log_storage
        for wrong in ("a+", "a*0", "a+a"):
            with pytest.raises(ConfigError):
                log.claim_concurrency_slot("{hold:step}" + wrong, "run", "step")
        with pytest.raises(ConfigError, match="a, b"):
            log.set_concurrency_slots("{hold:step}a+b", 1)


@pytest.mark.parametrize("limit", [1001, 99999, -1])
def test_a_limit_out_of_bounds_is_refused_as_dagster_refuses_it(make_home, kind, limit):
    with make_home(kind).instance() as instance:
        log = instance.event_log_storage
        with pytest.raises(dg.DagsterInvalidInvocationError, match="1000"):
            log.set_concurrency_slots("orders", limit)
        assert log.get_pool_limits() == []


@pytest.mark.parametrize("default", [2, 4, None])
def test_a_pool_that_is_asked_about_has_the_default_limit_and_no_row(make_home, kind, default):
    home = make_home(kind)
    if default is not None:
        home.settings = {"concurrency": {"pools": {"default_limit": default}}}
        home.write()
    with home.instance() as instance:
        log = instance.event_log_storage
        log.set_concurrency_slots("own", 5)
        assert [p.name for p in log.get_pool_limits()] == ["own"]
        log.initialize_concurrency_limit_to_default("orders")
        log.initialize_concurrency_limit_to_default("own")
        limits = {p.name: (p.limit, p.from_default) for p in log.get_pool_limits()}
        by_default = {} if default is None else {"orders": (default, True)}
        assert limits == {"own": (5, False), **by_default}
        assert log.get_concurrency_info("orders").limit == default
        assert log.get_concurrency_keys() == {"own"}
        log.delete_concurrency_limit("own")
        assert {p.name: p.limit for p in log.get_pool_limits()} == (
            {} if default is None else {"orders": default, "own": default}
        )


@pytest.mark.parametrize("text", ["mail", "{hold:step}mail+other*2"])
def test_a_rate_limits_the_starts_of_a_pool_without_any_limit(make_home, kind, text):
    with make_home(kind).instance() as instance:
        log = instance.event_log_storage
        with InstanceConcurrencyContext(instance, DagsterRun(job_name="job")) as context:
            assert context.claim(text, "step")
            assert log.get_pool_limits() == []
            log.change_pool("mail", rate=Rate.parse("1/day"))
            assert context.claim(text, "first")
            assert not context.claim(text, "second")


def test_pools_with_the_default_limit_are_known_while_they_are_planned_held_or_waited_for(
    make_home, kind
):
    home = make_home(kind, concurrency={"pools": {"default_limit": 1}})
    asked = RunOpConcurrency(
        root_key_counts={"{hold:step}a+b": 1},
        has_unconstrained_root_nodes=False,
        all_pools={"{hold:step}a+b", "c"},
    )
    with home.instance() as instance, home.instance() as other:
        log = instance.event_log_storage
        log.set_concurrency_slots("own", 1)
        run = instance.run_storage.add_run(DagsterRun(job_name="job", run_op_concurrency=asked))
        later = instance.run_storage.add_run(DagsterRun(job_name="job", run_op_concurrency=asked))
        for seen in (log, other.event_log_storage):
            assert seen.get_concurrency_keys() == {"own", "a", "b", "c"}
        assert log.claim_concurrency_slot("d", run.run_id, "step").is_claimed
        assert not log.claim_concurrency_slot("{hold:step}e+d", later.run_id, "step").is_claimed
        instance.report_run_canceled(run)
        assert other.event_log_storage.get_concurrency_keys() == {"own", *"abcde"}
        log.free_concurrency_slots_for_run(run.run_id)
        instance.report_run_canceled(later)
        assert other.event_log_storage.get_concurrency_keys() == {"own", "d", "e"}
        log.free_concurrency_slots_for_run(later.run_id)
        assert other.event_log_storage.get_concurrency_keys() == {"own"}


def test_stored_runs_name_pools_and_never_expressions(make_home, kind):
    home = make_home(kind, concurrency={"pools": {"default_limit": 7}})
    asked = RunOpConcurrency(
        root_key_counts={"{hold:step}a+b*2": 3, "b": 1},
        has_unconstrained_root_nodes=False,
        all_pools={"{hold:step}a+b*2", "b", "c"},
    )
    with home.instance() as instance:
        run = instance.run_storage.add_run(DagsterRun(job_name="job", run_op_concurrency=asked))
        stored = instance.get_run_by_id(run.run_id)
        for found in (run.run_op_concurrency, stored.run_op_concurrency):
            assert found.root_key_counts == {"a": 3, "b": 7}
            assert found.all_pools == {"a", "b", "c"}
            assert not found.has_unconstrained_root_nodes
        # The run queue meets each with its limit, at its first look.
        log = instance.event_log_storage
        assert log.get_concurrency_keys() == {"a", "b", "c"}
        assert [info.slot_count for info in log.get_concurrency_infos("abc").values()] == [7] * 3


def test_nothing_can_be_set_of_a_pool_of_all_partitions(make_home, kind):
    with make_home(kind).instance() as instance:
        log = instance.event_log_storage
        for refused in (
            lambda: log.set_concurrency_slots("{all}daily[*]", 3),
            lambda: log.set_pools({"a": PoolSettings(1), "{all}daily[*]": PoolSettings(3)}),
            lambda: log.change_pool("{all}daily[*]", rate=Rate.parse("1/day")),
            lambda: log.change_pool("{all}daily[*]", fair_by="team"),
        ):
            with pytest.raises(ConfigError, match="stands for all partitions: it always has 1000"):
                refused()
        assert log.get_pool_limits() == []


def test_runs_without_pools_are_stored_as_they_are(make_home):
    with make_home("sqlite").instance() as instance:
        run = DagsterRun(job_name="job")
        assert instance.run_storage.add_run(run) == run


def test_a_waiting_step_asks_the_database_next_to_nothing(make_home, kind):
    with make_home(kind).instance() as instance:
        log = instance.event_log_storage
        log.set_concurrency_slots("orders", 1)
        log.claim_concurrency_slot("orders", "holder", "step")
        with InstanceConcurrencyContext(instance, DagsterRun(job_name="job")) as context:
            asked = []
            store = log.lifeguard.engine.store
            begin, settings = store.begin, store.settings
            store.begin = lambda scope: asked.append("claim") or begin(scope)
            store.settings = lambda: asked.append("settings") or settings()
            for _ in range(40):  # A second of Dagster's loop.
                assert not context.claim("orders", "step")
            assert len(asked) <= 4
            log.free_concurrency_slot_for_step("holder", "step")
            eventually(lambda: context.claim("orders", "step"), 5)


def test_a_limit_that_is_deleted_lets_the_waiting_in(make_home, kind):
    with make_home(kind).instance() as instance:
        log = instance.event_log_storage
        log.set_concurrency_slots("orders", 0)
        with InstanceConcurrencyContext(instance, DagsterRun(job_name="job")) as context:
            assert not context.claim("orders", "step")
            log.delete_concurrency_limit("orders")
            eventually(lambda: context.claim("orders", "step"), 5)
            assert not context.has_pending_claims()


def test_what_waits_is_withdrawn_with_its_run(make_home):
    with make_home("sqlite").instance() as instance:
        log = instance.event_log_storage
        log.set_concurrency_slots("orders", 0)
        with InstanceConcurrencyContext(instance, DagsterRun(job_name="job")) as context:
            assert not context.claim("orders", "step")
        assert log.get_concurrency_run_ids() == set()


def test_steps_in_this_process_release_what_they_held_however_they_end(make_home, kind):
    @dg.asset(pool="orders")
    def fails():
        raise ValueError

    # Dagster 1.10 refuses the expression as pool=..., not where a policy puts it, nor as a tag.
    @dg.asset(op_tags={"dagster/concurrency_key": "{hold:step}orders+warehouse*2"})
    def works(): ...

    with make_home(kind).instance() as instance:
        log = instance.event_log_storage
        log.set_concurrency_slots("orders", 1)
        log.set_concurrency_slots("warehouse", 2)
        assert not dg.materialize([fails], instance=instance, raise_on_error=False).success
        assert dg.materialize([works], instance=instance).success
        assert log.get_concurrency_run_ids() == set()
        ledger = log.lifeguard.engine.store.ledger()
        assert [e.slots for e in ledger if e.kind == "granted" and e.pool == "warehouse"] == [2]
