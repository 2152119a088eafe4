"""The counter-proof of ``test_executions.py``: where nothing limits them, it sees runs overlap."""

from __future__ import annotations

import time

import pytest

from dagster_lifeguard.deployment import history


@pytest.mark.parametrize("executor", ["in_process", "multiprocess"])
def test_materializations_at_once_overlap_on_the_stock_storage(make_home, kind, executor):
    home = make_home(kind, stock=True)
    with home.instance():
        pass  # Dagster's tables are there; it cannot make them in two processes at once.
    processes = [home.materialize("held", EXECUTOR=executor) for _ in range(2)]
    run_ids = set(home.started(2))
    home.go()
    for process in processes:
        assert process.wait() == 0, process.output()

    with home.instance() as instance:
        runs = history.read_runs(instance)
        assert [run.status for run in runs] == ["SUCCESS"] * 2
        (overlap,) = history.find_overlaps(runs, until=time.time())
        assert {overlap.first.run_id, overlap.second.run_id} == run_ids
