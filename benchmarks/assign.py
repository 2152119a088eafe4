"""What applying a policy costs, beside what Dagster takes to load the same definitions.

Each measurement runs in a process of its own, so that neither time nor peak memory is that of
another. Times are CPU seconds of that process: it is one thread that waits for nothing, and so
other programs on the machine count less. Loading is what a code server does before it serves: build
the repository with all its jobs, and the snapshot that it sends to the UI.

    python benchmarks/assign.py [--sizes 1000,10000] [--repeats 3]
"""

from __future__ import annotations

import argparse
import gc
import json
import resource
import statistics
import subprocess
import sys
import time
from typing import Any

import dagster as dg
from rich.console import Console
from rich.table import Table

from dagster_lifeguard import Policy, Rule

BUDGET_SHARE = 0.05
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
    defs = make(size)
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
    loading = time.process_time() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"apply": applying, "load": loading, "peak": peak, "first": warming}


def in_new_process(size: int, policy: str | None) -> dict[str, float]:
    """Run ``measure`` in a new process."""
    command = [sys.executable, "-W", "ignore", __file__, "--one", json.dumps([size, policy])]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    answer: dict[str, float] = json.loads(done.stdout)
    return answer


def main() -> int:
    """Print the table; return 1 if a budget is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", default="1000,10000")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measure(*json.loads(arguments.one))))
        return 0

    console = Console(width=100)
    table = Table(title="Applying a policy, beside loading by Dagster (medians)")
    for heading in (
        "policy",
        "assets",
        "load s",
        "first s",
        "apply s",
        "share",
        "us/asset",
        "memory",
        "kept",
    ):
        table.add_column(heading, justify="left" if heading == "policy" else "right")
    missed = False
    for size in map(int, arguments.sizes.split(",")):
        repeats = range(arguments.repeats)
        with console.status(f"{size} assets without a policy"):
            base = _medians([in_new_process(size, None) for _ in repeats])
        for name in POLICIES:
            with console.status(f"{size} assets, {name}"):
                found = _medians([in_new_process(size, name) for _ in repeats])
            share = found["apply"] / base["load"]
            memory = found["peak"] / base["peak"]
            kept = (
                share <= BUDGET_SHARE
                and memory <= BUDGET_MEMORY_RATIO
                and found["apply"] <= BUDGET_SECONDS_AT_10_000 * max(1.0, size / 10_000)
            )
            missed |= not kept
            table.add_row(
                name,
                f"{size:,}",
                f"{base['load']:.2f}",
                f"{found['first']:.2f}",
                f"{found['apply']:.3f}",
                f"{share:.1%}",
                f"{found['apply'] / size * 1e6:.0f}",
                f"{memory:.2f}x",
                "yes" if kept else "NO",
            )
    console.print(table)
    console.print(
        f"Budgets: at most {BUDGET_SHARE:.0%} of the load, {BUDGET_SECONDS_AT_10_000:.0f} s for "
        f"10,000 assets, {BUDGET_MEMORY_RATIO}x the memory; the same us/asset at each size is "
        "linear growth. first s: the first use in a process, mostly imports."
    )
    return int(missed)


def _medians(runs: list[dict[str, Any]]) -> dict[str, float]:
    return {name: statistics.median(run[name] for run in runs) for name in runs[0]}


if __name__ == "__main__":
    sys.exit(main())
