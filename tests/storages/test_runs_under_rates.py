"""Real runs under a rate: they start so far apart, whichever executor asks."""

from __future__ import annotations

import json
import subprocess
import time
from itertools import pairwise

import pytest
import sqlalchemy as db
from click.testing import CliRunner
from homes import BIN, eventually, limit

from dagster_lifeguard.cli import main
from dagster_lifeguard.engine.engine import Engine
from dagster_lifeguard.engine.engine_options import EngineOptions
from dagster_lifeguard.engine.rules.model import Demand, WaitReason
from dagster_lifeguard.engine.rules.rate import Rate
from dagster_lifeguard.errors import ConfigError


def test_runs_at_once_start_no_closer_than_the_rate(make_home, kind):
    home = make_home(kind)
    limit(home, 10)
    with home.instance() as instance:
        instance.event_log_storage.change_pool("orders", rate=Rate(1, 1))
    executors = ("in_process", "multiprocess", "step_delegating")
    processes = [home.materialize("quick", EXECUTOR=executor) for executor in executors]
    for process in processes:
        assert process.wait(240) == 0, process.output()
    with home.instance() as instance:
        ledger = instance.event_log_storage.lifeguard.engine.store.ledger(pool="orders")
        starts = sorted(entry.at for entry in ledger if entry.kind.value == "granted")
        assert len(starts) == len(executors)
        assert all(later - earlier >= 1 - 1e-6 for earlier, later in pairwise(starts))


def test_an_audit_tells_whether_starts_kept_the_rate(make_home, kind, monkeypatch):
    home = make_home(kind)
    limit(home, 10)
    with home.instance() as instance:
        log = instance.event_log_storage
        log.change_pool("orders", rate=Rate(5, 1))
        log.change_pool("unlimited", rate=Rate(1, 1))
        for run_id in "abc":
            eventually(lambda r=run_id: log.claim_concurrency_slot("orders", r, "step").is_claimed)
        monkeypatch.setenv("DAGSTER_HOME", str(home.path))

        def audited():
            found = CliRunner().invoke(main, ["audit", "--json", "--pool", "orders"])
            return found.exit_code, json.loads(found.stdout)

        code, found = audited()
        assert (code, found["verdict"], found["rates"]) == (
            0, "kept", {"pools": 1, "exceeded": 0, "found": [], "caveats": []},
        )  # fmt: skip
        text = " ".join(CliRunner().invoke(main, ["audit"]).output.split())
        assert "no limit exceeded, rates of 1 pool kept." in text
        unwritten = "Of 1 pool with a rate and without a limit the ledger does not tell"
        assert f"Rates: nothing found - {unwritten}" in text
        by_events = CliRunner().invoke(main, ["audit", "--by", "event-logs"]).output
        only = "Only the engine's ledger tells this: not judged."
        for subject in ("Rates", "Fences", "Steps after their lease"):
            assert f"{subject}: nothing found - {only}" in " ".join(by_events.split())

        def is_due() -> bool:
            with log.index_transaction() as connection:
                found = connection.execute(db.text("SELECT due_ns FROM lifeguard_pools")).scalars()
                return max(found) < time.time_ns()

        # Else the last start counts against the new rate, for a day.
        eventually(is_due)
        # As if another had counted wrong.
        log.change_pool("orders", rate=Rate(1, 86400))
        eventually(lambda: log.claim_concurrency_slot("orders", "last", "step").is_claimed)
        with log.index_transaction() as connection:
            connection.execute(db.text("UPDATE lifeguard_pools SET due_ns = 0"))
        assert log.claim_concurrency_slot("orders", "early", "step").is_claimed
        code, found = audited()
        (early,) = found["rates"]["found"]
        assert (code, found["verdict"], found["rates"]["exceeded"]) == (1, "exceeded", 1)
        assert (early["pool"], early["rate"], early["run_id"]) == ("orders", "1/day", "early")
        text = " ".join(CliRunner().invoke(main, ["audit"]).output.split())
        assert "A rate was exceeded once." in text
        assert "too early for 1/day run early step step" in text
        assert text.endswith("by the engine's ledger: rates exceeded once.")


def test_an_expression_has_no_rate_of_its_own(make_home, kind):
    with (
        make_home(kind).instance() as instance,
        pytest.raises(ConfigError, match=r"a\+b' is a pool expression"),
    ):
        instance.event_log_storage.change_pool("{hold:step}a+b", rate=Rate(1, 1))


def test_a_rate_that_the_command_raises_lets_in_who_waits_for_the_old_one(make_home, kind):
    """The pool of a file, without a look of the waiter's own: only the command can end its wait."""
    home = make_home(kind)
    home.control.joinpath("lifeguard.yaml").write_text(
        "engine: lifeguard\npools: {orders: {limit: 50, rate: 1/day}}\n"
    )

    def apply():
        command = [str(BIN / "lifeguard"), "apply", "--yes"]
        subprocess.run(command, cwd=home.control, env=home.environment, check=True)

    apply()
    with home.instance() as instance:
        engine = instance.event_log_storage.lifeguard.engine
        engine = Engine(engine.store, EngineOptions(look_again_seconds=3600.0))
        demand = Demand.parse("orders")
        assert engine.claim("first", "step", demand).granted
        assert engine.claim("second", "step", demand).reason is WaitReason.RATE
        file = home.control / "lifeguard.yaml"
        file.write_text(file.read_text().replace("1/day", "10/second"))
        apply()
        for run_id in ("second", "third"):
            while not engine.claim(run_id, "step", demand).granted:
                assert engine.wait(run_id, "step", 120)
        engine.close()
