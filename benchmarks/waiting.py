"""Measure what a waiting step costs and how soon it gets a freed slot.

Processor: a real run, in a process of its own, with one step whose pool is full, from half a
second after it began to wait; 100 % is one core. Handoff: from the moment before one process frees
the slot to the moment after Dagster's own claim loop in another process was given it; the slot is
freed after a random time of waiting. The first handoff opens connections and is not counted.
"""

from __future__ import annotations

import os
import random
import threading
import time
from typing import TYPE_CHECKING, Any

import dagster as dg
from dagster._core.execution.plan.instance_concurrency_context import InstanceConcurrencyContext
from dagster._core.storage.dagster_run import DagsterRun

from dagster_lifeguard.insight.durations import quantile
from engine import WAITER_REASON
from instances import DATABASES, places, processes
from measures import Measure

if TYPE_CHECKING:
    from collections.abc import Iterator

    from instances import Place

POOL = "orders"
SETTLE_SECONDS = 0.5
WAIT_SECONDS = {"stock": (0.2, 2.0), "lifeguard": (0.2, 0.6)}
"""How long a step waits at least and at most before the slot is freed. Stock's waiting grows with
the time waited; ours looks less often from half a second on."""
LOST_SECONDS = 300.0
WAITER_PERCENT = 2.0
HANDOFF_MS = 10.0


@dg.asset(pool=POOL)
def orders() -> None: ...


def wait_in_a_run(place: Place, pipe: Any, seconds: float) -> None:
    """Execute a run that is blocked for so long; send the share of a core it took meanwhile."""
    os.environ["DAGSTER_DISABLE_TELEMETRY"] = "1"

    def measure() -> None:
        while not blocked.is_set():
            time.sleep(0.05)
        time.sleep(SETTLE_SECONDS)
        used, begun = time.process_time(), time.monotonic()
        time.sleep(seconds)
        pipe.send((time.process_time() - used) / (time.monotonic() - begun))

    blocked = threading.Event()
    with place.instance() as instance:
        claim = instance.event_log_storage.claim_concurrency_slot

        def claim_and_tell(*arguments: Any) -> Any:
            blocked.set()
            return claim(*arguments)

        instance.event_log_storage.claim_concurrency_slot = claim_and_tell  # type: ignore[method-assign, assignment]
        threading.Thread(target=measure).start()
        dg.materialize([orders], instance=instance)


def wait_for_handoffs(place: Place, pipe: Any, count: int) -> None:
    """Claim as Dagster's executors do, without a pause, and send when the claim was granted."""
    with place.instance() as instance:
        for _ in range(count):
            with InstanceConcurrencyContext(instance, DagsterRun(job_name="job")) as context:
                assert not context.claim(POOL, "step")
                pipe.send("waiting")
                while not context.claim(POOL, "step"):
                    pass
                pipe.send(time.time())
                context.free_step("step")
                # Only now may the other claim: stock loses a wake-up when the two coincide, and
                # would then wait for ever.
                pipe.send("freed")
            pipe.recv()


def processor_share(place: Place, seconds: float) -> float:
    with place.instance() as instance:
        log = instance.event_log_storage
        log.set_concurrency_slots(POOL, 1)
        assert log.claim_concurrency_slot(POOL, "holder", "step").is_claimed
        pipe, process = _spawn(wait_in_a_run, place, seconds)
        share: float = pipe.recv()
        log.free_concurrency_slots_for_run("holder")
        process.join(LOST_SECONDS)
    return share


def handoffs(place: Place, count: int) -> list[float]:
    found = []
    with place.instance() as instance:
        log = instance.event_log_storage
        log.set_concurrency_slots(POOL, 1)
        assert log.claim_concurrency_slot(POOL, "holder0", "step").is_claimed
        pipe, process = _spawn(wait_for_handoffs, place, count)
        for number in range(count):
            assert pipe.recv() == "waiting"
            time.sleep(random.uniform(*WAIT_SECONDS[place.storage]))
            freed_at = time.time()
            log.free_concurrency_slot_for_step(f"holder{number}", "step")
            assert pipe.poll(LOST_SECONDS), f"{place.storage}: freed, and never handed over"
            found.append(pipe.recv() - freed_at)
            assert pipe.recv() == "freed"
            assert log.claim_concurrency_slot(POOL, f"holder{number + 1}", "step").is_claimed
            pipe.send("again")
        process.join(LOST_SECONDS)
    return found[1:]


def _spawn(job: Any, place: Place, *arguments: object) -> tuple[Any, Any]:
    context = processes()
    ours, theirs = context.Pipe()
    process = context.Process(target=job, args=(place, theirs, *arguments), daemon=True)
    process.start()
    return ours, process


def measures(*, full: bool) -> Iterator[Measure]:
    """The processor's share and the handoff, on each database."""
    seconds, counts = (20.0, (40, 20)) if full else (3.0, (16, 4))
    with places() as homes:
        for database in DATABASES:
            stock, ours = (homes[database, storage] for storage in ("stock", "lifeguard"))
            name = f"{database}: a run that waits"
            shares = [100 * processor_share(place, seconds) for place in (ours, stock)]
            yield Measure(
                f"{name}, share of a core", shares[0], "%", shares[1], WAITER_PERCENT,
                reason=WAITER_REASON[database],
            )  # fmt: skip
            taken = [
                sorted(1000 * seconds for seconds in handoffs(place, count))
                for place, count in zip((ours, stock), counts, strict=True)
            ]
            for text, rank, goal in (("p50", 0.5, None), ("p95", 0.95, HANDOFF_MS)):
                mine, theirs = (quantile(times, rank) for times in taken)
                yield Measure(f"{name}, freed to granted, {text}", mine, "ms", theirs, goal)
