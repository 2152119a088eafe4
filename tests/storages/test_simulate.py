"""``lifeguard simulate`` on what real storages wrote down."""

from __future__ import annotations

import json

import dagster as dg
import pytest
from click.testing import CliRunner
from homes import limit

from dagster_lifeguard.cli import main


@dg.asset(pool="orders")
def orders() -> None: ...


defs = dg.Definitions([orders], jobs=[dg.define_asset_job("orders_job", [orders])])


def simulated(*options):
    result = CliRunner().invoke(main, ["simulate", *options, "--json"])
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_what_the_engine_wrote_down_is_played_with_another_limit(make_home, kind, monkeypatch):
    home = make_home(kind)
    limit(home)
    with home.instance() as instance:
        job = defs.get_repository_def().get_job("orders_job")
        run_ids = [
            instance.create_run_for_job(job, tags={"dagster/priority": "1"}).run_id
            for _ in range(3)
        ]
        storage = instance.event_log_storage
        claims = [storage.claim_concurrency_slot("orders", r, "orders") for r in run_ids]
        assert [claim.is_claimed for claim in claims] == [True, False, False]
        for run_id, following in zip(run_ids, [*run_ids[1:], None], strict=True):
            storage.free_concurrency_slot_for_step(run_id, "orders")
            if following is not None:
                assert storage.claim_concurrency_slot("orders", following, "orders").is_claimed

    monkeypatch.setenv("DAGSTER_HOME", str(home.path))
    found = simulated("--set", "orders=2")
    (pool,) = found["pools"]
    assert (found["source"], found["executions"], found["asked"]) == ("ledger", 3, ["orders"])
    assert (pool["before"]["limit"], pool["after"]["limit"]) == (1, 2)
    assert (pool["before"]["most"], pool["after"]["most"]) == (1, 2)
    waits = pool["calibration"]["recorded"]
    assert pool["after"]["waits"]["p95"] <= pool["before"]["waits"]["p95"]
    assert (waits["count"], pool["calibration"]["played"]["count"]) == (3, 3)
    (free,) = simulated("--without", "orders")["pools"]
    assert (free["after"]["limit"], free["after"]["waits"]["p95"]) == (None, 0.0)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--set", "orders"), "is no setting"),
        (("--set", "orders=many"), "is no limit"),
        (("--set", "orders=-1"), "out of bounds"),
        (("--set", "orders.rate=often"), "is not a rate"),
        (("--set", "orders.order=random"), "is not an order"),
        (("--set", "nowhere=1"), "knows no pool 'nowhere'"),
    ],
)
def test_a_mistake_in_what_is_asked_is_told_in_a_line(make_home, monkeypatch, options, told):
    home = make_home("sqlite")
    limit(home)
    monkeypatch.setenv("DAGSTER_HOME", str(home.path))
    result = CliRunner().invoke(main, ["simulate", *options])
    assert result.exit_code == 2
    assert told in result.output


def test_pools_that_hold_back_runs_cannot_be_played(make_home, monkeypatch):
    home = make_home("sqlite", concurrency={"pools": {"granularity": "run"}})
    monkeypatch.setenv("DAGSTER_HOME", str(home.path))
    result = CliRunner().invoke(main, ["simulate"])
    assert result.exit_code == 2
    assert "granularity: run" in result.output
