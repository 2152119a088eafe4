"""A job of many partitions for a backfill, and a daily one: both ask for the same pool."""

import os
import time

import dagster as dg

PARTITIONS = dg.StaticPartitionsDefinition(
    [f"p{n:02}" for n in range(int(os.environ.get("PARTITIONS", "60")))]
)


@dg.asset(pool="warehouse", partitions_def=PARTITIONS)
def history() -> None:
    time.sleep(0.2)


@dg.asset(pool="warehouse")
def report() -> None:
    time.sleep(0.2)


defs = dg.Definitions(
    assets=[history, report],
    jobs=[
        dg.define_asset_job("history_job", [history], partitions_def=PARTITIONS),
        dg.define_asset_job("daily_job", [report]),
    ],
    executor=dg.in_process_executor,
)
