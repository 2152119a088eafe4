"""Real runs of partitions whose pools are computed from the partition's key."""

from __future__ import annotations

from pathlib import Path

import dagster as dg
import partitioned
import pytest
from dagster._core.execution.api import create_execution_plan

from dagster_lifeguard.engine.rules.pool_expressions import SLOTS_MAX

FILE = Path(__file__).with_name("partitioned.py")
LISTS_RANGES = hasattr(dg.DagsterRun, "partitions_subset")  # from Dagster 1.12


@pytest.fixture
def home(make_home):
    return make_home("sqlite", concurrency={"pools": {"default_limit": 1}})


def taken(instance) -> list[dict[str, int]]:
    """The pools and slots of each step that was granted any, in the order of the grants."""
    ledger = instance.event_log_storage.lifeguard.engine.store.ledger()
    found: dict[int, dict[str, int]] = {}
    for entry in reversed(ledger):
        if entry.kind.value == "granted":
            found.setdefault((entry.run_id, entry.step_key), {})[entry.pool] = entry.slots
    return list(found.values())


def test_steps_in_processes_of_their_own_take_the_pool_of_the_month(home):
    for selection, *partition in (
        ("daily", "--partition", "2024-02-29"),
        ("sales", "--partition", "2024-03-01|us"),
        ("plain",),
    ):
        process = home.start(
            *("dagster", "asset", "materialize", "-f", str(FILE), "--select", selection),
            *partition,
            EXECUTOR="multiprocess",
        )
        assert process.wait() == 0, process.output()
    with home.instance() as instance:
        assert taken(instance) == [
            {"daily[2024-02]": 1, "{all}daily[*]": 1},
            {"sales[us]": 1, "{all}sales[*]": 1, "m03": 1, "{all}m*": 1},
            {"plain": 1},
        ]


RANGE = {
    "dagster/asset_partition_range_start": "2024-01-30",
    "dagster/asset_partition_range_end": "2024-02-02",
}
MONTHS = {"daily[2024-01]": 1, "daily[2024-02]": 1, "{all}daily[*]": 1}


@pytest.mark.parametrize(
    ("asset", "tags", "pools"),
    [
        ("daily", {"dagster/partition": "2024-01-31"}, {"daily[2024-01]": 1, "{all}daily[*]": 1}),
        (
            "sales",
            {"dagster/partition": "2024-01-31|eu"},
            {"sales[eu]": 1, "{all}sales[*]": 1, "m01": 1, "{all}m*": 1},
        ),
        ("plain", {}, {"plain": 1}),
        ("daily", RANGE, MONTHS if LISTS_RANGES else {"{all}daily[*]": SLOTS_MAX}),
        # A run of all partitions is alone against each of the computed pools.
        ("daily", {}, {"{all}daily[*]": SLOTS_MAX}),
    ],
    ids=["month", "dimensions", "no partitions", "range", "all"],
)
def test_the_run_queue_counts_the_same(home, asset, tags, pools):
    """Filled in from what is stored of the run: the engine loads no user code."""
    job = partitioned.defs.get_repository_def().get_job("__ASSET_JOB")
    with home.instance() as instance:
        part = job.get_subset(asset_selection={dg.AssetKey(asset)})
        run = instance.create_run_for_job(
            part,
            execution_plan=create_execution_plan(part),
            asset_selection=frozenset({dg.AssetKey(asset)}),
            tags=tags,
        )
        assert run.run_op_concurrency.all_pools == set(pools)
        claim = instance.event_log_storage.claim_concurrency_slot
        (assets,) = [a for a in partitioned.defs.assets if a.key == dg.AssetKey(asset)]
        assert claim(assets.op.pool, run.run_id, asset).is_claimed
        assert taken(instance) == [pools]
