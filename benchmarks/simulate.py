"""Measure plays of a generated week: seconds and memory, without reading a history.

Each kind runs in a process of its own. First comes one play. Then comes what a moved slider costs
when the recording and its play are in memory: the play with another limit, and the answer with its
curves. The largest resident memory is taken after each of the two.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

from dagster_lifeguard.insight.durations import quantile
from dagster_lifeguard.insight.simulation.answer import simulate
from dagster_lifeguard.insight.simulation.recording import Recording
from dagster_lifeguard.insight.simulation.world import play
from dagster_lifeguard.web.pages.window import PARTS
from measures import Measure
from week import KINDS, SECONDS, week

if TYPE_CHECKING:
    from collections.abc import Iterator

MOVED = "shared"
"""The pool whose limit is moved."""


def measure(kind: str, executions: int) -> dict[str, Any]:
    """Play once, in this process."""
    arrivals, settings, queue = week(kind, executions)
    began, began_cpu = time.perf_counter(), time.process_time()
    found = play(arrivals, settings, window=(0.0, SECONDS), queue=queue)
    seconds, cpu = time.perf_counter() - began, time.process_time() - began_cpu
    megabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    runs = len(queue.submissions) if queue is not None else 0
    count = len(arrivals)
    recording = Recording(
        *("ledger", 0.0, SECONDS, arrivals, (0.0,) * count, settings),
        queue=queue,
        queued=(0.0,) * runs,
    )
    began_answer = time.process_time()
    simulate(recording, {MOVED: {"limit": 20}}, before=found, parts=PARTS)
    answer_cpu = time.process_time() - began_answer
    waits = [found.waited(place) for place in range(count)]
    started = sorted(wait for wait in waits if wait is not None)
    assert len(started) == len(arrivals), "somebody never went in"
    return {
        "executions": len(arrivals),
        "seconds": seconds,
        "cpu": cpu,
        "megabytes": megabytes,
        "answer_cpu": answer_cpu,
        "answer_megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "p50": quantile(started, 0.5),
        "p95": quantile(started, 0.95),
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
            f"{1e6 * found['cpu'] / executions:,.0f} µs for each execution: it asks, looks at its "
            "pools, starts and ends; a run is also submitted, looked at and launched"
        )
        yield Measure(
            f"{name}, processor", found["cpu"], "s", goal=2.0 if full else None, reason=each
        )
        yield Measure(f"{name}, memory", found["megabytes"], "MB", goal=300.0)
        yield Measure(
            *(f"{name}, a moved slider", found["answer_cpu"], "s"),
            goal=2.0 if full else None,
            reason="another play, then percentiles and curves of each pool",
        )
        yield Measure(f"{name}, memory with the answer", found["answer_megabytes"], "MB")


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1], int(sys.argv[2]))))
