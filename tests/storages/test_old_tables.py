"""Tables of the engine that an older version of this package made: told as such, and migrated."""

from __future__ import annotations

import json

import pytest
import sqlalchemy as db
from click.testing import CliRunner
from dagster._core.storage.dagster_run import DagsterRun

from dagster_lifeguard.cli import main
from dagster_lifeguard.engine.store.sql import migrations, script
from dagster_lifeguard.storage.switch import TABLES_NEWEST

OLDER = range(1, TABLES_NEWEST)


@pytest.fixture(params=OLDER, ids=lambda version: f"version {version}")
def version(request):
    return request.param


def with_old_tables(home, version):
    """The engine's tables as of a version, in which a live process holds a slot and one waits."""
    home.write(stock=True)
    with home.instance() as instance:
        instance.event_log_storage.set_concurrency_slots("orders", 1)
        run = instance.add_run(DagsterRun(job_name="job")).run_id
        rows = f"""
INSERT INTO lifeguard_schema VALUES ({version});
INSERT INTO lifeguard_pools (pool, fence) VALUES ('orders', 41);
INSERT INTO lifeguard_sessions VALUES ('s', 'host:1', 1, 99999999999);
INSERT INTO lifeguard_holdings (pool, slot_no, run_id, step_key, fence, priority, since)
  VALUES ('orders', 1, '{run}', 'step', 41, 0, 1);
INSERT INTO lifeguard_owners (run_id, step_key, session) VALUES ('{run}', 'step', 's');
INSERT INTO lifeguard_tickets (run_id, step_key, priority, demand, session, since)
  VALUES ('{run}', 'other', 0, '{{"orders": 1}}', 's', 1)"""
        names = migrations(home.kind)[:version]
        scripts = [text for name in names for text in script(home.kind, name)]
        with instance.event_log_storage.index_connection() as connection:
            for text in (*scripts, *rows.split(";")):
                connection.exec_driver_sql(text)
    return run


@pytest.mark.parametrize("stock", [True, False], ids=["engine off", "engine on"])
def test_they_are_told_as_older(make_home, kind, version, stock):
    home = make_home(kind, unopened=True)
    run = with_old_tables(home, version)
    home.write(stock=stock)
    told = home.run("lifeguard", "engine", "status")
    assert f"version {version}, older than this package's {TABLES_NEWEST}" in told
    found = json.loads(home.run("lifeguard", "engine", "status", "--json"))
    assert (found["tables"], found["waiting"]) == (version, 1)
    assert [(h["world"], h["run_id"], h["slots"]) for h in found["holders"]] == [("engine", run, 1)]
    with home.instance() as instance:
        log = instance.event_log_storage
        with log.index_connection() as connection:  # To look changes nothing.
            question = db.text("SELECT version FROM lifeguard_schema")
            assert connection.execute(question).fetchall() == [(version,)]
    if stock:
        doctor = home.start("lifeguard", "doctor", "--json")
        doctor.wait()
        report = json.loads(doctor.output())
        unanswered = {c["code"] for c in report["checks"] if c["outcome"] == "unanswered"}
        assert {"engine-tables", "fleet-mixed", "slots-unmatched"}.isdisjoint(unanswered)
        assert "fleet-mixed" in {finding["code"] for finding in report["findings"]}


def test_the_engine_brings_them_up_to_date(make_home, kind, version):
    home = make_home(kind, unopened=True)
    with_old_tables(home, version)
    home.write()
    with home.instance() as instance:
        log = instance.event_log_storage
        run = instance.add_run(DagsterRun(job_name="job")).run_id
        assert not log.claim_concurrency_slot("orders", run, "step").is_claimed
        log.set_concurrency_slots("orders", 5)
        assert log.claim_concurrency_slot("orders", run, "step").is_claimed
        assert log.lifeguard.engine.ticket(run, "step").fence == 42
        with log.index_connection() as connection:
            question = db.text("SELECT version FROM lifeguard_schema")
            assert connection.execute(question).fetchall() == [(TABLES_NEWEST,)]


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


def test_commands_change_no_table_and_say_what_does(make_home, kind, tmp_path, monkeypatch):
    home = make_home(kind, unopened=True)
    with_old_tables(home, 1)
    home.write()
    monkeypatch.chdir(tmp_path)
    tmp_path.joinpath("lifeguard.yaml").write_text("pools: {orders: 2}\n")
    tmp_path.joinpath("defs.py").write_text(
        "import dagster as dg\n\n@dg.asset(pool='orders')\ndef a(): ...\n\n"
        "defs = dg.Definitions(assets=[a])\n"
    )

    def version():
        with home.instance() as instance, instance.event_log_storage.index_connection() as found:
            return found.execute(db.text("SELECT version FROM lifeguard_schema")).scalar()

    runner = CliRunner(env={"DAGSTER_HOME": str(home.path)})
    for command in COMMANDS:
        done = runner.invoke(main, command)
        assert done.exit_code != 0, command
        assert "lifeguard engine enable" in done.output, (command, done.output)
        assert version() == 1, command
    assert runner.invoke(main, ["engine", "enable", "--yes"]).exit_code == 0
    assert version() == TABLES_NEWEST
    assert runner.invoke(main, ["status"]).exit_code == 0
