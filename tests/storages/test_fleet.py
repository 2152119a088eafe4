"""Workers on the stock storage beside ours: they wait, and what they hold is respected."""

from __future__ import annotations

import json
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
import pytest
import sqlalchemy as db
from click.testing import CliRunner
from dagster._core.execution.plan.instance_concurrency_context import InstanceConcurrencyContext
from dagster._core.storage.dagster_run import DagsterRun, DagsterRunStatus
from homes import eventually

from dagster_lifeguard import LifeguardClient
from dagster_lifeguard.cli import main
from dagster_lifeguard.engine.store.contract import Scope
from dagster_lifeguard.errors import SlotsTimeoutError
from dagster_lifeguard.storage import switch

OPERATING = Path(__file__).parents[2] / "docs" / "operating" / "engine.md"


@contextmanager
def both(home):
    """An instance on the stock storage, and one on ours, over one database."""
    home.write(stock=True)
    with dg.DagsterInstance.from_config(str(home.path)) as stock:
        home.write()
        with dg.DagsterInstance.from_config(str(home.path)) as ours:
            yield stock, ours


def started_run(instance) -> DagsterRun:
    run = DagsterRun(job_name="job", status=DagsterRunStatus.STARTED)
    return instance.run_storage.add_run(run)


def stock_claims(stock, run_id: str, pool: str = "orders") -> bool:
    return stock.event_log_storage.claim_concurrency_slot(pool, run_id, "step").is_claimed


def expire(home) -> None:
    """As if every process of the engine had been silent for long."""
    with home.instance() as instance, instance.event_log_storage.index_connection() as connection:
        connection.execute(db.text("UPDATE lifeguard_sessions SET lease_until = 1"))


def test_a_stock_worker_waits_while_a_process_uses_the_engine(make_home, kind):
    home = make_home(kind, concurrency={"pools": {"default_limit": 1}})
    with both(home) as (stock, ours):
        log = ours.event_log_storage
        log.set_concurrency_slots("orders", 2)
        assert log.claim_concurrency_slot("orders", "ours", "step").is_claimed
        for pool in ("orders", "new to all"):
            run = DagsterRun(job_name="job")
            with InstanceConcurrencyContext(stock, run) as context:
                assert not context.claim(pool, "step")
            stock.event_log_storage.set_concurrency_slots(pool, 3)
            with InstanceConcurrencyContext(stock, run) as context:
                assert not context.claim(pool, "step")
        limits = {p.name: p.limit for p in log.get_pool_limits()}
        assert limits == {"orders": 3, "new to all": 3}
        for run_id in ("ours too", "ours as well"):
            assert log.claim_concurrency_slot("orders", run_id, "step").is_claimed
        assert not log.claim_concurrency_slot("orders", "one too many", "step").is_claimed
        for run_id in ("ours", "ours too", "ours as well", "one too many"):
            log.free_concurrency_slots_for_run(run_id)
        assert not stock_claims(stock, "stock")
    home.write(stock=True)
    with home.instance() as stock:  # No process of the engine is left.
        eventually(lambda: stock_claims(stock, "stock"))


def test_a_stanza_taken_out_by_hand_leaves_a_working_stock_instance(make_home, kind):
    home = make_home(kind, concurrency={"pools": {"default_limit": 3}})
    with home.instance() as ours:
        log = ours.event_log_storage
        log.set_concurrency_slots("orders", 4)
        log.set_concurrency_slots("orders", 2)
        log.set_concurrency_slots("gone", 2)
        log.delete_concurrency_limit("gone")
        log.initialize_concurrency_limit_to_default("default")
        assert log.claim_concurrency_slot("orders", "before", "step").is_claimed
        log.free_concurrency_slot_for_step("before", "step")
    home.write(stock=True)
    with home.instance() as stock:
        # As Dagster does before it claims for a pool that is not written down.
        stock.event_log_storage.initialize_concurrency_limit_to_default("default")
        for pool, limit in (("orders", 2), ("default", 3)):
            for number in range(limit):
                assert stock_claims(stock, f"{pool}-{number}", pool)
            assert not stock_claims(stock, f"{pool}-too-many", pool)
            stock.event_log_storage.free_concurrency_slots_for_run(f"{pool}-0")
            assert stock_claims(stock, f"{pool}-too-many", pool)
        assert stock.event_log_storage.get_concurrency_keys() == {"orders", "default"}


