"""One ``Definitions`` for each kind of thing that Dagster executes, and some that it does not.

Each function builds its definitions anew, so that nothing is shared between two calls.
"""

import datetime as dt
import inspect
from collections.abc import Callable
from typing import Any

import dagster as dg

Kind = Callable[[], dg.Definitions]


class Greeting(dg.ConfigurableResource):
    text: str = "hello"


class Limit(dg.Config):
    rows: int = 3


class MemoryIOManager(dg.ConfigurableIOManager):
    def handle_output(self, context: dg.OutputContext, obj: object) -> None:
        context.add_output_metadata({"stored": repr(obj)})

    def load_input(self, context: dg.InputContext) -> object:
        return 1


def _later_than_oldest(hook: dg.HookDefinition) -> dict[str, Any]:
    """Arguments that ``@asset`` did not have in the oldest supported Dagster."""
    extra: dict[str, Any] = {}
    if "hooks" in inspect.signature(dg.asset).parameters:
        extra["hooks"] = {hook}
    try:
        policy: Any = dg.FreshnessPolicy
    except ImportError:  # In 1.11 the name is neither the old class nor the new one.
        return extra
    if hasattr(policy, "time_window"):
        extra["freshness_policy"] = policy.time_window(fail_window=dt.timedelta(days=2))
    return extra


def asset() -> dg.Definitions:
    @dg.asset
    def orders() -> int:
        """All orders."""
        return 1

    @dg.asset(key_prefix=["my_group"], group_name="sales")
    def my_asset(orders: int) -> int:
        return orders + 1

    return dg.Definitions(assets=[orders, my_asset])


def asset_with_everything() -> dg.Definitions:
    @dg.success_hook(required_resource_keys=set())
    def told(_context: dg.HookContext) -> None: ...

    @dg.asset(
        key_prefix="raw",
        group_name="ingest",
        owners=["data@example.com", "team:platform"],
        tags={"tier": "gold", "daily": ""},
        kinds={"python", "duckdb"},
        op_tags={"memory": "2g"},
        metadata={
            "dagster/table_name": "db.raw.events",
            "rows": 3,
            "where": dg.MetadataValue.path("/x"),
        },
        code_version="7",
        description="Everything at once.",
        automation_condition=dg.AutomationCondition.eager(),
        backfill_policy=dg.BackfillPolicy.single_run(),
        retry_policy=dg.RetryPolicy(max_retries=2, delay=0.0),
        partitions_def=dg.DailyPartitionsDefinition("2024-01-01", end_date="2024-01-05"),
        io_manager_key="memory",
        check_specs=[dg.AssetCheckSpec("not_empty", asset=dg.AssetKey(["raw", "events"]))],
        deps=[dg.AssetDep("upstream")],
        **_later_than_oldest(told),
    )
    def events(context: dg.AssetExecutionContext, config: Limit, greeting: Greeting) -> Any:
        yield dg.Output(
            config.rows, metadata={"partition": context.partition_key, "text": greeting.text}
        )
        yield dg.AssetCheckResult(passed=True)

    return dg.Definitions(
        assets=[events, dg.AssetSpec("upstream")],
        resources={"greeting": Greeting(), "memory": MemoryIOManager()},
    )


def multi_asset() -> dg.Definitions:
    @dg.multi_asset(
        outs={
            "zebra": dg.AssetOut(key=["animals", "zebra"], group_name="animals"),
            "ant": dg.AssetOut(key=["animals", "ant"], group_name="animals"),
        }
    )
    def animals() -> tuple[int, int]:
        return 1, 2

    return dg.Definitions(assets=[animals])


