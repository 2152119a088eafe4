"""Recordings of hand-made ledgers and event logs, and the answers to what if."""

from __future__ import annotations

import pytest
from dagster import AssetKey

from dagster_lifeguard.deployment.contract import Settings
from dagster_lifeguard.deployment.history import Outcome, RunExecution, StepExecution, read_span
from dagster_lifeguard.engine.engine import Engine
from dagster_lifeguard.engine.engine_options import EngineOptions
from dagster_lifeguard.engine.rules.model import Demand
from dagster_lifeguard.engine.rules.pool_settings import PoolSettings
from dagster_lifeguard.engine.store.memory.store import MemoryStore
from dagster_lifeguard.insight.simulation.advice import Target
from dagster_lifeguard.insight.simulation.advising import advise
from dagster_lifeguard.insight.simulation.answer import simulate
from dagster_lifeguard.insight.simulation.event_log_past import from_event_logs
from dagster_lifeguard.insight.simulation.ledger_past import from_ledger

STOCK = Settings("1.13.0", False, None, "op", 0, 1000)
WINDOW = (100.0, 1000.0)


def no_tags(run_ids):
    return {}


# ---- by event logs -------------------------------------------------------------------------------


def step(run_id, waiting, started, ended, pool="w", key="s"):
    outcome = Outcome.UNFINISHED if ended is None else Outcome.SUCCESS
    return StepExecution(
        run_id, key, (AssetKey(key),), 1, started, ended, outcome, None, pool, (), waiting
    )


def run(run_id, *steps, pools=("w",), in_process=False):
    return RunExecution(run_id, "job", "SUCCESS", None, None, None, None, steps, pools, in_process)


def recorded(*runs, live=None, tags_of=no_tags):
    live = {"w": PoolSettings(1)} if live is None else live
    return from_event_logs(runs, live, STOCK, WINDOW, tags_of)


def in_line(count=20, seconds=10.0):
    """Runs that all ask at once for a pool of one."""
    return [
        run(f"r{n}", step(f"r{n}", 100.0 if n else None, 100.0 + n * seconds, 110.0 + n * seconds))
        for n in range(count)
    ]


def of_pool(answer, pool="w"):
    (found,) = (found for found in answer.pools if found.pool == pool)
    return found


def codes(answer):
    return {doubt.code for doubt in answer.doubts}


def test_a_queue_that_was_played_as_it_was_has_no_error():
    fit = of_pool(simulate(recorded(*in_line()), {})).calibration
    assert (fit.trust, fit.error_p50, fit.error_p90) == ("good", 0.0, 0.0)
    assert (fit.recorded.p50, fit.recorded.p95, fit.waited) == (90.0, 180.0, 19)


def one_process(*, in_process):
    """A run asks for two steps at once, while the only slot is held until 110."""
    return recorded(
        run("held", step("held", None, 100.0, 110.0)),
        run(
            "r",
            step("r", 101.0, 110.0, 120.0, key="a"),
            step("r", 101.0, 120.0, 130.0, key="b"),
            in_process=in_process,
        ),
    )


def test_the_steps_of_one_process_stay_one_after_another_with_more_slots():
    recording = one_process(in_process=True)
    answer = simulate(recording, {"w": {"limit": 3}})
    assert of_pool(answer).after.most == 2
    # The second waits for the first, not for its pool.
    assert (recording.waited, recording.arrivals[2].after) == ((0.0, 9.0, 0.0), 1)
    assert of_pool(answer).calibration.error_p50 == 0.0
    assert "one-step-at-a-time" in codes(answer)
    # The steps of several processes would go on at once.
    answer = simulate(one_process(in_process=False), {"w": {"limit": 3}})
    assert of_pool(answer).after.most == 3
    assert "one-step-at-a-time" not in codes(answer)


def test_a_second_slot_halves_the_waits():
    answer = simulate(recorded(*in_line()), {"w": {"limit": 2}})
    found = of_pool(answer)
    assert (found.before.waits.p95, found.after.waits.p95) == (180.0, 90.0)
    assert (found.before.most, found.after.most) == (1, 2)
    assert found.before.utilisation == pytest.approx(200 / 900)
    assert found.after.utilisation == pytest.approx(200 / 1800)
    (gain,) = answer.gaining
    assert (gain.step_key, gain.before, gain.after, gain.executions) == ("s", 95.0, 45.0, 20)
    assert answer.losing == ()