def test_a_killed_process_of_the_engine_keeps_nobody_out_for_ever(make_home, kind):
    home = make_home(kind)
    with both(home) as (stock, ours):
        log = ours.event_log_storage
        log.set_concurrency_slots("orders", 1)
        assert log.claim_concurrency_slot("orders", "ours", "step").is_claimed
        run_id = started_run(stock).run_id
        assert not stock_claims(stock, run_id)
        expire(home)
        eventually(lambda: stock_claims(stock, run_id))
        # It was only slow, and comes back: its session cannot.
        engine = log.lifeguard.engine
        assert not engine.store.heartbeat(engine.session, 30.0)
        assert not log.claim_concurrency_slot("orders", "ours again", "step").is_claimed
        assert {s.run_id for s in log.get_concurrency_info("orders").claimed_slots} == {run_id}


def test_a_session_that_claims_at_this_moment_is_not_revoked(make_home):
    home = make_home("postgres")
    with both(home) as (stock, ours):
        log = ours.event_log_storage
        log.set_concurrency_slots("orders", 2)
        assert log.claim_concurrency_slot("orders", "ours", "step").is_claimed
        engine = log.lifeguard.engine
        with engine.store.begin(Scope(("orders",), "ours too", "step", engine.session)):
            expire(home)
            assert not stock_claims(stock, "stock")
        assert engine.store.heartbeat(engine.session, 30.0)


def test_a_held_stock_slot_is_not_overwritten(make_home, kind):
    """Two stock workers that saw one free row: the second one's update finds it taken."""
    home = make_home(kind)
    with both(home) as (stock, ours):
        ours.event_log_storage.set_concurrency_slots("orders", 1)
        assert ours.event_log_storage.claim_concurrency_slot("orders", "ours", "step").is_claimed
        ours.event_log_storage.lifeguard.engine.close()
        eventually(lambda: stock_claims(stock, "first"))
        with stock.event_log_storage.index_connection() as connection:
            update = "UPDATE concurrency_slots SET run_id = :run_id, step_key = 's'"
            assert connection.execute(db.text(update), {"run_id": "second"}).rowcount == 0
            assert connection.execute(db.text(update), {"run_id": None}).rowcount == 1


@pytest.mark.parametrize("stock", [True, False])
def test_who_matches_the_stock_slots_keeps_its_lock_to_the_end(make_home, stock):
    """Dagster's connections commit each statement by itself; its ``index_transaction`` does not."""
    home = make_home("postgres", stock=stock)
    with home.instance() as one, home.instance() as other:
        with one.event_log_storage.index_transaction() as connection:
            connection.execute(db.text("SELECT pg_advisory_xact_lock(1936486260)"))
            with other.event_log_storage.index_transaction() as beside:
                asked = db.text("SELECT pg_try_advisory_xact_lock(1936486260)")
                assert not beside.execute(asked).scalar()
        with other.event_log_storage.index_transaction() as beside:
            assert beside.execute(asked).scalar()


def test_slots_of_a_script_on_the_stock_storage_count_although_it_has_no_run(make_home, kind):
    with both(make_home(kind)) as (stock, ours):
        stock.event_log_storage.set_concurrency_slots("orders", 1)
        with LifeguardClient(stock, "script").slots("orders"):
            client = LifeguardClient(ours, "other")
            with pytest.raises(SlotsTimeoutError), client.slots("orders", timeout=0):
                raise AssertionError("let in")
        with client.slots("orders", timeout=300):
            pass


@pytest.mark.parametrize("ends", ["released", "run ended", "freed on the page"])
def test_a_slot_held_on_the_stock_storage_counts_until_it_is_freed(make_home, kind, ends):
    home = make_home(kind)
    with both(home) as (stock, ours):
        run = started_run(stock)
        dead = stock.run_storage.add_run(
            DagsterRun(job_name="job", status=DagsterRunStatus.FAILURE)
        )
        stock.event_log_storage.set_concurrency_slots("orders", 3)
        for step, owner in (("a", run), ("b", run), ("c", dead)):
            assert stock.event_log_storage.claim_concurrency_slot(
                "orders", owner.run_id, step
            ).is_claimed
        stock.event_log_storage.set_concurrency_slots("orders", 2)

        log = ours.event_log_storage
        claimed = {(s.run_id, s.step_key) for s in log.get_concurrency_info("orders").claimed_slots}
        assert claimed == {(run.run_id, "a"), (run.run_id, "b")}
        with InstanceConcurrencyContext(ours, DagsterRun(job_name="new")) as context:
            assert not context.claim("orders", "step")
            if ends == "released":
                stock.event_log_storage.free_concurrency_slot_for_step(run.run_id, "a")
            elif ends == "run ended":
                stock.report_run_failed(run)
            else:
                log.free_concurrency_slots_for_run(run.run_id)
            eventually(lambda: context.claim("orders", "step"), 20)
        assert not stock_claims(stock, "late")


def lifeguard(home, *arguments: str, code: int = 0) -> str:
    result = CliRunner().invoke(main, ["engine", *arguments, "--home", str(home.path)])
    assert result.exit_code == code, result.output
    return result.output


