"""Measure a play of a generated week: seconds and memory, without reading a history.

Executions ask at random times of seven days, and hold for exponentially distributed times. Each
play runs in a process of its own, whose largest resident memory is printed with the time of the
play.
"""

from __future__ import annotations

import json
import random
import resource
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

from dagster_lifeguard.engine.rules.model import Demand, TicketKey
from dagster_lifeguard.engine.rules.pool_settings import PoolSettings
from dagster_lifeguard.engine.rules.rate import Rate
from dagster_lifeguard.insight.durations import quantile
from dagster_lifeguard.insight.simulation.arrivals import Arrival
from dagster_lifeguard.insight.simulation.world import play
from measures import Measure

if TYPE_CHECKING:
    from collections.abc import Iterator

WEEK = 7 * 86400.0
POOLS = 100
KINDS: dict[str, tuple[bool, PoolSettings | None, float]] = {
    # Whether each of 100 assets has a pool of its own, of 1; the pool that all share; its load.
    "own pools": (True, None, 0.0),
    "shared, load 0.9": (False, PoolSettings(7), 0.9),
    "own and shared, 0.7": (True, PoolSettings(10), 0.7),
    "own and shared, 0.9": (True, PoolSettings(8), 0.9),
    "fair, load 0.9": (False, PoolSettings(7, fair_by="team"), 0.9),
    "rate, load 0.9": (False, PoolSettings(20, Rate(11, 60)), 0.9),
}
"""What is played."""


def measure(kind: str, executions: int) -> dict[str, Any]:
    """Play once, in this process."""
    has_own, shared, load = KINDS[kind]
    draws = random.Random(1)
    mean = 40.0 * 100_000 / executions
    if shared is not None and shared.rate is None:
        assert shared.limit is not None
        mean = load * shared.limit * WEEK / executions
    demands = [
        Demand.of({**({f"own{n}": 1} if has_own else {}), **({"shared": 1} if shared else {})})
        for n in range(POOLS)
    ]
    teams = [{"team": f"team{n}"} for n in range(10)]
    arrivals = sorted(
        (
            Arrival(
                TicketKey(f"run{n}", "step"),
                draws.random() * WEEK,
                draws.choice(demands),
                draws.expovariate(1 / mean),
                tags=draws.choice(teams),
            )
            for n in range(executions)
        ),
        key=lambda arrival: arrival.at,
    )
    settings = {f"own{n}": PoolSettings(1) for n in range(POOLS)}
    if shared is not None:
        settings["shared"] = shared
    began, began_cpu = time.perf_counter(), time.process_time()
    found = play(arrivals, settings, window=(0.0, WEEK))
    seconds, cpu = time.perf_counter() - began, time.process_time() - began_cpu
    waits = sorted(wait for n in range(executions) if (wait := found.waited(n)) is not None)
    assert len(waits) == executions, "somebody never went in"
    return {
        "seconds": seconds,
        "cpu": cpu,
        "megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "p50": quantile(waits, 0.5),
        "p95": quantile(waits, 0.95),
    }


def measures(*, full: bool) -> Iterator[Measure]:
    """Processor time and memory of one play of each kind, each in a process of its own."""
    executions = 100_000 if full else 10_000
    for kind in KINDS:
        command = [sys.executable, __file__, kind, str(executions)]
        told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        found = json.loads(told)
        name = f"simulate {executions:,} executions: {kind}"
        each = (
            f"{1e6 * found['cpu'] / executions:,.0f} µs for each execution, of the engine's rules"
        )
        yield Measure(
            f"{name}, processor", found["cpu"], "s", goal=2.0 if full else None, reason=each
        )
        yield Measure(f"{name}, memory", found["megabytes"], "MB", goal=300.0)


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1], int(sys.argv[2]))))