def test_how_long_a_backfill_takes_is_told():
    tags = {"dagster/backfill": "b"}
    recording = recorded(*in_line(), tags_of=lambda ids: dict.fromkeys(ids, tags))
    (found,) = simulate(recording, {"w": {"limit": 2}}).backfills
    assert (found.backfill, found.runs, found.executions) == ("b", 20, 20)
    assert (found.before, found.after, found.change) == (200.0, 100.0, -100.0)
    (paused,) = simulate(recording, {"w": {"limit": 0}}).backfills
    assert (paused.after, paused.change) == (None, 0.0)
    assert simulate(recorded(*in_line()), {}).backfills == ()


def test_a_pause_is_said_to_let_nobody_in():
    found = of_pool(simulate(recorded(*in_line()), {"w": {"limit": 0}}))
    assert (found.after.waits.count, found.after.waits.never) == (0, 20)


def test_without_a_limit_nobody_waits_and_nothing_is_a_part_of_it():
    found = of_pool(simulate(recorded(*in_line()), {"w": {"limit": None, "rate": None}}))
    assert (found.after.waits.p95, found.after.utilisation, found.after.most) == (0.0, None, 20)


def test_an_answer_about_a_pool_that_had_no_limit_is_doubted():
    free = [run(f"r{n}", step(f"r{n}", None, 100.0, 110.0)) for n in range(20)]
    answer = simulate(recorded(*free, live={}), {"w": {"limit": 1}})
    assert "was-unlimited" in codes(answer)
    assert of_pool(answer).calibration.trust == "no-waits"
    assert of_pool(answer).after.waits.p95 == 180.0


def test_waits_that_the_rules_do_not_explain_are_a_poor_calibration():
    alone = [
        run(f"r{n}", step(f"r{n}", 100.0 + 40 * n, 120.0 + 40 * n, 130.0 + 40 * n))
        for n in range(15)
    ]
    answer = simulate(recorded(*alone), {})
    fit = of_pool(answer).calibration
    assert (fit.trust, fit.error_p50) == ("poor", 20.0)
    assert "poor-calibration" in codes(answer)


def test_few_waits_are_nothing_to_judge_by():
    assert of_pool(simulate(recorded(*in_line(3)), {})).calibration.trust == "too-few"


def test_a_step_follows_the_step_of_its_run_that_ended_before():
    first = [step("a", None, 100.0, 200.0, key="one"), step("a", None, 205.0, 300.0, key="two")]
    blocker = run("b", step("b", None, 99.0, 100.0))
    recording = recorded(blocker, run("a", *first))
    late = {"w": {"limit": 1}}
    assert [(a.key.step_key, a.at, a.after) for a in recording.arrivals] == [
        ("s", 99.0, None),
        ("one", 100.0, None),
        ("two", 5.0, 1),
    ]
    answer = simulate(recording, late)
    assert of_pool(answer).after.waits.p95 == 0.0


def test_what_cannot_be_played_is_said():
    known = run("a", step("a", None, 100.0, None))
    unknown = run("b", step("b", None, 100.0, 110.0, pool=None), pools=None)
    answer = simulate(recorded(known, unknown), {"nobody": {"limit": 1}})
    assert {"unfinished", "unknown-plans", "settings-of-today", "no-executions"} <= codes(answer)


def test_a_fair_order_is_by_the_tags_of_runs():
    many = [
        run(f"b{n}", step(f"b{n}", 100.0 if n else None, 100.0 + 10 * n, 110.0 + 10 * n, key="big"))
        for n in range(20)
    ]
    one = run("small", step("small", 101.0, 300.0, 310.0, key="small"))
    recording = recorded(
        *many,
        one,
        tags_of=lambda ids: {i: {"team": "small" if i == "small" else "big"} for i in ids},
    )
    answer = simulate(recording, {"w": {"fair_by": "team"}})
    (gain,) = answer.gaining
    (loss,) = answer.losing
    assert (gain.step_key, loss.step_key) == ("small", "big")
    assert gain.before > 10 * gain.after


# ---- by the ledger -------------------------------------------------------------------------------


