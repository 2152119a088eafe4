"""Assets, and a script, that hold slots inside, and that a test steers."""

import asyncio
import os
import sys

import dagster as dg
from deployed import CONTROL, EXECUTORS, _begin, _wait_to_go

from dagster_lifeguard import LifeguardClient, slots
from dagster_lifeguard.errors import DeadlockError


@dg.asset
def calling(context: dg.AssetExecutionContext) -> None:
    with slots(context, "api") as found:
        CONTROL.joinpath("calling.key").write_text(found.key.step_key)
        _begin("calling", context.run.run_id)
        _wait_to_go("calling")


@dg.asset
def calling_many_times(context: dg.AssetExecutionContext) -> None:
    async def call(number: int) -> int:
        async with slots(context, "api", timeout=120):
            return number

    async def calls() -> list[int]:
        return await asyncio.gather(*(call(number) for number in range(8)))

    assert asyncio.run(calls()) == list(range(8))


@dg.asset
def hasty(context: dg.AssetExecutionContext) -> None:
    with slots(context, "api", timeout=0):
        pass


def crossing(name: str, own: str, other: str) -> dg.AssetsDefinition:
    @dg.asset(name=name, pool=own)
    def cross(context: dg.AssetExecutionContext) -> None:
        _begin(name, context.run.run_id)
        _wait_to_go(name)
        try:
            with slots(context, other):
                CONTROL.joinpath(f"{name}.outcome").write_text("let in")
        except DeadlockError as error:
            CONTROL.joinpath(f"{name}.outcome").write_text(str(error))
            raise

    return cross


defs = dg.Definitions(
    assets=[
        calling,
        calling_many_times,
        hasty,
        crossing("north", "orders", "revenue"),
        crossing("south", "revenue", "orders"),
    ],
    executor=EXECUTORS[os.environ.get("EXECUTOR", "in_process")],
)

if __name__ == "__main__":
    with LifeguardClient.from_home() as client, client.slots("api") as found:
        _begin("script", found.key.run_id)
        _wait_to_go("script")
    sys.exit()
