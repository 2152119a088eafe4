"""What the Celery workers on the hosts execute: assets that leave marks, all in one pool."""

import logging
import os
import time
from pathlib import Path

import dagster as dg
from dagster_celery import celery_executor
from marks import WORK_SECONDS, executing

from dagster_lifeguard import fence
from dagster_lifeguard.errors import NoFenceError

CONTROL = Path(os.environ.get("CONTROL", "."))
MOMENT_SECONDS = 0.3
BRIEF = 4
"""How many assets the job ``brief`` has."""


def _fence(context: dg.AssetExecutionContext) -> int:
    try:
        return fence(context)
    except NoFenceError:
        return 0  # On Dagster's own storage there are none.


def _until_go(name: str) -> dg.AssetsDefinition:
    @dg.asset(name=name, pool="orders")
    def asset(context: dg.AssetExecutionContext) -> None:
        with executing(name, _fence(context)) as work:
            while not (CONTROL / f"{name}.go").exists():
                work()
                time.sleep(WORK_SECONDS)

    return asset


def _brief(name: str) -> dg.AssetsDefinition:
    @dg.asset(name=name, pool="orders")
    def asset(context: dg.AssetExecutionContext) -> None:
        with executing(name, _fence(context)) as work:
            until = time.monotonic() + MOMENT_SECONDS
            while time.monotonic() < until:
                work()
                time.sleep(WORK_SECONDS)

    return asset


if "ALWAYS_RETRY" in os.environ:
    # Celery says nowhere else that it asks for a result in vain.
    logging.getLogger("celery").addHandler(logging.FileHandler(os.environ["ALWAYS_RETRY"]))

brief = [_brief(f"brief_{number}") for number in range(BRIEF)]

defs = dg.Definitions(
    assets=[_until_go("first"), _until_go("next"), *brief],
    jobs=[dg.define_asset_job("brief", selection=brief)],
    executor=celery_executor.configured(
        {
            "broker": {"env": "BROKER"},
            "backend": {"env": "BROKER"},
            "config_source": {"result_backend_always_retry": "ALWAYS_RETRY" in os.environ},
        }
    ),
)
