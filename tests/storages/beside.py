"""An asset that asks a database of its own for slots, and ends when a test wants it to."""

import os
from functools import cache

import dagster as dg
from deployed import _be_steered

from dagster_lifeguard import LifeguardClient, slots


@cache
def database() -> LifeguardClient:
    return LifeguardClient.from_url(os.environ["LIFEGUARD_DATABASE"], default_limit=1)


@dg.asset
def asks(context: dg.AssetExecutionContext) -> None:
    with slots(context, "stripe_api", client=database()):
        _be_steered("asks", context.run.run_id)


defs = dg.Definitions(assets=[asks], executor=dg.in_process_executor)
