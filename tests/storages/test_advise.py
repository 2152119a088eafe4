"""``lifeguard advise`` on what a real engine wrote down."""

from __future__ import annotations

import json
import threading

import pytest
from click.testing import CliRunner
from homes import limit

from dagster_lifeguard import LifeguardClient
from dagster_lifeguard.cli import main
from dagster_lifeguard.cli.advice_text import print_advice
from dagster_lifeguard.engine.rules.model import Demand, TicketKey
from dagster_lifeguard.engine.rules.pool_settings import PoolSettings
from dagster_lifeguard.insight.simulation.advice import Target
from dagster_lifeguard.insight.simulation.advising import advise
from dagster_lifeguard.insight.simulation.recording import Recorded, Recording, in_order

FILE = """\
engine: lifeguard
pools:
  warehouse: 2      # the database
  old: 3
"""


@pytest.fixture
def busy_home(make_home, monkeypatch, tmp_path):
    """A home in which eight holders took turns, two at once, each for as long as it takes."""
    home = make_home("sqlite")
    limit(home, 2, "warehouse")
    monkeypatch.setenv("DAGSTER_HOME", str(home.path))
    monkeypatch.chdir(tmp_path)
    with home.instance() as instance:
        client = LifeguardClient(instance)
        all_wait = threading.Barrier(8)

        def hold() -> None:
            all_wait.wait()
            with client.slots("warehouse"):
                threading.Event().wait(0.2)

        holders = [threading.Thread(target=hold) for _ in range(8)]
        for holder in holders:
            holder.start()
        for holder in holders:
            holder.join()
    return tmp_path / "lifeguard.yaml"


def advised(*options):
    return CliRunner().invoke(main, ["advise", *options])


def test_pools_with_the_same_advice_are_told_in_one_line(capsys):
    executions = [
        Recorded(TicketKey(f"r{n}", "s"), Demand.of({"a": 1, "b": 1}), 0.0, 0.0, 60.0, 0, {})
        for n in range(4)
    ]
    ordered = in_order(executions)
    locks = {"a": PoolSettings(1), "b": PoolSettings(1)}
    past = Recording("ledger", 0.0, 1000.0, ordered.arrivals, ordered.waited, locks)
    target = Target(0.95, 60.0)
    print_advice(advise(past, target), "home", target)
    told = [line for line in capsys.readouterr().out.splitlines() if line.startswith("- ")]
    missed = "- a and b: the target is missed. 2 of 4 executions waited longer than 1m. "
    add = 'A limit of 1 keeps two executions apart. If two may overlap, add: --budget "a <= 2"'
    assert told == [missed + add]
    print_advice(advise(past, target, budgets={"a": 4, "b": 4}), "home", target)
    told = [line for line in capsys.readouterr().out.splitlines() if line.startswith("- ")]
    assert len(told) == 1
    assert told[0].startswith("- a and b: raise the limit to 2. 2 of 4 executions waited longer")


def test_a_limit_is_advised_and_written_by_consent(busy_home):
    busy_home.write_text(FILE)
    result = advised("--target", "p95 wait < 0.1s", "--budget", "warehouse <= 8")
    assert result.exit_code == 0, result.output
    assert "raise the limit to " in result.output
    assert "Nothing was written. Say --yes to write lifeguard.yaml." in result.output
    assert busy_home.read_text() == FILE

    result = advised("--target", "p95 wait < 0.1s", "--json", "--yes")
    found = json.loads(result.stdout)
    (pool,) = found["pools"]
    assert (pool["verdict"], pool["limit"]["now"], pool["executions"]) == ("raised", 2, 8)
    new = pool["limit"]["advised"]
    assert found["limits"] == {"warehouse": new}
    assert pool["wait"]["advised"] < 0.1 <= pool["wait"]["one_less"]
    assert found["written"]
    assert busy_home.read_text() == FILE.replace("warehouse: 2", f"warehouse: {new}")


def test_json_writes_nothing_without_consent(busy_home):
    found = json.loads(advised("--target", "p95 wait < 0.1s", "--json").stdout)
    assert (found["limits"] != {}, found["written"]) == (True, False)
    assert not busy_home.exists()


def test_a_target_that_is_met_changes_nothing(busy_home):
    result = advised("--target", "warehouse: p95 wait < 1h", "--yes")
    assert result.exit_code == 0, result.output
    assert "1 pool meets the target with today's limits." in result.output
    assert not busy_home.exists()


def test_a_home_without_a_past_has_no_advice(make_home, monkeypatch):
    home = make_home("sqlite")
    monkeypatch.setenv("DAGSTER_HOME", str(home.path))
    result = advised()
    assert result.exit_code == 0
    assert "No limit can be advised without past executions." in result.output


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--target", "quick"), "is no target"),
        (("--target", "p0 wait < 1m"), "is no target"),
        (("--target", "p95 wait < soon"), "is no target"),
        (("--target", "p95 wait < 1m", "--target", "p50 wait < 1s"), "Give one --target"),
        (("--target", "nowhere: p95 wait < 1m"), "knows no pool 'nowhere'"),
        (("--budget", "orders"), "is no budget"),
        (("--budget", "orders <= 1000000"), "out of bounds"),
        (("--budget", "nowhere <= 3"), "knows no pool 'nowhere'"),
    ],
)
def test_a_usage_error_is_one_line(make_home, monkeypatch, options, told):
    home = make_home("sqlite")
    limit(home)
    monkeypatch.setenv("DAGSTER_HOME", str(home.path))
    result = advised(*options)
    assert result.exit_code == 2
    assert told in result.output