class Deployed:
    """An engine whose clock is set by hand."""

    def __init__(self, **limits):
        self.now = 0.0
        self.store = MemoryStore(lambda: self.now)
        self.engine = Engine(self.store, EngineOptions(lease_seconds=1e9))
        self.engine.set_pools({pool: PoolSettings(limit) for pool, limit in limits.items()})

    def claim(self, at, run_id, slots=None):
        self.now = at
        return self.engine.claim(run_id, "s", Demand.of(slots or {"w": 1})).granted

    def set_without_ledger(self, pool, limit):
        self.store.rows.settings[pool] = PoolSettings(limit)

    def release(self, at, run_id):
        self.now = at
        assert self.engine.release(run_id, "s")

    def recording(self, since=100.0, until=1000.0, tags_of=no_tags):
        live = self.store.settings()
        limits = {pool: settings.limit for pool, settings in live.items()}
        past = read_span(self.store, limits, {}, since=since)
        return from_ledger(past, live, None, (since, until), tags_of)


@pytest.fixture
def deployed():
    made = []

    def make(**limits):
        made.append(Deployed(**limits))
        return made[-1]

    yield make
    for one in made:
        one.engine.close()


def one_after_another(at, count=12):
    for n in range(count):
        assert at.claim(100.0, f"r{n}") == (n == 0)
    for n in range(count):
        at.release(110.0 + 10 * n, f"r{n}")
        if n + 1 < count:
            assert at.claim(110.0 + 10 * n, f"r{n + 1}")


def test_what_the_engine_did_is_played_without_an_error(deployed):
    at = deployed(w=1)
    one_after_another(at)
    answer = simulate(at.recording(), {"w": {"limit": 3}})
    fit = of_pool(answer).calibration
    assert (fit.trust, fit.error_p90, fit.recorded.p95, answer.source) == (
        "good",
        0.0,
        110.0,
        "ledger",
    )
    assert of_pool(answer).after.waits.p95 == 30.0


def test_a_limit_that_was_changed_is_changed_in_the_play(deployed):
    at = deployed(w=2)
    one_after_another_until = 150.0
    assert at.claim(100.0, "a")
    assert at.claim(100.0, "b")
    assert not at.claim(101.0, "c")
    at.now = 120.0
    at.engine.change_pool("w", limit=3)
    assert at.claim(120.0, "c")
    for run_id in "abc":
        at.release(one_after_another_until, run_id)
    recording = at.recording()
    assert recording.settings["w"].limit == 2
    assert [(c.at, c.settings.limit) for c in recording.changes] == [(120.0, 3)]
    answer = simulate(recording, {})
    fit = of_pool(answer).calibration
    assert (fit.recorded.p95, fit.played.p95, fit.error_p90) == (19.0, 19.0, 0.0)
    assert "changed-meanwhile" in codes(answer)


def paused_until_150(at):
    """A pool of one slot that is paused from 120 to 150, and three runs that ask for it."""
    assert at.claim(100.0, "a")
    at.release(110.0, "a")
    at.now = 120.0
    at.engine.limit_until("w", 0, 150.0)
    assert not at.claim(125.0, "b")
    at.now = 150.0
    assert at.claim(150.0, "b")
    assert not at.claim(151.0, "c")
    at.release(160.0, "b")
    assert at.claim(160.0, "c")
    at.release(170.0, "c")


def test_a_temporary_limit_ends_in_the_play_when_it_ended(deployed):
    at = deployed(w=1)
    paused_until_150(at)
    recording = at.recording()
    assert recording.settings["w"].limit == 1
    assert [(c.at, c.settings.limit) for c in recording.changes] == [(120.0, 0), (150.0, 1)]
    assert recording.waited == (0.0, 25.0, 9.0)
    answer = simulate(recording, {})
    fit = of_pool(answer).calibration
    assert (fit.recorded.p95, fit.played.p95, fit.error_p90, fit.played.never) == (25.0, 25.0, 0, 0)
    assert "changed-meanwhile" in codes(answer)
    assert of_pool(answer).before.settings.limit == 1
    # Another limit counts for all of the window, also while the pool was paused.
    answer = simulate(recording, {"w": {"limit": 2}})
    assert of_pool(answer).after.waits.p95 == 0.0
    assert of_pool(answer).after.settings.limit == 2


