"""Assets for the documented lifeguard.yaml, which lies beside the control files of the test."""

import asyncio
import os
import time
from pathlib import Path

import dagster as dg
from deployed import CONTROL, _be_steered, _wait_to_go

from dagster_lifeguard import Policy, slots


def steered(name: str, **arguments) -> dg.AssetsDefinition:
    @dg.asset(name=name, **arguments)
    def asset(context: dg.AssetExecutionContext) -> None:
        _be_steered(name, context.run.run_id)

    return asset


@dg.asset(group_name="scratch")
def calls(context: dg.AssetExecutionContext) -> None:
    async def call(number: int) -> None:
        async with slots(context, "stripe_api"):
            begun = time.time()
            record = CONTROL / f"call.{context.run.run_id}.{number}"
            record.touch()
            await asyncio.to_thread(_wait_to_go, "calls")
            record.write_text(f"{begun} {time.time()}")

    async def all_calls() -> None:
        await asyncio.gather(*map(call, range(3)))

    asyncio.run(all_calls())


models = [steered(f"model{n}", kinds={"snowflake"}) for n in range(5)]
days = steered(
    "days", tags={"daily": ""}, partitions_def=dg.DailyPartitionsDefinition("2024-01-01")
)
notes = steered("notes", group_name="scratch", kinds={"snowflake"})
other = steered("my_asset", key_prefix="my_group")

policy = Policy.from_yaml(Path(os.environ["CONTROL"]) / "lifeguard.yaml")
assets = [calls, *models, days, notes, other]
defs = policy.apply(dg.Definitions(assets=assets, executor=dg.in_process_executor))
