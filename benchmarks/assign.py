"""What applying a policy costs, beside what Dagster takes to load the same definitions.

Each measurement runs in a process of its own, so that neither time nor peak memory is that of
another. Times are CPU seconds of that process: it is one thread that waits for nothing, and so
other programs on the machine count less. Loading is what a code server does until it can serve: run
the decorators, build the repository with all its jobs, and the snapshot that it sends to the UI.
"""

from __future__ import annotations

import gc
import json
import resource
import statistics
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import dagster as dg

from dagster_lifeguard import Policy, Rule
from measures import Measure

if TYPE_CHECKING:
    from collections.abc import Iterator

BUDGET_PERCENT = 5.0
BUDGET_SECONDS_AT_10_000 = 1.0
BUDGET_MEMORY_RATIO = 1.2

POLICIES = {
    "every asset its own": Policy(),
    "five rules with selections": Policy(
        rules=(
            Rule(assets="group:g0", pools=()),
            Rule(assets="kind:snowflake", pools=("warehouse",)),
            Rule(assets="tag:tier=gold", pools=("gold_{group}",)),
            Rule(assets="key:asset_1+", pools=("{asset}",)),
            Rule(assets="*", pools=("{asset}",)),
        )
    ),
}


def make(size: int) -> dg.Definitions:
    """Build assets in chains of ten, in fifty groups, some with kinds and tags."""

    def asset(number: int) -> dg.AssetsDefinition:
        @dg.asset(
            name=f"asset_{number}",
            group_name=f"g{number % 50}",
            deps=[f"asset_{number - 1}"] if number % 10 else None,
            kinds={"snowflake"} if number % 7 == 0 else {"python"},
            tags={"tier": "gold"} if number % 11 == 0 else None,
            owners=["team:data"],
        )
        def made() -> None: ...

        return made

    return dg.Definitions(assets=[asset(number) for number in range(size)])


def load(defs: dg.Definitions) -> None:
    """Load definitions the way a code server does."""
    from dagster._core.remote_representation.external_data import (  # noqa: PLC0415
        RepositorySnap,
    )

    repository = defs.get_repository_def()
    repository.get_all_jobs()
    RepositorySnap.from_def(repository, defer_snapshots=True)


def measure(size: int, policy: str | None) -> dict[str, float]:
    """Measure in this process; CPU times in seconds, peak memory in MiB."""
    start = time.process_time()
    defs = make(size)
    defining = time.process_time() - start
    gc.collect()
    applying = warming = 0.0
    if policy is not None:
        # What is imported once, whatever the number of assets, is measured by itself.
        start = time.process_time()
        POLICIES[policy].apply(make(10))
        warming = time.process_time() - start
        start = time.process_time()
        defs = POLICIES[policy].apply(defs)
        applying = time.process_time() - start
    start = time.process_time()
    load(defs)
    loading = defining + time.process_time() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"apply": applying, "load": loading, "peak": peak, "first": warming}


def in_new_process(size: int, policy: str | None) -> dict[str, float]:
    """Run ``measure`` in a new process."""
    command = [sys.executable, "-W", "ignore", __file__, json.dumps([size, policy])]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    answer: dict[str, float] = json.loads(done.stdout)
    return answer


def measures(*, full: bool) -> Iterator[Measure]:
    """Applying each policy, beside loading the same definitions without one."""
    for size, repeats in ((1_000, 3), (10_000, 3)) if full else ((1_000, 1),):
        base = _medians([in_new_process(size, None) for _ in range(repeats)])
        for policy in POLICIES:
            found = _medians([in_new_process(size, policy) for _ in range(repeats)])
            name = f"Policy for {size:,} assets, {policy}"
            yield Measure(
                f"{name}: apply", found["apply"], "s",
                goal=BUDGET_SECONDS_AT_10_000 * max(1.0, size / 10_000),
            )  # fmt: skip
            share = 100 * found["apply"] / base["load"]
            yield Measure(f"{name}: apply, of the load", share, "%", goal=BUDGET_PERCENT)
            yield Measure(
                f"{name}: memory", found["peak"], "MiB", base["peak"],
                goal=BUDGET_MEMORY_RATIO * base["peak"],
            )  # fmt: skip
            yield Measure(f"{name}: first use in a process", found["first"], "s")


def _medians(runs: list[dict[str, float]]) -> dict[str, float]:
    return {name: statistics.median(run[name] for run in runs) for name in runs[0]}


if __name__ == "__main__":
    print(json.dumps(measure(*json.loads(sys.argv[1]))))