def test_a_temporary_limit_that_no_entry_of_its_pool_came_after_ends(deployed):
    at = deployed(w=1)
    assert at.claim(100.0, "a")
    at.release(110.0, "a")
    at.now = 120.0
    at.engine.limit_until("w", 3, 150.0)
    recording = at.recording(until=200.0)
    assert [(c.at, c.settings.limit) for c in recording.changes] == [(120.0, 3), (150.0, 1)]
    # 50 s with one slot, 30 s with three, 20 s with one.
    assert of_pool(simulate(recording, {})).before.utilisation == pytest.approx(10 / 160)


def test_a_temporary_limit_that_has_not_ended_is_not_what_is_set_for_good(deployed):
    at = deployed(w=1)
    assert at.claim(100.0, "a")
    at.release(110.0, "a")
    at.now = 120.0
    at.engine.limit_until("w", 0, 150.0)
    recording = at.recording(until=140.0)
    assert of_pool(simulate(recording, {})).before.settings.limit == 0
    (advised,) = advise(recording, Target(0.95, 60.0)).pools
    assert (advised.settings.limit, advised.limit) == (1, 1)


def test_a_window_that_begins_within_a_temporary_limit_begins_with_it(deployed):
    at = deployed(w=1)
    paused_until_150(at)
    recording = at.recording(since=130.0)
    assert recording.settings["w"].limit == 0
    assert [(c.at, c.settings.limit) for c in recording.changes] == [(150.0, 1)]
    fit = of_pool(simulate(recording, {})).calibration
    assert (fit.recorded.p95, fit.played.p95) == (25.0, 25.0)


@pytest.mark.parametrize("asks_before", [True, False])
def test_a_window_that_begins_after_a_temporary_limit_knows_nothing_of_it(deployed, asks_before):
    at = deployed(w=1)
    at.now = 120.0
    at.engine.limit_until("w", 0, 150.0)
    if asks_before:
        assert at.claim(151.0, "a")
        at.release(152.0, "a")
    assert at.claim(160.0, "b")
    at.release(170.0, "b")
    recording = at.recording(since=155.0)
    assert (recording.settings["w"].limit, recording.changes) == (1, ())
    assert "changed-meanwhile" not in codes(simulate(recording, {}))


def test_before_the_first_change_that_is_known_a_pool_had_its_lasting_limit(deployed):
    """The limit was set where the engine has no ledger, such as on Dagster's own storage."""
    at = deployed(x=1)
    at.set_without_ledger("w", 1)
    assert at.claim(100.0, "of another pool", {"x": 1})
    at.now = 120.0
    at.engine.limit_until("w", 3, 150.0)
    assert at.claim(160.0, "a")
    at.release(170.0, "a")
    recording = at.recording(until=200.0)
    assert recording.settings["w"].limit == 1
    assert [(c.at, c.settings.limit) for c in recording.changes] == [(120.0, 3), (150.0, 1)]
    assert of_pool(simulate(recording, {})).before.utilisation == pytest.approx(10 / 160)


def test_who_held_before_the_window_holds_in_the_play_and_is_not_judged(deployed):
    at = deployed(w=1)
    assert at.claim(50.0, "old")
    assert not at.claim(99.0, "a")
    at.release(120.0, "old")
    assert at.claim(120.0, "a")
    at.release(130.0, "a")
    recording = at.recording(since=110.0)
    assert recording.waited == (None, 21.0)
    found = of_pool(simulate(recording, {}))
    assert (found.calibration.recorded.count, found.calibration.error_p90) == (1, 0.0)


def test_a_demand_of_several_pools_is_one_execution(deployed):
    at = deployed(w=2, x=1)
    assert at.claim(100.0, "a", {"w": 2, "x": 1})
    at.release(130.0, "a")
    (arrival,) = at.recording().arrivals
    assert (arrival.demand, arrival.seconds) == (Demand.of({"w": 2, "x": 1}), 30.0)


def test_priorities_are_those_of_runs(deployed):
    at = deployed(w=1)
    assert at.claim(100.0, "a")
    at.release(130.0, "a")
    recording = at.recording(tags_of=lambda ids: {"a": {"dagster/priority": "7"}})
    assert recording.arrivals[0].priority == 7
