"""Names of pools that look like expressions, or like anything else: each is one pool with its limit.

Dagster takes any name without white space. What a policy writes has a mark, see ``names``.
"""

from __future__ import annotations

import json
from inspect import signature

import dagster as dg
import pytest
from dagster._core.execution.api import create_execution_plan
from dagster._core.execution.plan.instance_concurrency_context import InstanceConcurrencyContext
from dagster._core.op_concurrency_limits_counter import GlobalOpConcurrencyLimitsCounter
from dagster._core.storage.dagster_run import DagsterRun, RunOpConcurrency

from dagster_lifeguard import Policy, Rule
from dagster_lifeguard.client import LifeguardClient
from dagster_lifeguard.errors import ConfigError, DeadlockError

NAMES = [
    "etl+load",
    "gpu*2",
    "a*b",
    "x[1]+y",
    "+",
    "a**b",
    "gpu*0",
    "{",
    "{asset}",
    "daily[{partition}]",
    "{asset:path}+w",
    "{tag:x}",
    "{unknown}",
    "a%all%b",
    "d[%all%]",
    "a{all}",
    "{holds:asset}a",
    "x{hold:step}y",
    "é{hold:asset}",
]
POLICY_ONLY = ["{hold:step}a+b", "{hold:asset}a", "{hold:step}", "{all}daily[*]", "{all}"]


def answers(instance, name, count=3):
    """What the first claims of so many runs came to."""
    found = []
    for number in range(count):
        run = instance.add_run(DagsterRun(job_name="job"))
        # Not left: leaving gives back.
        found.append(InstanceConcurrencyContext(instance, run).__enter__().claim(name, str(number)))
    return found


@pytest.mark.parametrize("before", [True, False], ids=["set on the stock storage", "set here"])
def test_a_limit_holds_whatever_the_name_looks_like(make_home, kind, before):
    home = make_home(kind, stock=before)
    with home.instance() as instance:
        for name in NAMES:
            instance.event_log_storage.set_concurrency_slots(name, 1)
    home.write()
    with home.instance() as instance:
        log = instance.event_log_storage
        assert log.get_concurrency_keys() == set(NAMES)
        assert {pool.name: pool.limit for pool in log.get_pool_limits()} == dict.fromkeys(NAMES, 1)
        for name in NAMES:
            assert (name, answers(instance, name)) == (name, [True, False, False])
            info = log.get_concurrency_info(name)
            assert (info.slot_count, info.active_slot_count, info.pending_step_count) == (1, 1, 2)
        log.set_concurrency_slots("gpu*2", 2)
        assert answers(instance, "gpu*2", 2) == [False, False]  # Behind those who wait.
        assert log.get_concurrency_info("gpu*2").limit == 2


def test_the_default_limit_holds_too(make_home, kind):
    with make_home(kind, concurrency={"pools": {"default_limit": 1}}).instance() as instance:
        log = instance.event_log_storage
        for name in NAMES:
            assert (name, answers(instance, name)) == (name, [True, False, False])
            info = log.get_concurrency_info(name)
            assert (info.limit, info.using_default_limit) == (1, True)
        by_default = {pool.name for pool in log.get_pool_limits() if pool.from_default}
        assert by_default == log.get_concurrency_keys() == set(NAMES)


def test_the_run_queue_counts_and_blocks_by_them(make_home, kind):
    with make_home(kind, concurrency={"pools": {"default_limit": 1}}).instance() as instance:
        log = instance.event_log_storage
        for name in NAMES:
            asked = RunOpConcurrency(
                root_key_counts={name: 1}, has_unconstrained_root_nodes=False, all_pools={name}
            )
            first, second = (
                instance.add_run(DagsterRun(job_name="job", run_op_concurrency=asked))
                for _ in range(2)
            )
            assert first.run_op_concurrency == asked
            assert not blocked(instance, second)
            assert log.claim_concurrency_slot(name, first.run_id, "step").is_claimed
            assert (name, blocked(instance, second)) == (name, True)
            stored = instance.get_run_by_id(second.run_id)
            assert stored.run_op_concurrency.all_pools == {name}


def blocked(instance, run):
    log = instance.event_log_storage
    known = {"concurrency_keys": log.get_concurrency_keys(), "pool_limits": log.get_pool_limits()}
    asked = signature(GlobalOpConcurrencyLimitsCounter).parameters.keys() & known
    counter = GlobalOpConcurrencyLimitsCounter(
        instance, [run], [], **{name: known[name] for name in asked}
    )
    return counter.is_blocked(run)