def multi_asset_specs_subset() -> dg.Definitions:
    """What dbt's decorator makes: specs, dependencies among them, can_subset."""

    @dg.multi_asset(
        name="dbt_models",
        specs=[
            dg.AssetSpec(["dbt", "staging"], kinds={"dbt"}, skippable=True),
            dg.AssetSpec(
                ["dbt", "facts"], deps=[["dbt", "staging"]], kinds={"dbt"}, skippable=True
            ),
            dg.AssetSpec(["dbt", "marts"], deps=[["dbt", "facts"]], kinds={"dbt"}, skippable=True),
        ],
        check_specs=[dg.AssetCheckSpec("unique", asset=["dbt", "facts"])],
        can_subset=True,
        op_tags={"dbt": "yes"},
    )
    def dbt_models(context: dg.AssetExecutionContext) -> Any:
        for key in sorted(context.selected_asset_keys):
            yield dg.MaterializeResult(asset_key=key)
        for check in context.selected_asset_check_keys:
            yield dg.AssetCheckResult(asset_key=check.asset_key, check_name=check.name, passed=True)

    some = dg.define_asset_job("marts_only", selection=dg.AssetSelection.assets(["dbt", "marts"]))
    return dg.Definitions(assets=[dbt_models], jobs=[some])


def specs_from_a_set() -> dg.Definitions:
    """What dbt's decorator really does: its specs come in the order of a set of strings."""
    names = {"users", "orders", "events", "bills"}  # in the loop ruff would make it a tuple
    specs = [dg.AssetSpec(["models", name]) for name in names]

    @dg.multi_asset(specs=specs, can_subset=True)
    def models(context: dg.AssetExecutionContext) -> Any:
        for key in sorted(context.selected_asset_keys):
            yield dg.MaterializeResult(asset_key=key)

    return dg.Definitions(assets=[models])


def graph_asset() -> dg.Definitions:
    @dg.op(config_schema={"n": dg.Field(int, default_value=2)})
    def fetch(context: dg.OpExecutionContext) -> int:
        return int(context.op_config["n"])

    @dg.op(out={"small": dg.Out(int), "large": dg.Out(int)})
    def split(number: int) -> tuple[int, int]:
        return number, number * 10

    @dg.op(retry_policy=dg.RetryPolicy(max_retries=1))
    def add(left: int, right: int) -> int:
        return left + right

    @dg.graph
    def both(number: int) -> int:
        small, large = split(number)
        return add.alias("add_once")(small, large)

    @dg.graph_asset(group_name="graphs", key_prefix="g")
    def total() -> int:
        return add(both(fetch.tag({"speed": "slow"})()), fetch.alias("fetch_again")())

    return dg.Definitions(assets=[total])


def graph_multi_asset() -> dg.Definitions:
    @dg.op
    def number() -> int:
        return 4

    @dg.op
    def double(value: int) -> int:
        return value * 2

    @dg.graph_multi_asset(
        outs={
            "second": dg.AssetOut(key=["pair", "second"]),
            "first": dg.AssetOut(key=["pair", "first"]),
        },
        can_subset=True,
    )
    def pair() -> dict[str, Any]:
        value = number()
        return {"second": double.alias("twice")(value), "first": double(value)}

    return dg.Definitions(assets=[pair])


def graph_with_config_and_mapped_steps() -> dg.Definitions:
    @dg.op(out=dg.DynamicOut(int), config_schema={"upto": int})
    def spread(context: dg.OpExecutionContext) -> Any:
        for index in range(context.op_config["upto"]):
            yield dg.DynamicOutput(index, mapping_key=str(index))

    @dg.op
    def square(number: int) -> int:
        return number * number

    @dg.op
    def total(numbers: list[int]) -> int:
        return sum(numbers)

    @dg.config_mapping(config_schema={"n": dg.Field(int, default_value=3)})
    def upto(config: Any) -> dict[str, Any]:
        return {"spread": {"config": {"upto": config["n"]}}}

    @dg.graph(config=upto)
    def squares() -> Any:
        return total(spread().map(square).collect())

    return dg.Definitions(assets=[dg.AssetsDefinition.from_graph(squares, group_name="maths")])


def shared_ops() -> dg.Definitions:
    """An op that two graph assets and a job of ops use, which Dagster wants to be one object."""

    @dg.op
    def fetch() -> int:
        return 1

    @dg.op
    def store_left(value: int) -> int:
        return value

    @dg.op
    def store_right(value: int) -> int:
        return value

    @dg.graph_asset
    def left() -> int:
        return store_left(fetch())

    @dg.graph_asset
    def right() -> int:
        return store_right(fetch())

    @dg.job(tags={"team": "x"}, resource_defs={"greeting": Greeting(text="job")})
    def by_hand() -> None:
        fetch()

    @dg.schedule(cron_schedule="@daily", job=by_hand)
    def nightly(_context: dg.ScheduleEvaluationContext) -> dict[str, Any]:
        return {}

    @dg.sensor(jobs=[by_hand])
    def on_file(_context: dg.SensorEvaluationContext) -> dg.SkipReason:
        return dg.SkipReason("nothing")

    return dg.Definitions(
        assets=[right, left], jobs=[by_hand], schedules=[nightly], sensors=[on_file]
    )


