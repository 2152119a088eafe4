"""Assets with partitions and without, under one rule."""

import os

import dagster as dg

from dagster_lifeguard import Policy, Rule

DAYS = dg.DailyPartitionsDefinition("2024-01-01", end_date="2024-04-01")
BOTH = dg.MultiPartitionsDefinition(
    {"region": dg.StaticPartitionsDefinition(["us", "eu"]), "date": DAYS}
)
EXECUTORS = {"in_process": dg.in_process_executor, "multiprocess": dg.multiprocess_executor}


@dg.asset(partitions_def=DAYS, backfill_policy=dg.BackfillPolicy.single_run())
def daily() -> None: ...


@dg.asset(partitions_def=BOTH)
def sales() -> None: ...


@dg.asset
def plain() -> None: ...


policy = Policy(
    engine="lifeguard",
    rules=[
        Rule(assets="key:sales", pools=["{asset}[{partition.region}]", "m{partition.date:%m}"]),
        Rule(assets="*", pools=["{asset}[{partition:%Y-%m}]"]),
    ],
)
defs = policy.apply(
    dg.Definitions(
        assets=[daily, sales, plain],
        executor=EXECUTORS[os.environ.get("EXECUTOR", "in_process")],
    )
)
