"""Assets that begin and end when a test wants them to."""

import os
import time
from pathlib import Path

import dagster as dg
from step_processes import step_delegating_executor

from dagster_lifeguard.storage import steps

CONTROL = Path(os.environ.get("CONTROL", "."))
POOL = os.environ.get("POOL", "orders")


if "GRACE_SECONDS" in os.environ:
    steps.GRACE_SECONDS = float(os.environ["GRACE_SECONDS"])


def _be_steered(name: str, run_id: str) -> None:
    _begin(name, run_id)
    _wait_to_go(name)


def _begin(name: str, run_id: str) -> None:
    beginning = CONTROL / f"{name}.{run_id}.started"
    beginning.with_suffix(".tmp").write_text(str(os.getpid()))
    beginning.with_suffix(".tmp").rename(beginning)


def _wait_to_go(name: str) -> None:
    deadline = time.monotonic() + 600
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


@dg.asset(pool="orders")
def deaf(context: dg.AssetExecutionContext) -> None:
    """Does not end when it is interrupted."""
    _begin("deaf", context.run.run_id)
    while True:
        try:
            return _wait_to_go("deaf")
        except (KeyboardInterrupt, dg.DagsterExecutionInterruptedError):
            context.log.info("interrupted, and going on")


@dg.asset
def free_one() -> None: ...


def _link(name: str, before: list[str]) -> dg.AssetsDefinition:
    @dg.asset(name=name, deps=before)
    def link() -> None: ...

    return link


chain = [_link(f"link{n}", [f"link{n - 1}"] if n else []) for n in range(5)]


@dg.sensor(job_name="held_job")
def storage_here(context: dg.SensorEvaluationContext) -> dg.SkipReason:
    """Tells which storage a code server has."""
    return dg.SkipReason(type(context.instance.event_log_storage).__name__)


EXECUTORS = {
    "in_process": dg.in_process_executor,
    "multiprocess": dg.multiprocess_executor,
    "step_delegating": step_delegating_executor,
}

defs = dg.Definitions(
    assets=[held, second, quick, stubborn, deaf, free_one, *chain],
    jobs=[
        dg.define_asset_job("held_job", [held]),
        dg.define_asset_job("second_job", [second]),
    ],
    sensors=[storage_here],
    executor=EXECUTORS[os.environ.get("EXECUTOR", "in_process")],
)
