"""What runs execute while their deployment is changed: assets of two pools, that leave marks.

``orders_1`` is brief, as is each whose name has a number. ``warehouse_long_2`` executes until a test
lets it go.
"""

import os
import time
from pathlib import Path

import dagster as dg
from dagster._core.execution.plan import instance_concurrency_context
from marks import WORK_SECONDS, executing

from dagster_lifeguard import fence
from dagster_lifeguard.errors import NoFenceError

CONTROL = Path(os.environ.get("CONTROL", "."))
POOLS = {"orders": 1, "warehouse": 3}
COUNT = 30

# On Dagster's own storage a step looks for its slot once a second, and not ever more rarely.
instance_concurrency_context.MAX_CONCURRENCY_CLAIM_BLOCKED_INTERVAL = 1


def _fence(context: dg.AssetExecutionContext) -> int:
    try:
        return fence(context)
    except NoFenceError:
        return 0  # On Dagster's own storage there are none.


def _asset(pool: str, name: str) -> dg.AssetsDefinition:
    @dg.asset(name=name, pool=pool)
    def asset(context: dg.AssetExecutionContext) -> None:
        with executing(name, _fence(context)) as work:
            for _ in range(10):
                work()
                time.sleep(WORK_SECONDS)
            while "long" in name and not (CONTROL / f"{name}.go").exists():
                work()
                time.sleep(WORK_SECONDS)

    return asset


defs = dg.Definitions(
    assets=[
        *(_asset(pool, f"{pool}_{number}") for pool in POOLS for number in range(COUNT)),
        *(_asset(pool, f"{pool}_long_{number}") for pool in POOLS for number in range(COUNT)),
    ],
    executor=dg.in_process_executor,
)
