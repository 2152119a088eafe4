"""Slots inside the steps of real runs, and inside scripts: shown, handed over, freed by death."""

from __future__ import annotations

from pathlib import Path

import dagster as dg
import pytest
from homes import eventually, holders, kill, limit, waiters

from dagster_lifeguard import LifeguardClient
from dagster_lifeguard.errors import ConfigError, SlotsTimeoutError
from dagster_lifeguard.storage import switch

INSIDE = Path(__file__).with_name("inside.py")


@pytest.mark.parametrize(
    ("kind", "executor"), [("sqlite", "step_delegating"), ("postgres", "multiprocess")]
)
def test_slots_inside_a_step_are_shown_and_handed_over(make_home, kind, executor):
    home = make_home(kind)
    limit(home, pool="api")
    first = home.materialize("calling", INSIDE, EXECUTOR=executor)
    ((run_id, _),) = home.started(asset="calling").items()
    with home.instance() as instance:
        key = home.control.joinpath("calling.key").read_text()
        assert holders(instance, "api") == [(run_id, key)]
        info = instance.event_log_storage.get_concurrency_info("api")
        assert [(slot.run_id, slot.step_key) for slot in info.claimed_slots] == [(run_id, key)]
        assert [(h.run_id, h.step_key) for h in switch.status(instance).holders] == [(run_id, key)]
        script = home.start("python", str(INSIDE))
        ((script_id, name),) = eventually(lambda: waiters(instance, "api"))
        assert name.startswith("inside.py[slots:")
        home.go("calling")
        assert home.started(asset="script").keys() == {script_id}
        assert first.wait() == 0, first.output()
        many = home.materialize("calling_many_times", INSIDE, EXECUTOR=executor)
        eventually(lambda: len(waiters(instance, "api")) == 8)
        home.go("script")
        assert script.wait() == 0, script.output()
        assert many.wait() == 0, many.output()
        assert holders(instance, "api") == waiters(instance, "api") == []


@pytest.mark.parametrize("killed", ["step", "script"])
def test_a_process_that_dies_frees_its_slots(make_home, killed):
    home = make_home("sqlite", lease_seconds=3)
    limit(home, pool="api")
    if killed == "script":
        process = home.start("python", str(INSIDE))
        home.started(asset="script")
    else:
        process = home.materialize("calling", INSIDE)
        home.started(asset="calling")
    kill(process.popen.pid)
    process.wait()
    with home.instance() as instance:
        assert len(holders(instance, "api")) == 1
        with LifeguardClient(instance, "next").slots("api", timeout=120) as found:
            assert holders(instance, "api") == [found.key]


def test_a_step_whose_own_process_dies_gives_back_at_once(make_home):
    """Its run worker says that it has failed: no need to wait for the lease."""
    home = make_home("sqlite", lease_seconds=600)
    limit(home, pool="api")
    run = home.materialize("calling", INSIDE, EXECUTOR="multiprocess")
    ((_, pid),) = home.started(asset="calling").items()
    kill(pid)
    assert run.wait() != 0
    with home.instance() as instance:
        assert holders(instance, "api") == []


def test_freeing_a_step_by_hand_frees_what_is_inside(make_home):
    with make_home("sqlite").instance() as instance:
        log = instance.event_log_storage
        log.set_concurrency_slots("api", 2)
        client = LifeguardClient(instance, "script")
        with client.slots("api") as one, client.slots("api") as two:
            log.free_concurrency_slot_for_step(*two.key)
            assert holders(instance, "api") == [one.key]
            log.free_concurrency_slot_for_step(*one.key.step)
            assert holders(instance, "api") == []


@pytest.mark.parametrize(
    ("kind", "executor"), [("sqlite", "in_process"), ("postgres", "step_delegating")]
)
def test_of_two_runs_in_a_deadlock_the_youngest_fails_and_the_other_goes_on(
    make_home, kind, executor
):
    home = make_home(kind)
    limit(home, pool="orders")
    limit(home, pool="revenue")
    runs = {name: home.materialize(name, INSIDE, EXECUTOR=executor) for name in ("north", "south")}
    with home.instance() as instance:
        for name in runs:
            home.started(asset=name)
        home.go("north")
        eventually(lambda: waiters(instance, "revenue"))
        home.go("south")
        assert runs["south"].wait() != 0
        assert runs["north"].wait() == 0, runs["north"].output()
        assert home.control.joinpath("north.outcome").read_text() == "let in"
        outcome = home.control.joinpath("south.outcome").read_text()
        assert "waits for orders; north[slots:" in outcome
        assert holders(instance, "orders") == holders(instance, "revenue") == []


def test_a_timeout_fails_the_step(make_home):
    home = make_home("sqlite")
    with home.instance() as instance:
        limit(home, slots=0, pool="api")
        run = home.materialize("hasty", INSIDE)
        assert run.wait() != 0
        assert "SlotsTimeoutError: api was not free within 0 s: api is paused" in run.output()
        assert waiters(instance, "api") == []


class TestStock:
    def test_one_slot_is_given_waited_for_and_given_back(self, make_home, caplog):
        home = make_home("sqlite", stock=True)
        with home.instance() as instance:
            log = instance.event_log_storage
            log.set_concurrency_slots("api", 1)
            process = home.start("python", str(INSIDE))
            home.started(asset="script")
            client = LifeguardClient(instance, "test")
            with pytest.raises(SlotsTimeoutError), client.slots("api", timeout=0):
                pass
            assert log.get_concurrency_info("api").pending_step_count == 0
            home.go("script")
            with client.slots("api", timeout=120):
                (slot,) = log.get_concurrency_info("api").claimed_slots
                assert slot.step_key.startswith("test[slots:")
            assert log.get_concurrency_info("api").active_slot_count == 0
            with client.slots("unlimited"):
                pass
            assert "api" in log.get_concurrency_keys()
            log.set_concurrency_slots("api", 0)
            with pytest.raises(SlotsTimeoutError), client.slots("api", timeout=0):
                pass
            assert process.wait() == 0, process.output()
        warnings = [r.message for r in caplog.records if r.name.startswith("dagster_lifeguard")]
        assert len(warnings) == 1
        assert "Slots are asked of SqliteEventLogStorage: coinciding claims may" in warnings[0]

    def test_a_pool_without_a_limit_has_the_default_one(self, make_home):
        home = make_home("sqlite", stock=True, concurrency={"pools": {"default_limit": 1}})
        with home.instance() as instance:
            client = LifeguardClient(instance)
            with (
                client.slots("api"),
                pytest.raises(SlotsTimeoutError),
                client.slots("api", timeout=0),
            ):
                pass

    def test_more_than_one_slot_is_an_error(self, make_home):
        with make_home("sqlite", stock=True).instance() as instance:
            client = LifeguardClient(instance)
            for pool, n in [("api", 2), ("api+other", 1)]:
                with (
                    pytest.raises(ConfigError, match="more than one slot of one pool"),
                    client.slots(pool, n),
                ):
                    pass


def test_a_context_of_no_step():
    from dagster_lifeguard import slots

    with pytest.raises(ConfigError, match="belongs to no step that Dagster executes"):
        slots(dg.build_asset_context(), "api")
