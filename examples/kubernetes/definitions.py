from pathlib import Path

import dagster as dg

from dagster_lifeguard import Policy


@dg.asset
def orders() -> None: ...


@dg.asset(deps=[orders])
def revenue() -> None: ...


defs = Policy.from_yaml(Path(__file__).with_name("lifeguard.yaml")).apply(
    dg.Definitions(assets=[orders, revenue])
)
