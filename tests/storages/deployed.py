"""Assets that begin and end when a test wants them to."""

import os
import time
from pathlib import Path

import dagster as dg

CONTROL = Path(os.environ.get("CONTROL", "."))
POOL = os.environ.get("POOL", "orders")


def _be_steered(name: str, run_id: str) -> None:
    beginning = CONTROL / f"{name}.{run_id}.started"
    beginning.with_suffix(".tmp").write_text(str(os.getpid()))
    beginning.with_suffix(".tmp").rename(beginning)
    deadline = time.monotonic() + 120
    while not (CONTROL / f"{name}.go").exists():
        if time.monotonic() > deadline:
            raise TimeoutError(f"nobody let {name} go")
        time.sleep(0.02)


@dg.asset(pool="orders")
def held(context: dg.AssetExecutionContext) -> None:
    _be_steered("held", context.run.run_id)


@dg.asset(pool="orders")
def second(context: dg.AssetExecutionContext) -> None:
    _be_steered("second", context.run.run_id)


@dg.asset(pool="orders")
def quick() -> None:
    time.sleep(0.3)


@dg.asset(pool="orders", retry_policy=dg.RetryPolicy(max_retries=2))
def stubborn(context: dg.AssetExecutionContext) -> None:
    if context.retry_number < 2:
        raise ValueError("not yet")


@dg.asset
def free_one() -> None: ...


EXECUTORS = {
    "in_process": dg.in_process_executor,
    "multiprocess": dg.multiprocess_executor,
}

defs = dg.Definitions(
    assets=[held, second, quick, stubborn, free_one],
    jobs=[
        dg.define_asset_job("held_job", [held]),
        dg.define_asset_job("second_job", [second]),
    ],
    executor=EXECUTORS[os.environ.get("EXECUTOR", "in_process")],
)
