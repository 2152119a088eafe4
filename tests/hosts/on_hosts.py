"""What the workers on the hosts execute: an asset, or a script, that leaves marks.

    python on_hosts.py hold NAME            hold the slot until a test lets it go
    python on_hosts.py turns NAME           hold it again and again until a test lets it go

By what is in their environment they are different: with ``TALKS`` an asset writes to Dagster's event
log as it works; with ``BUSY`` work never pauses; with ``HOGS_SECONDS`` it begins with a call of C
that lets no other thread of Python go on for so long.
"""

import ctypes
import os
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path

import dagster as dg
from marks import WORK_SECONDS, executing
from step_processes import step_delegating_executor

from dagster_lifeguard import LifeguardClient, fence
from dagster_lifeguard.errors import LifeguardError
from dagster_lifeguard.storage import steps

CONTROL = Path(os.environ.get("CONTROL", "."))


GO = {name: CONTROL / f"{name}.go" for name in ("first", "next")}

if "GRACE_SECONDS" in os.environ:
    steps.GRACE_SECONDS = float(os.environ["GRACE_SECONDS"])


def hold(name: str, found: int, also: Callable[[], object] = lambda: None) -> None:
    with executing(name, found) as work:
        if "HOGS_SECONDS" in os.environ:
            work()
            ctypes.PyDLL(None).sleep(int(os.environ["HOGS_SECONDS"]))
        while not GO[name].exists():
            work()
            also()
            if "BUSY" in os.environ:
                sum(number * number for number in range(100_000))
            else:
                time.sleep(WORK_SECONDS)


def _holding(name: str) -> dg.AssetsDefinition:
    @dg.asset(name=name, pool="orders")
    def asset(context: dg.AssetExecutionContext) -> None:
        if "TALKS" in os.environ:
            hold(name, fence(context), lambda: context.log.info("working"))
        else:
            hold(name, fence(context))

    return asset


EXECUTORS = {
    "in_process": dg.in_process_executor,
    "multiprocess": dg.multiprocess_executor,
    "step_delegating": step_delegating_executor,
}

defs = dg.Definitions(
    assets=[_holding("first"), _holding("next")],
    executor=EXECUTORS[os.environ.get("EXECUTOR", "in_process")],
)


def take_turns(client: LifeguardClient, name: str) -> None:
    """Execute for a moment under the slot, again and again; a lost lease costs one turn."""
    while not (CONTROL / "turns.go").exists():
        try:
            with client.slots("orders") as slots, executing(name, slots.fence) as work:
                for _ in range(random.randrange(1, 40)):
                    work()
                    time.sleep(WORK_SECONDS)
        except (KeyboardInterrupt, LifeguardError) as error:
            sys.stderr.write(f"{time.monotonic():.2f} {type(error).__name__}: {error}\n")


def main(what: str, name: str) -> None:
    with LifeguardClient.from_home() as client:
        if what == "turns":
            take_turns(client, name)
            return
        with client.slots("orders") as found:
            hold(name, found.fence)


if __name__ == "__main__":
    main(*sys.argv[1:])
