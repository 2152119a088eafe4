"""An asset whose code forks while other threads of its process are busy with Dagster."""

import os
import threading
import time

import dagster as dg
from deployed import CONTROL, EXECUTORS

from dagster_lifeguard import slots

FORKS = int(os.environ.get("FORKS", "20"))
PATIENT_SECONDS = 120


def _child(context: dg.AssetExecutionContext, number: int) -> None:
    """Hold the one slot, and leave marks that tell whether anybody else did."""
    with slots(context, "api", timeout=PATIENT_SECONDS) as found:
        mark = CONTROL / "inside"
        descriptor = os.open(mark, os.O_CREAT | os.O_EXCL)
        time.sleep(0.002)
        os.close(descriptor)
        mark.unlink()
        CONTROL.joinpath(f"child{number}.{context.run.run_id}").write_text(str(found.fence))


@dg.asset(pool="orders")
def forking(context: dg.AssetExecutionContext) -> None:
    done = threading.Event()

    def be_busy() -> None:
        while not done.is_set():
            context.instance.get_run_by_id(context.run.run_id)
            context.instance.event_log_storage.get_concurrency_info("orders")
            context.instance.get_latest_materialization_event(dg.AssetKey("forking"))

    threads = [threading.Thread(target=be_busy) for _ in range(2)]
    for thread in threads:
        thread.start()
    pids = []
    with slots(context, "outer"):
        for number in range(FORKS):
            pid = os.fork()
            if pid == 0:
                status = 1
                try:
                    _child(context, number)
                    status = 0
                finally:
                    os._exit(status)
            pids.append(pid)
        statuses = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
    done.set()
    for thread in threads:
        thread.join()
    assert statuses == [0] * FORKS


@dg.asset(pool="orders")
def leaving(context: dg.AssetExecutionContext) -> None:
    """A child that runs on out of the block of its parent gives nothing of its parent's back."""
    with slots(context, "api") as found:
        pid = os.fork()
        if pid == 0:
            try:
                found.__exit__(None, None, None)
            finally:
                os._exit(0)
        os.waitpid(pid, 0)
        engine = context.instance.event_log_storage.lifeguard.engine
        assert [h.fence for h in engine.snapshot("api").holdings] == [found.fence]


defs = dg.Definitions(
    assets=[forking, leaving],
    executor=dg.multiprocess_executor.configured(
        {"start_method": {os.environ["START_METHOD"]: {}}}, name="by_start_method"
    )
    if "START_METHOD" in os.environ
    else EXECUTORS["in_process"],
)
