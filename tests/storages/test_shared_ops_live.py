"""Real runs of graph assets that share an op: each step takes the pools of its own asset."""

from __future__ import annotations

from pathlib import Path

import pytest
from homes import limit

from dagster_lifeguard.compat.health import tagged_steps
from dagster_lifeguard.compat.runs import plan_of_run

FILE = Path(__file__).with_name("sharing.py")


@pytest.mark.parametrize(
    ("engine", "executor", "pools"),
    [
        ("stock", "in_process", {("left.fetch", "left", 1), ("right.fetch", "right", 1)}),
        (
            "lifeguard",
            "multiprocess",
            {("left", "left", 1), ("left", "warehouse", 2), ("right.fetch", "right", 1)},
        ),
    ],
)
def test_each_step_takes_the_pools_of_its_asset(make_home, engine, executor, pools):
    home = make_home("sqlite", concurrency={"pools": {"default_limit": 1}})
    limit(home, 2, "warehouse")
    process = home.start(
        *("dagster", "asset", "materialize", "-f", str(FILE), "--select", "left,right"),
        ENGINE=engine,
        EXECUTOR=executor,
    )
    assert process.wait() == 0, process.output()
    with home.instance() as instance:
        ledger = instance.event_log_storage.lifeguard.engine.store.ledger()
        granted = [entry for entry in ledger if entry.kind.value == "granted"]
        assert {(entry.step_key, entry.pool, entry.slots) for entry in granted} == pools
        (run,) = instance.get_runs()
        assert run.run_op_concurrency.all_pools == {pool for _, pool, _ in pools}
        # Nobody is asked to remove the tag that the policy put there.
        assert list(tagged_steps(instance, [plan_of_run(run)])) == []
