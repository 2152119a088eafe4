"""Assets whose pools are known when a step claims, steered by a test."""

import os

import dagster as dg
from deployed import CONTROL, EXECUTORS, _be_steered, _begin

from dagster_lifeguard import Policy, Rule, fence, slots
from dagster_lifeguard.errors import DeadlockError


@dg.multi_asset(
    specs=[dg.AssetSpec(["model", name], skippable=True) for name in "abc"], can_subset=True
)
def models(context: dg.AssetExecutionContext):
    _be_steered("models", context.run.run_id)
    for key in context.selected_asset_keys:
        yield dg.MaterializeResult(asset_key=key)


@dg.asset(
    partitions_def=dg.DailyPartitionsDefinition("2024-01-01", end_date="2024-04-01"),
    backfill_policy=dg.BackfillPolicy.single_run(),
)
def daily(context: dg.AssetExecutionContext) -> None:
    _be_steered("daily", context.run.run_id)


@dg.op
def first(context: dg.OpExecutionContext) -> int:
    _be_steered("first", context.run_id)
    if os.environ.get("FAIL"):
        raise ValueError("as asked")
    return 1


@dg.op(retry_policy=dg.RetryPolicy(max_retries=1))
def second(context: dg.OpExecutionContext, number: int) -> int:
    if context.retry_number == 0:
        raise ValueError("not yet")
    _begin(f"fence{fence(context)}", context.run_id)
    _be_steered("second", context.run_id)
    return number


@dg.graph_asset
def graph() -> int:
    return second(first())


@dg.op
def charge(context: dg.OpExecutionContext, number: int) -> int:
    with slots(context, "api") as found:
        CONTROL.joinpath("charge.key").write_text(found.key.step_key)
        _be_steered("charge", context.run_id)
    try:
        with slots(context, "charges"):
            raise AssertionError("let in")
    except DeadlockError as error:
        CONTROL.joinpath("charge.outcome").write_text(error.message)
    return number


@dg.op
def prepare() -> int:
    return 1


@dg.graph_asset
def charges() -> int:
    return charge(prepare())


policy = Policy(
    engine="lifeguard",
    naming="path",
    rules=[
        Rule(assets="key:graph or key:charges", pools=["{asset}"], hold="asset"),
        Rule(assets="key:daily", pools=["{asset}[{partition}]"]),
        Rule(assets="*", pools=["{asset}", "warehouse*2"]),
    ],
)
defs = policy.apply(
    dg.Definitions(
        assets=[models, daily, graph, charges],
        executor=EXECUTORS[os.environ.get("EXECUTOR", "in_process")],
    )
)