def from_graph_and_from_op() -> dg.Definitions:
    @dg.op
    def make() -> int:
        return 1

    @dg.op(ins={"made": dg.In(int)}, out={"a": dg.Out(int), "b": dg.Out(int)})
    def divide(made: int) -> tuple[int, int]:
        return made, made

    @dg.graph
    def made() -> int:
        return make()

    first = dg.AssetsDefinition.from_graph(
        made, keys_by_output_name={"result": dg.AssetKey(["first", "made"])}
    )
    second = dg.AssetsDefinition.from_graph(
        made, keys_by_output_name={"result": dg.AssetKey(["second", "made"])}
    )
    parts = dg.AssetsDefinition.from_op(
        divide, keys_by_input_name={"made": dg.AssetKey(["first", "made"])}
    )
    return dg.Definitions(assets=[second, first, parts])


def observable_source_asset() -> dg.Definitions:
    @dg.observable_source_asset(
        group_name="outside",
        metadata={"url": "s3://bucket"},
        description="Seen, not made.",
        op_tags={"cheap": "yes"},
        tags={"tier": "bronze"},
        auto_observe_interval_minutes=30,
    )
    def bucket(greeting: Greeting) -> dg.DataVersion:
        return dg.DataVersion(greeting.text)

    @dg.multi_observable_source_asset(specs=[dg.AssetSpec("s1"), dg.AssetSpec("s2")])
    def several() -> Any:
        yield dg.ObserveResult(asset_key="s1")
        yield dg.ObserveResult(asset_key="s2")

    @dg.asset
    def copy_of_bucket(bucket: object) -> None: ...

    return dg.Definitions(
        assets=[bucket, several, copy_of_bucket],
        resources={"greeting": Greeting(), "io_manager": MemoryIOManager()},
    )


def asset_checks() -> dg.Definitions:
    @dg.asset(check_specs=[dg.AssetCheckSpec("in_op", asset="orders", blocking=True)])
    def orders() -> Any:
        yield dg.Output(1)
        yield dg.AssetCheckResult(check_name="in_op", passed=True)

    @dg.asset_check(asset=orders, description="Alone in its op.")
    def alone() -> dg.AssetCheckResult:
        return dg.AssetCheckResult(passed=True)

    @dg.multi_asset_check(
        specs=[dg.AssetCheckSpec("one", asset="orders"), dg.AssetCheckSpec("two", asset="orders")],
        can_subset=True,
    )
    def several(context: dg.AssetCheckExecutionContext) -> Any:
        for check in sorted(context.selected_asset_check_keys):
            yield dg.AssetCheckResult(asset_key=check.asset_key, check_name=check.name, passed=True)

    return dg.Definitions(assets=[orders], asset_checks=[alone, several])


def external() -> dg.Definitions:
    return dg.Definitions(
        assets=[
            dg.AssetSpec(["lake", "events"], group_name="lake"),
            dg.AssetSpec("users", partitions_def=dg.StaticPartitionsDefinition(["a", "b"])),
            dg.SourceAsset("legacy", description="A table of old."),
        ]
    )


def partitions() -> dg.Definitions:
    both = dg.MultiPartitionsDefinition(
        {
            "day": dg.DailyPartitionsDefinition("2024-01-01", end_date="2024-01-03"),
            "place": dg.StaticPartitionsDefinition(["north", "south"]),
        }
    )

    @dg.asset(partitions_def=dg.StaticPartitionsDefinition(["a", "b"]))
    def letters(context: dg.AssetExecutionContext) -> str:
        return context.partition_key

    @dg.asset(partitions_def=both, backfill_policy=dg.BackfillPolicy.multi_run(2))
    def weather() -> None: ...

    @dg.asset(partitions_def=dg.DynamicPartitionsDefinition(name="files"))
    def files() -> None: ...

    return dg.Definitions(assets=[letters, weather, files])


