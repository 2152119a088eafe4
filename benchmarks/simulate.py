"""Measure a play of a generated week: seconds and memory, without reading a history.

    python benchmarks/simulate.py
    python benchmarks/simulate.py --executions 1000000 --kind "own pools"

Executions ask at random times of seven days, and hold for exponentially distributed times. Each
play runs in a process of its own, whose largest resident memory is printed with the time of the
play.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import subprocess
import sys
import time
from typing import Any

from dagster_lifeguard.engine.rules.model import Demand, TicketKey
from dagster_lifeguard.engine.rules.pool_settings import PoolSettings
from dagster_lifeguard.engine.rules.rate import Rate
from dagster_lifeguard.insight.past import quantile
from dagster_lifeguard.insight.simulation.world import Arrival, play

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


def main() -> None:
    """Play each kind in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--executions", type=int, default=100_000)
    parser.add_argument("--kind", action="append", choices=KINDS)
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    kinds = options.kind or list(KINDS)
    if options.here:
        print(json.dumps(measure(kinds[0], options.executions)))
        return
    print(f"{options.executions:,} executions in 7 days")
    for kind in kinds:
        command = [sys.executable, __file__, "--here", "--kind", kind]
        command += ["--executions", str(options.executions)]
        told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        found = json.loads(told)
        print(
            f"{kind:<22} {found['seconds']:6.2f} s ({found['cpu']:.2f} s of CPU), "
            f"{found['megabytes']:.0f} MB; waits p50 {found['p50']:.0f} s, p95 {found['p95']:.0f} s"
        )


if __name__ == "__main__":
    main()
