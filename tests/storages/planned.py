"""Assets whose pools are known when a step claims, steered by a test."""

import os
import sys

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


@dg.op(out=dg.DynamicOut())
def fan():
    for key in "ab":
        yield dg.DynamicOutput(key, mapping_key=key)


@dg.op
def each(context: dg.OpExecutionContext, key: str) -> str:
    _begin(f"each_{key}", context.run_id)
    if key == "b" and not CONTROL.joinpath("mend.go").exists():
        raise ValueError("as asked")
    return key


@dg.op
def more(key: str) -> str:
    return key


@dg.op
def collect(keys: list[str]) -> int:
    return len(keys)


@dg.graph_asset
def mapped() -> int:
    return collect(fan().map(each).map(more).collect())


@dg.asset(op_tags={"dagster/priority": "-1"})
def beside(context: dg.AssetExecutionContext) -> None:
    """Asks for what ``mapped`` holds, in the same run, and does not wait for it."""
    _begin("beside", context.run.run_id)


@dg.asset
def raw(context: dg.AssetExecutionContext) -> int:
    _be_steered("raw", context.run.run_id)
    return 1


@dg.asset
def source(context: dg.AssetExecutionContext, raw: int) -> int:
    """Asks for what ``fed`` holds, in the same run, before the last step of it."""
    _begin("source", context.run.run_id)
    return raw


@dg.op
def early(context: dg.OpExecutionContext) -> int:
    _begin("early", context.run_id)
    return 1


@dg.op
def load(number: int, source: int) -> int:
    return number + source


@dg.graph_asset(ins={"source": dg.AssetIn("source")})
def fed(source: int) -> int:
    return load(early(), source)


policy = Policy(
    engine="lifeguard",
    naming="path",
    rules=[
        Rule(assets="key:graph or key:charges or key:mapped", pools=["{asset}"], hold="asset"),
        Rule(assets="key:beside", pools=["mapped"]),
        Rule(assets="key:fed", pools=["fed"], hold="asset"),
        Rule(assets="key:source", pools=["fed"]),
        Rule(assets="key:raw", pools=[]),
        Rule(assets="key:daily", pools=["{asset}[{partition}]"]),
        Rule(assets="*", pools=["{asset}", "warehouse*2"]),
    ],
)
defs = policy.apply(
    dg.Definitions(
        assets=[models, daily, graph, charges, mapped, beside, raw, source, fed],
        jobs=[dg.define_asset_job("mapped_job", [mapped, beside])],
        executor=EXECUTORS[os.environ.get("EXECUTOR", "in_process")],
    )
)


def mapped_job() -> dg.JobDefinition:
    return defs.get_repository_def().get_job("mapped_job")


def execute(failed: str | None) -> None:
    """Executes the job, or a failed run of it again from its failure."""
    with dg.DagsterInstance.get() as instance:
        again = None if failed is None else dg.ReexecutionOptions.from_failure(failed, instance)
        job = dg.reconstructable(mapped_job)
        result = dg.execute_job(job, instance, reexecution_options=again)
        sys.exit(not result.success)


if __name__ == "__main__":
    import planned

    planned.execute(*sys.argv[1:] or [None])
