"""An asset that keeps every other thread of its process from running, as a C extension may."""

import ctypes
import os

import dagster as dg
from deployed import CONTROL, EXECUTORS, _begin, _wait_to_go, second


@dg.asset(pool="orders")
def greedy(context: dg.AssetExecutionContext) -> None:
    pipe = CONTROL / "greedy.pipe"
    os.mkfifo(pipe)
    _begin("greedy", context.run.run_id)
    # PyDLL calls with the interpreter lock in hand: until somebody opens the other end.
    ctypes.PyDLL(None).open(bytes(pipe), os.O_RDONLY)
    _wait_to_go("greedy")


defs = dg.Definitions(
    assets=[greedy, second], executor=EXECUTORS[os.environ.get("EXECUTOR", "in_process")]
)
