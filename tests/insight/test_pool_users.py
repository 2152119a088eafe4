"""Runs that cannot have used a pool are left out, and no other run."""

from __future__ import annotations

from dataclasses import replace

import pytest
from told import BY_RUN, SETTINGS, executed

from dagster_lifeguard.insight.durations import uses
from dagster_lifeguard.insight.pool_users import PoolUsers

ENGINE = replace(SETTINGS, engine=True)
TEXTS = (
    "db",
    "other",
    "db + other:2",
    "events{partition}",
    "{all}db[*]",
    "not an expression {",
    "",
)


@pytest.mark.parametrize("settings", [SETTINGS, ENGINE, BY_RUN])
@pytest.mark.parametrize("pool", ["db", "other", "events2026-11-07", "unknown"])
def test_each_use_of_a_pool_is_one_of_a_run_that_is_kept(settings, pool):
    runs = [executed(f"r{n}", {"step": text}, 5.0) for n, text in enumerate(TEXTS)]
    runs = [
        replace(run, steps=(replace(run.steps[0], partitions=("2026-11-07",)),)) for run in runs
    ]
    runs.append(replace(runs[0], run_id="unplanned", pools=None))
    kept = {run.run_id for run in PoolUsers(pool, settings).among(runs)}
    using = {run.run_id for run in runs for use in uses(run, settings) if use.pool == pool}
    assert using <= kept


def test_runs_of_other_pools_are_left_out():
    runs = [executed(f"r{n}", {"step": f"pool{n}"}, 5.0) for n in range(100)]
    assert [run.run_id for run in PoolUsers("pool7", ENGINE).among(runs)] == ["r7"]