def automations() -> dg.Definitions:
    """Schedules and sensors that carry their assets, in and out of ``Definitions.assets``."""

    @dg.asset
    def listed() -> None: ...

    @dg.asset
    def only_in_schedule() -> None: ...

    @dg.asset
    def only_in_sensor(listed: None) -> None: ...

    scheduled = dg.ScheduleDefinition(
        name="scheduled", target=[listed, only_in_schedule], cron_schedule="0 3 * * *"
    )

    @dg.sensor(target=[only_in_sensor, listed])
    def sensed(_context: dg.SensorEvaluationContext) -> dg.SkipReason:
        return dg.SkipReason("nothing")

    @dg.asset_sensor(asset_key=dg.AssetKey("listed"), job_name="listed_job")
    def follows(_context: Any, _event: Any) -> dg.SkipReason:
        return dg.SkipReason("nothing")

    automatic = dg.AutomationConditionSensorDefinition("automatic", target="*")
    job = dg.define_asset_job(
        "listed_job", selection="listed", tags={"a": "b"}, config={"loggers": {}}
    )
    daily = dg.build_schedule_from_partitioned_job(
        dg.define_asset_job(
            "partitioned_job",
            selection=dg.AssetSelection.assets("parted"),
        )
    )

    @dg.asset(partitions_def=dg.DailyPartitionsDefinition("2024-01-01"))
    def parted() -> None: ...

    return dg.Definitions(
        assets=[listed, parted],
        jobs=[job],
        schedules=[scheduled, daily],
        sensors=[sensed, follows, automatic],
    )


def surroundings() -> dg.Definitions:
    """What stands beside assets: resources, loggers, executor, jobs of ops, metadata."""

    @dg.asset
    def thing(greeting: Greeting) -> str:
        return greeting.text

    @dg.op
    def say() -> None: ...

    @dg.job(op_retry_policy=dg.RetryPolicy(max_retries=1))
    def saying() -> None:
        say()

    @dg.logger(config_schema={})
    def quiet(_context: dg.InitLoggerContext) -> Any:
        import logging

        return logging.getLogger("quiet")

    return dg.Definitions(
        assets=[thing],
        jobs=[saying, dg.define_asset_job("things", executor_def=dg.in_process_executor)],
        resources={"greeting": Greeting(text="here")},
        loggers={"quiet": quiet},
        executor=dg.in_process_executor,
        metadata={"team": "platform"},
    )


def merged() -> dg.Definitions:
    return dg.Definitions.merge(
        asset(),
        graph_multi_asset(),
        surroundings(),
        dg.Definitions(assets=[dg.AssetSpec("x")]),
    )


def cycle_through_subsets() -> dg.Definitions:
    """Two multi assets that need each other, which Dagster resolves by taking subsets of them."""

    @dg.multi_asset(
        specs=[dg.AssetSpec("a1", skippable=True), dg.AssetSpec("a2", deps=["b1"], skippable=True)],
        can_subset=True,
    )
    def a(context: dg.AssetExecutionContext) -> Any:
        for key in sorted(context.selected_asset_keys):
            yield dg.MaterializeResult(asset_key=key)

    @dg.asset(deps=["a1"])
    def b1() -> None: ...

    return dg.Definitions(assets=[a, b1])


def subset_of_graph() -> dg.Definitions:
    """Definitions may hold a subset of a graph asset, with a graph that is itself a subset."""
    (pair,) = graph_multi_asset().assets or ()
    assert isinstance(pair, dg.AssetsDefinition)
    return dg.Definitions(assets=[pair.subset_for({dg.AssetKey(["pair", "first"])}, None)])


KINDS: dict[str, Kind] = {
    name: function
    for name, function in list(globals().items())
    if inspect.isfunction(function)
    and function.__module__ == __name__
    and inspect.signature(function).return_annotation is dg.Definitions
}

if dg.__version__.startswith("1.10."):
    # Dagster 1.10 cannot serve such definitions itself, with or without a policy.
    del KINDS["subset_of_graph"]
