"""Real runs of an op that makes several assets, each with a rule of its own."""

import dagster as dg
import pytest
from dagster._core.execution.api import create_execution_plan
from homes import limit

from dagster_lifeguard import Policy, Rule
from dagster_lifeguard.compat.plans import PLANS_LIST_OTHER_CHECKS
from dagster_lifeguard.compat.submissions import planned_steps
from dagster_lifeguard.engine.rules.duplicates import on_conflict_of

STAGING, MARTS = dg.AssetKey("a_staging"), dg.AssetKey("b_marts")
OF_MARTS = dg.AssetCheckKey(MARTS, "of_marts")


@dg.multi_asset(
    specs=[
        dg.AssetSpec(STAGING, group_name="staging", skippable=True),
        dg.AssetSpec(MARTS, group_name="marts", skippable=True),
    ],
    check_specs=[dg.AssetCheckSpec("of_marts", asset=MARTS)],
    can_subset=True,
)
def models(context):
    for key in context.selected_asset_keys:
        yield dg.MaterializeResult(asset_key=key)
    for check in context.selected_asset_check_keys:
        yield dg.AssetCheckResult(asset_key=check.asset_key, check_name=check.name, passed=True)


defs = Policy(
    engine="lifeguard",
    rules=[
        Rule(assets="group:marts", pools=["{asset}", "warehouse*2"], on_conflict="skip_new"),
        Rule(assets="*", pools=["{asset}"]),
    ],
).apply(dg.Definitions(assets=[models]))
JOB = defs.get_repository_def().get_job("__ASSET_JOB")

SELECTIONS = {
    "staging": ({STAGING}, set(), {"a_staging": 1}),
    "marts": ({MARTS}, set(), {"b_marts": 1, "warehouse": 2}),
    "both": ({STAGING, MARTS}, set(), {"a_staging": 1, "b_marts": 1, "warehouse": 2}),
    "a check alone": (set(), {OF_MARTS}, {"b_marts": 1, "warehouse": 2}),
    "a check of another": ({STAGING}, {OF_MARTS}, {"a_staging": 1, "b_marts": 1, "warehouse": 2}),
}
if PLANS_LIST_OTHER_CHECKS:  # Then the run says which it selects, and one made as here does not.
    del SELECTIONS["a check alone"], SELECTIONS["a check of another"]
SELECTED = pytest.mark.parametrize(
    ("assets", "checks", "slots"), SELECTIONS.values(), ids=SELECTIONS.keys()
)


def stored(instance, assets, checks) -> dg.DagsterRun:
    part = JOB.get_subset(asset_selection=assets, asset_check_selection=checks)
    plan = create_execution_plan(part)
    return instance.create_run_for_job(
        part,
        execution_plan=plan,
        asset_selection=frozenset(assets),
    )


@pytest.fixture
def home(make_home, kind):
    home = make_home(kind, concurrency={"pools": {"default_limit": 1}})
    limit(home, 2, "warehouse")
    return home


@SELECTED
def test_a_run_takes_the_slots_of_what_it_selects(home, assets, checks, slots):
    with home.instance() as instance:
        run = stored(instance, assets, checks)
        claimed = instance.event_log_storage.claim_concurrency_slot(
            models_pool(), run.run_id, "models"
        )
        assert claimed.is_claimed
        engine = instance.event_log_storage.lifeguard.engine
        held = {
            pool: len(holding.slots[pool])
            for pool in ("a_staging", "b_marts", "warehouse")
            for holding in engine.snapshot(pool).holdings
        }
        assert held == slots
        # The run queue counts the same, at granularity run by the pools of the whole run.
        assert run.run_op_concurrency.all_pools == set(slots)
        assert run.run_op_concurrency.root_key_counts == slots


def models_pool() -> str:
    (assets,) = defs.assets
    return assets.op.pool


@pytest.mark.parametrize(
    ("assets", "granted"),
    [
        ([STAGING], {"a_staging"}),
        ([MARTS], {"b_marts", "warehouse"}),
        ([STAGING, MARTS], {"a_staging", "b_marts", "warehouse"}),
    ],
    ids=["staging", "marts", "both"],
)
def test_dagster_asks_for_them(home, assets, granted):
    with home.instance() as instance:
        selection = dg.AssetSelection.assets(*assets).without_checks()
        assert dg.materialize(list(defs.assets), instance=instance, selection=selection).success
        ledger = instance.event_log_storage.lifeguard.engine.store.ledger()
        assert {entry.pool for entry in ledger if entry.kind.value == "granted"} == granted


@pytest.mark.parametrize(
    ("assets", "answer"),
    [({STAGING}, "queue"), ({MARTS}, "skip_new"), ({STAGING, MARTS}, "queue")],
)
def test_a_run_is_dropped_by_the_rules_of_what_it_selects(home, assets, answer):
    with home.instance() as instance:
        steps = planned_steps(instance, stored(instance, assets, set()))
        assert on_conflict_of(steps) == answer
