"""Tables of the engine that an older version of this package made: told as such, and migrated."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import sqlalchemy as db
from click.testing import CliRunner
from dagster._core.storage.dagster_run import DagsterRun
from homes import DEFINITIONS, eventually, limit

from dagster_lifeguard.cli import main
from dagster_lifeguard.storage.switch import tables_newest
from versions import FIRST, SECOND, later


@pytest.fixture
def old_tables(make_home, kind, second_version):
    """A home whose tables are older than this package: a process holds a slot, and one waits."""
    assert tables_newest() == FIRST  # What else is older, is made here.
    home = make_home(kind)
    with home.instance() as instance:
        log = instance.event_log_storage
        log.set_concurrency_slots("orders", 1)
        holder, waiter = (instance.add_run(DagsterRun(job_name="job")).run_id for _ in range(2))
        assert log.claim_concurrency_slot("orders", holder, "step").is_claimed
        assert not log.claim_concurrency_slot("orders", waiter, "step").is_claimed
        second_version()
        yield home, holder


VERSIONS = Path(__file__).parents[1] / "versions.py"


def lifeguard(home, *arguments):
    return CliRunner(env={"DAGSTER_HOME": str(home.path)}).invoke(main, arguments)


def version_in(home):
    with home.instance() as instance, instance.event_log_storage.index_connection() as found:
        return found.execute(db.text("SELECT version FROM lifeguard_schema")).scalar()


@pytest.mark.parametrize("stock", [True, False], ids=["engine off", "engine on"])
def test_they_are_told_as_older(old_tables, stock):
    home, holder = old_tables
    home.write(stock=stock)
    told = lifeguard(home, "engine", "status").output
    assert f"version {FIRST}, older than this package's {SECOND}" in told
    found = json.loads(lifeguard(home, "engine", "status", "--json").output)
    assert (found["tables"], found["waiting"]) == (FIRST, 1)
    held = [(h["world"], h["run_id"], h["slots"]) for h in found["holders"]]
    assert held == [("engine", holder, 1)]
    assert version_in(home) == FIRST  # To look changes nothing.
    if stock:
        report = json.loads(lifeguard(home, "doctor", "--json").output)
        unanswered = {c["code"] for c in report["checks"] if c["outcome"] == "unanswered"}
        assert {"engine-tables", "fleet-mixed", "slots-unmatched"}.isdisjoint(unanswered)
        assert "fleet-mixed" in {finding["code"] for finding in report["findings"]}


def test_the_engine_brings_them_up_to_date(old_tables):
    home, _ = old_tables
    with home.instance() as instance:
        log = instance.event_log_storage
        run = instance.add_run(DagsterRun(job_name="job")).run_id
        assert not log.claim_concurrency_slot("orders", run, "step").is_claimed
        log.set_concurrency_slots("orders", 5)
        # A step that waits asks again once it is woken.
        eventually(lambda: log.claim_concurrency_slot("orders", run, "step").is_claimed)
        assert log.lifeguard.engine.ticket(run, "step").fence == 2
    assert version_in(home) == SECOND


COMMANDS = (
    ("status",),
    ("doctor",),
    ("audit",),
    ("timeline", "orders"),
    ("plan",),
    ("explain", "orders"),
    ("apply", "--yes"),
    ("check", "-f", "defs.py"),
)


def test_commands_change_no_table_and_say_what_does(old_tables, tmp_path, monkeypatch):
    home, _ = old_tables
    monkeypatch.chdir(tmp_path)
    tmp_path.joinpath("lifeguard.yaml").write_text("pools: {orders: 2}\n")
    tmp_path.joinpath("defs.py").write_text(
        "import dagster as dg\n\n@dg.asset(pool='orders')\ndef a(): ...\n\n"
        "defs = dg.Definitions(assets=[a])\n"
    )
    for command in COMMANDS:
        done = lifeguard(home, *command)
        assert done.exit_code != 0, command
        assert "lifeguard engine enable" in done.output, (command, done.output)
        assert version_in(home) == FIRST, command
    assert lifeguard(home, "engine", "enable", "--yes").exit_code == 0
    assert version_in(home) == SECOND
    assert lifeguard(home, "status").exit_code == 0


def test_a_run_of_a_package_for_other_tables_fails_while_older_ones_execute(
    make_home, kind, tmp_path
):
    """It says for whom to wait. Once they have ended it goes in, and older ones are refused."""
    home = make_home(kind)
    limit(home, 2)
    folder = later(tmp_path / "later", for_all=False)

    def run(asset, *by):
        words = ("dagster", "asset", "materialize", "-f", str(DEFINITIONS), "--select", asset)
        return home.start(*by, *words)

    newer = ("python", str(VERSIONS), str(folder))
    old = run("held")
    home.started()
    refused = run("second", *newer)
    assert refused.wait() != 0
    assert "processes of an older package hold or wait: " in refused.output()
    assert version_in(home) == FIRST
    home.go()
    assert old.wait() == 0, old.output()
    goes_in = run("second", *newer)
    home.go("second")
    assert goes_in.wait() == 0, goes_in.output()
    refused = run("held")
    assert refused.wait() != 0
    assert "for packages that know version 2 or later" in refused.output()