@pytest.mark.parametrize("name", POLICY_ONLY)
def test_what_only_a_policy_writes_is_never_a_pool_without_a_limit(make_home, kind, name):
    with make_home(kind).instance() as instance:
        with pytest.raises(ConfigError):
            instance.event_log_storage.set_concurrency_slots(name, 1)
        if name in ("{hold:step}a+b", "{hold:asset}a"):
            return  # An expression, of pools that have no limit here.
        run = DagsterRun(job_name="job")
        with pytest.raises(ConfigError), InstanceConcurrencyContext(instance, run) as context:
            context.claim(name, "step")
        asked = RunOpConcurrency(
            root_key_counts={name: 1}, has_unconstrained_root_nodes=False, all_pools={name}
        )
        with pytest.raises(ConfigError):
            instance.add_run(DagsterRun(job_name="job", run_op_concurrency=asked))


def test_the_engine_is_not_switched_on_over_the_limit_of_such_a_name(make_home, kind):
    home = make_home(kind, stock=True)
    with home.instance() as instance:
        instance.event_log_storage.set_concurrency_slots("{all}daily[*]", 1)
        instance.event_log_storage.set_concurrency_slots("{hold:step}a+b", 1)
    before = (home.path / "dagster.yaml").read_text()
    enable = home.start("lifeguard", "engine", "enable", "--yes")
    assert enable.wait() == 2, enable.output()
    assert "{all}daily[*] and {hold:step}a+b" in " ".join(enable.output().split())
    assert (home.path / "dagster.yaml").read_text() == before
    (home.path / "lifeguard.yaml").write_text("pools: {}\n")
    home.run("lifeguard", "apply", "--prune", "--yes", "{all}daily[*]", "{hold:step}a+b")
    home.run("lifeguard", "engine", "enable", "--yes")


def test_a_policy_keeps_such_a_pool_that_an_asset_declares(make_home, kind):
    @dg.asset(op_tags={"dagster/concurrency_key": "etl+load"})  # As Dagster 1.10 accepts it.
    def own(): ...

    @dg.asset
    def given(): ...

    policy = Policy(engine="lifeguard", rules=[Rule(assets="*", pools=["{asset}", "w*2"])])
    defs = policy.apply(dg.Definitions([own, given]))
    job = defs.get_repository_def().get_job("__ASSET_JOB")
    with make_home(kind, concurrency={"pools": {"default_limit": 1}}).instance() as instance:
        log = instance.event_log_storage
        run = instance.create_run_for_job(job, execution_plan=create_execution_plan(job))
        assert run.run_op_concurrency.all_pools == {"etl+load", "given", "w"}
        log.set_concurrency_slots("etl+load", 1)
        log.set_concurrency_slots("w", 2)
        assert dg.materialize(defs.assets, instance=instance).success
        granted = {(e.pool, e.slots) for e in ledger(instance) if e.kind == "granted"}
        assert granted == {("etl+load", 1), ("given", 1), ("w", 2)}


def ledger(instance):
    return instance.event_log_storage.lifeguard.engine.store.ledger()


def test_slots_inside_take_the_pool_of_that_name_where_it_has_a_limit(make_home, kind):
    with make_home(kind, concurrency={"pools": {"default_limit": 5}}).instance() as instance:
        log = instance.event_log_storage
        log.set_concurrency_slots("etl+load", 1)
        client = LifeguardClient(instance)
        with client.slots("etl+load"):
            assert log.get_concurrency_keys() == {"etl+load"}
            with pytest.raises(DeadlockError), client.slots("etl+load", timeout=0):
                pass
        with client.slots("etl+other"):
            assert log.get_concurrency_keys() == {"etl+load", "etl", "other"}


def test_the_commands_take_them_as_names(make_home):
    home = make_home("sqlite")
    home.run("dagster", "instance", "concurrency", "set", "etl+load", "1")
    home.run("dagster", "instance", "concurrency", "set", "{asset}", "2")
    (home.path / "lifeguard.yaml").write_text("pools: {x+y: 3, 'daily[{partition}]': 4}\n")
    home.run("lifeguard", "apply", "--yes")
    with home.instance() as instance:
        assert answers(instance, "etl+load", 2) == [True, False]
    shown = json.loads(home.run("lifeguard", "status", "--json"))["pools"]
    assert {pool["pool"]: pool["limit"] for pool in shown} == {
        "etl+load": 1,
        "{asset}": 2,
        "x+y": 3,
        "daily[{partition}]": 4,
    }
    assert "etl+load" in home.run("lifeguard", "status", "etl+load")
    home.run("lifeguard", "pull", "--yes")
    home.run("lifeguard", "plan", "--check", "--prune")
