"""Workers on the stock storage beside ours: they wait, and what they hold is respected."""

from __future__ import annotations

from contextlib import contextmanager

import dagster as dg
import pytest
from click.testing import CliRunner
from dagster._core.execution.plan.instance_concurrency_context import InstanceConcurrencyContext
from dagster._core.storage.dagster_run import DagsterRun, DagsterRunStatus
from homes import eventually

from dagster_lifeguard.cli import main
from dagster_lifeguard.storage import switch


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


def test_a_stock_worker_finds_no_slot_whatever_it_does(make_home, kind):
    home = make_home(kind, concurrency={"pools": {"default_limit": 1}})
    with both(home) as (stock, ours):
        ours.event_log_storage.set_concurrency_slots("orders", 2)
        for pool in ("orders", "new to all"):
            run = DagsterRun(job_name="job")
            with InstanceConcurrencyContext(stock, run) as context:
                assert not context.claim(pool, "step")
            stock.event_log_storage.set_concurrency_slots(pool, 3)
            with InstanceConcurrencyContext(stock, run) as context:
                assert not context.claim(pool, "step")
        limits = {p.name: p.limit for p in ours.event_log_storage.get_pool_limits()}
        assert limits == {"orders": 3, "new to all": 3}
        for number in range(3):
            assert ours.event_log_storage.claim_concurrency_slot(
                "orders", str(number), "s"
            ).is_claimed
        assert not ours.event_log_storage.claim_concurrency_slot("orders", "4", "s").is_claimed


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
        assert not stock.event_log_storage.claim_concurrency_slot("orders", "late", "s").is_claimed


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
        assert "stock slots  closed" in lifeguard(home, "status")
        with home.instance() as ours:
            log = ours.event_log_storage
            log.set_concurrency_slots("orders", 1)
            assert log.claim_concurrency_slot("orders", "run", "step").is_claimed
            shown = lifeguard(home, "status")
            assert "orders: 1 slot, run run step step" in shown
            assert "processes    1" in shown
            assert "engine-busy" not in lifeguard(home, "disable", "--yes", code=2)
            assert "class: Lifeguard" in text_of(home)
            log.free_concurrency_slot_for_step("run", "step")
        assert "The engine is off." in lifeguard(home, "disable", "--yes")
        assert text_of(home) == before
        log = stock.event_log_storage
        assert log.claim_concurrency_slot("orders", "run1", "step").is_claimed
        assert not log.claim_concurrency_slot("orders", "run2", "step").is_claimed
        log.free_concurrency_slots_for_run("run1")


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


def test_a_stanza_taken_out_by_hand_is_found_and_mended(make_home):
    home = make_home("sqlite")
    with home.instance() as ours:
        ours.event_log_storage.set_concurrency_slots("orders", 1)
    home.write(stock=True)
    assert "waits for ever" in lifeguard(home, "status", code=1).replace("\n", " ")
    lifeguard(home, "disable", "--yes")
    lifeguard(home, "status")
    with home.instance() as stock:
        assert stock.event_log_storage.claim_concurrency_slot("orders", "run", "step").is_claimed


def test_what_fails_while_switching_on_puts_the_file_back(make_home, monkeypatch):
    home = make_home("sqlite", stock=True)
    before = text_of(home)

    def fail(instance):
        raise RuntimeError("no")

    monkeypatch.setattr(switch, "take_over", fail)
    result = CliRunner().invoke(main, ["engine", "enable", "--yes", "--home", str(home.path)])
    assert isinstance(result.exception, RuntimeError)
    assert text_of(home) == before


def test_a_storage_that_is_none_of_ours_is_left_alone(make_home):
    home = make_home("sqlite", stock=True)
    (home.path / "dagster.yaml").write_text("storage:\n  mysql:\n    mysql_url: x\n")
    assert "cannot be replaced" in lifeguard(home, "enable", "--yes", code=2)


def test_forced_off_keeps_what_stock_runs_hold(make_home):
    home = make_home("sqlite", stock=True)
    with home.instance() as stock:
        run = started_run(stock)
        stock.event_log_storage.set_concurrency_slots("orders", 1)
        assert stock.event_log_storage.claim_concurrency_slot("orders", run.run_id, "a").is_claimed
        lifeguard(home, "enable", "--yes")
        lifeguard(home, "disable", "--yes", code=2)
        lifeguard(home, "disable", "--yes", "--force")
        assert not stock.event_log_storage.claim_concurrency_slot("orders", "next", "a").is_claimed
        stock.event_log_storage.free_concurrency_slot_for_step(run.run_id, "a")
        stock.event_log_storage.free_concurrency_slot_for_step("next", "a")
        assert stock.event_log_storage.claim_concurrency_slot("orders", "third", "a").is_claimed
