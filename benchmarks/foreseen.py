"""What ``simulate`` foresees of a larger limit, beside what the larger limit really does.

Three projects are executed with one limit; what was recorded is played with another. Then the same
runs are executed once more, submitted at the same times on a new instance, with that other limit.
The error of a step is the difference between the wait that was foreseen and the one that came.

- pool: runs that ask for one pool at drawn times, without a run queue.
- flights: the flights demo, with granularity ``run``, so that runs wait in the queue of the daemon.
- month: a hundred assets, and the runs of a month in six minutes; see ``hundred_assets``.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import drawn_pool
import flights_runs
import hundred_assets
import queued_runs
from comparison import Comparison
from dagster_lifeguard.insight.durations import quantile
from instances import ours
from measures import Measure
from queued_runs import NUMBER

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dagster_lifeguard.insight.simulation.recording import Recording


def pool(*, runs: int) -> Iterator[Measure]:
    """One pool, with a limit of 2 and of 3."""
    arrivals = drawn_pool.drawn(runs)
    with tempfile.TemporaryDirectory() as folder:

        def execute(limit: int) -> Recording:
            return drawn_pool.executed(Path(folder) / str(limit), limit, arrivals)

        found = Comparison.of(execute, (2, 3), [drawn_pool.POOL])
    yield from found.measures(f"foreseen, one pool ({runs} runs, limit 2 to 3)")


def flights(*, runs: int) -> Iterator[Measure]:
    """The flights demo, all of whose pools have a limit of 1 and of 2."""
    with tempfile.TemporaryDirectory() as folder:

        def execute(limit: int) -> Recording:
            home = Path(folder) / str(limit)
            storage = ours("sqlite", {"base_dir": str(home)})
            requests = flights_runs.refreshes(runs, home)
            return queued_runs.executed(flights_runs.deployed(limit), home, storage, requests)

        found = Comparison.of(execute, (1, 2), flights_runs.POOLS)
    yield from found.measures(f"foreseen, flights demo ({runs} runs, limits 1 to 2)")


def month(*, days: int) -> Iterator[Measure]:
    """A hundred assets, with a limit of 3 and of 5 of the shared pool."""
    name = f"foreseen, {days} days of 100 assets (a day in {hundred_assets.DAY_SECONDS:.0f} s)"
    requests = hundred_assets.month(days)
    seen: list[Recording] = []
    with tempfile.TemporaryDirectory() as folder:

        def execute(limit: int) -> Recording:
            home = Path(folder) / str(limit)
            storage = ours("sqlite", {"base_dir": str(home)})
            seen.append(
                queued_runs.executed(hundred_assets.deployed(limit), home, storage, requests)
            )
            return seen[-1]

        found = Comparison.of(execute, (3, 5), [hundred_assets.WAREHOUSE])
    yield from _not_compressed(seen[0], name)
    yield from found.measures(f"{name}, limit 3 to 5")


def _not_compressed(past: Recording, name: str) -> Iterator[Measure]:
    """What Dagster needs and the compression leaves as it is."""
    assert past.queue is not None
    first = sorted(a.at for a in past.arrivals if a.after is None and a.run is not None)
    besides = sorted(
        a.seconds - hundred_assets.work_seconds(a.tags[NUMBER], a.key.step_key)
        for a in past.arrivals
    )
    whole = f"{name}, not compressed"
    yield Measure(f"{whole}: from launch to first step", quantile(first, 0.5), "s")
    yield Measure(f"{whole}: of a step besides its work", quantile(besides, 0.5), "s")
    yield Measure(
        f"{whole}: between two looks of the daemon", past.queue.rules.interval_seconds, "s"
    )


def measures(*, full: bool) -> Iterator[Measure]:
    """The errors of what was foreseen, and the waits themselves."""
    yield from pool(runs=60 if full else 20)
    yield from flights(runs=30 if full else 8)
    yield from month(days=hundred_assets.DAYS if full else 4)


if __name__ == "__main__":
    if sys.argv[1] == "pool":
        found = pool(runs=int(sys.argv[2]))
    elif sys.argv[1] == "flights":
        found = flights(runs=int(sys.argv[2]))
    else:
        found = month(days=int(sys.argv[2]))
    for measure in found:
        print("  ".join(measure.cells[:3]))