def text_of(home) -> str:
    return (home.path / "dagster.yaml").read_text()


def test_switched_on_and_off_again_leaves_a_working_stock_instance(make_home, kind):
    home = make_home(kind, stock=True)
    before = text_of(home)
    with home.instance() as stock:
        stock.event_log_storage.set_concurrency_slots("orders", 2)
        assert lifeguard(home, "status").startswith("storage      ")
        assert "+    class: Lifeguard" in lifeguard(home, "enable", "--dry-run")
        assert text_of(home) == before
        assert "The engine is on." in lifeguard(home, "enable", "--yes")
        assert "class: Lifeguard" in text_of(home)
        with home.instance() as ours:
            log = ours.event_log_storage
            log.set_concurrency_slots("orders", 1)
            assert log.claim_concurrency_slot("orders", "run", "step").is_claimed
            shown = lifeguard(home, "status")
            assert "orders: 1 slot, run run step step" in shown
            assert "processes    1" in shown
            found = json.loads(lifeguard(home, "status", "--json"))
            for part in (found, found["processes"][0], found["holders"][0]):
                assert all(f"`{name}`" in OPERATING.read_text() for name in part), part
            assert found["holders"] == [
                {
                    "world": "engine",
                    "pool": "orders",
                    "run_id": "run",
                    "step_key": "step",
                    "slots": 1,
                }
            ]
            shown = lifeguard(home, "disable", "--yes")
            assert "The engine is off." in shown
            assert "still use it: 1." in shown
            assert text_of(home) == before
            assert not stock_claims(stock, "run1")
            log.free_concurrency_slot_for_step("run", "step")
        eventually(lambda: stock_claims(stock, "run1"))
        assert not stock_claims(stock, "run2")
        stock.event_log_storage.free_concurrency_slots_for_run("run1")


def test_the_default_storage_is_switched_without_a_stanza(make_home, monkeypatch):
    home = make_home("sqlite", stock=True)
    monkeypatch.setenv("DAGSTER_HOME", str(home.path))
    before = "telemetry:\n  enabled: false"
    (home.path / "dagster.yaml").write_text(before)
    lifeguard(home, "enable", "--yes")
    assert "base_dir: {env: DAGSTER_HOME}" in text_of(home)
    with home.instance() as instance:
        instance.event_log_storage.set_concurrency_slots("orders", 1)
    lifeguard(home, "disable", "--yes")
    assert text_of(home).rstrip() == before


@pytest.mark.parametrize("verb", ["enable", "disable"])
def test_slots_that_do_not_match_their_limits_are_found_and_mended(make_home, kind, verb):
    home = make_home(kind)
    with home.instance() as ours:
        ours.event_log_storage.set_concurrency_slots("orders", 2)
        # As if the process had been killed before it wrote the stock storage's rows.
        ours.event_log_storage.lifeguard.engine.change_pool("orders", limit=3)
    assert "says of: orders." in lifeguard(home, "status", code=1)
    lifeguard(home, verb, "--yes")
    lifeguard(home, "status")
    home.write(stock=True)
    with home.instance() as stock:
        assert [stock_claims(stock, str(n)) for n in range(4)] == [True, True, True, False]


def test_what_fails_while_switching_on_puts_the_file_back(make_home, monkeypatch):
    home = make_home("sqlite", stock=True)
    before = text_of(home)

    def fail(instance):
        raise RuntimeError("no")

    monkeypatch.setattr(switch, "take_over", fail)
    result = CliRunner().invoke(main, ["engine", "enable", "--yes", "--home", str(home.path)])
    assert isinstance(result.exception, RuntimeError)
    assert text_of(home) == before


def test_an_instance_that_does_not_open_is_one_line_with_what_to_do(make_home, monkeypatch):
    """As where SQLAlchemy looks for another driver of PostgreSQL than dagster-postgres brings."""
    home = make_home("sqlite", stock=True)
    before = text_of(home)

    def fail(home):
        raise ModuleNotFoundError("No module named 'psycopg'", name="psycopg")

    monkeypatch.setattr(dg.DagsterInstance, "from_config", fail)
    result = CliRunner().invoke(main, ["engine", "enable", "--yes", "--home", str(home.path)])
    assert result.exit_code == 2
    said = " ".join(result.output.split())
    assert f"The instance in {home.path} cannot be opened: No module named 'psycopg'." in said
    assert "Write postgresql+psycopg2:// in postgres_url" in said
    assert text_of(home) == before


def test_a_storage_that_is_none_of_ours_is_left_alone(make_home):
    home = make_home("sqlite", stock=True)
    (home.path / "dagster.yaml").write_text("storage:\n  mysql:\n    mysql_url: x\n")
    assert "cannot be replaced" in lifeguard(home, "enable", "--yes", code=2)
