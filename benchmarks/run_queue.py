"""Measure one pass of Dagster's run-queue daemon, on the stock storage and on the engine's.

Runs are queued with a pool of limit 1 each, and one pool in fifty is held by a step that executes
elsewhere. A pass is what the daemon does to choose the runs that may start: it reads all of them,
page by page, and asks for the pools of each page. Launching them is left out: it is the same for
both. The passes of the two storages take turns, so that both meet the same machine. "fair" is the
engine's storage when all runs ask later for one pool that is shared fairly among three backfills;
"first" is the first pass of a daemon, which reads what all runs are.
"""

from __future__ import annotations

import logging
import time
import uuid
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

import dagster as dg
from dagster._core.instance.config import ConcurrencyConfig, PoolGranularity
from dagster._core.storage.dagster_run import DagsterRun, RunOpConcurrency
from dagster._core.storage.event_log.schema import ConcurrencyLimitsTable, ConcurrencySlotsTable
from dagster._core.storage.runs.schema import RunsTable
from dagster._daemon.run_coordinator.queued_run_coordinator_daemon import QueuedRunCoordinatorDaemon
from dagster._serdes import serialize_value

from dagster_lifeguard.insight.durations import quantile
from instances import DATABASES, ORIGIN, places
from measures import Measure

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from instances import Place

HELD_EVERY = 50
RUNS_AT_ONCE = 10
"""How many runs may be in progress; Dagster's default. It looks at all that are queued even so."""
FAIR = "warehouse"
"""The pool that all runs ask for later; without a limit it makes no difference."""
ADDED_MAX = 100
"""How many runs are queued one by one; the rest get the same rows at once."""
COORDINATOR = {
    "module": "dagster.core.run_coordinator",
    "class": "QueuedRunCoordinator",
    "config": {"max_concurrent_runs": RUNS_AT_ONCE},
}


def fill(instance: dg.DagsterInstance, storage: str, count: int) -> float:
    """Queue the runs and set and hold their pools; seconds that queueing one run took, by median.

    Limits, and all runs but the first, are written as both storages write them, but at once: one
    by one, thousands take minutes.
    """
    event_log: Any = instance.event_log_storage
    event_log.set_concurrency_slots("other", 1)  # The engine makes its tables.
    pools = [f"pool{number}" for number in range(count)]
    with event_log.index_connection() as connection:
        limits = [{"concurrency_key": pool, "limit": 1} for pool in pools]
        connection.execute(ConcurrencyLimitsTable.insert(), limits)
        if storage == "stock":
            slots = [{"concurrency_key": pool, "deleted": False} for pool in pools]
            connection.execute(ConcurrencySlotsTable.insert(), slots)
    for pool in pools[::HELD_EVERY]:
        assert event_log.claim_concurrency_slot(pool, f"holder-of-{pool}", "step").is_claimed
    queued = [queued_run(pool) for pool in pools]
    added, others = queued[:ADDED_MAX], queued[ADDED_MAX:]
    taken = []
    runs: Any = instance.run_storage
    for run in added:
        begun = time.perf_counter()
        runs.add_run(run)
        taken.append(time.perf_counter() - begun)
    if others:
        row = runs._get_run_insertion_values(others[0], datetime.now(timezone.utc))  # noqa: SLF001
        rows = [{**row, "run_id": run.run_id, "run_body": serialize_value(run)} for run in others]
        with runs.connect() as connection:
            connection.execute(RunsTable.insert(), rows)
    return quantile(sorted(taken), 0.5)


def share_fairly(instance: dg.DagsterInstance, slots: int | None, fair_by: str | None) -> None:
    event_log: Any = instance.event_log_storage
    event_log.change_pool(FAIR, limit=slots, fair_by=fair_by)


def queued_run(pool: str) -> dg.DagsterRun:
    return DagsterRun(
        job_name="job",
        run_id=str(uuid.uuid4()),
        status=dg.DagsterRunStatus.QUEUED,
        tags={"dagster/backfill": f"backfill{len(pool) % 3}"},
        run_op_concurrency=RunOpConcurrency(
            root_key_counts={pool: 1}, has_unconstrained_root_nodes=False, all_pools={pool, FAIR}
        ),
        remote_job_origin=ORIGIN,
    )


def one_pass(instance: dg.DagsterInstance, granularity: PoolGranularity) -> float:
    """Seconds of one pass of a daemon that has just begun."""
    daemon = QueuedRunCoordinatorDaemon(interval_seconds=1)
    daemon._logger = logging.getLogger("silent")  # noqa: SLF001 - a line for each blocked run
    coordinator: Any = instance.run_coordinator
    config = ConcurrencyConfig.from_concurrency_settings(
        {"pools": {"granularity": granularity.value}}, coordinator.get_run_queue_config()
    )
    begun = time.perf_counter()
    chosen = daemon._get_runs_to_dequeue(instance, config, None)  # noqa: SLF001 - what is measured
    taken = time.perf_counter() - begun
    assert len(chosen) == RUNS_AT_ONCE, f"{len(chosen)} runs may start"
    return taken


def measures(*, full: bool) -> Iterator[Measure]:
    """Passes over all runs in the queue, on each database."""
    runs, passes = (5000, 3) if full else (500, 3)
    logging.getLogger("silent").setLevel(logging.CRITICAL)
    with places(run_coordinator=COORDINATOR) as homes:
        for database in DATABASES:
            pair = {storage: homes[database, storage] for storage in ("stock", "lifeguard")}
            yield from compare(database, pair, runs, passes)


def compare(database: str, pair: Mapping[str, Place], runs: int, passes: int) -> Iterator[Measure]:
    instances = {storage: place.instance() for storage, place in pair.items()}
    adds = {storage: fill(instance, storage, runs) for storage, instance in instances.items()}
    name = f"{database}: run queue"
    yield Measure(f"{name}, queue a run", 1000 * adds["lifeguard"], "ms", 1000 * adds["stock"])
    for granularity in (PoolGranularity.OP, PoolGranularity.RUN):
        taken: dict[str, list[float]] = {storage: [] for storage in instances}
        for number in range(-1, passes):
            for storage, instance in instances.items():
                seconds = one_pass(instance, granularity)
                if number >= 0:  # The first opens connections.
                    taken[storage].append(seconds)
        share_fairly(instances["lifeguard"], 1000, "dagster/backfill")
        first = one_pass(instances["lifeguard"], granularity)
        taken["fair"] = [one_pass(instances["lifeguard"], granularity) for _ in range(passes)]
        taken["fair, first"] = [first]
        share_fairly(instances["lifeguard"], None, None)
        middles = {kind: quantile(sorted(seconds), 0.5) for kind, seconds in taken.items()}
        for kind, seconds in middles.items():
            if kind != "stock":
                text = "" if kind == "lifeguard" else f", {kind}"
                whole = f"{name}, a pass over {runs:,} runs by {granularity.value}{text}"
                yield Measure(whole, seconds, "s", middles["stock"])
    for instance in instances.values():
        instance.dispose()
