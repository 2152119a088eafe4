"""Estimates from plays of the present: when steps start and runs leave the queue."""

from __future__ import annotations

from dataclasses import replace

import pytest
from told import NOW, SETTINGS, Told, executed, holds, pool, run, waits

from dagster_lifeguard.compat.health import RunQueue
from dagster_lifeguard.engine.rules.model import Demand, TicketKey
from dagster_lifeguard.engine.rules.pool_settings import FallBack, PoolSettings
from dagster_lifeguard.engine.rules.rate import Rate, nanoseconds
from dagster_lifeguard.insight.estimate import PLAYS, Estimate, NoEstimate
from dagster_lifeguard.insight.outlook import read_outlook
from dagster_lifeguard.insight.past import read_past
from dagster_lifeguard.insight.shapes import Shape, Shapes, ShapeStep
from dagster_lifeguard.insight.simulation.arrivals import Change
from dagster_lifeguard.insight.simulation.estimating import TICKETS_MAX, estimate
from dagster_lifeguard.insight.simulation.present import Present, PresentRun, Standing
from dagster_lifeguard.insight.wording import estimate_text

INTERVAL = 10.0
"""So often the daemon looks; its phase is drawn, so an estimate is as uncertain."""


def past(holds=(), runs=()) -> Shapes:
    """A past in which each step held as long as told here, and runs were like these."""
    shapes = Shapes()
    for step, seconds in dict(holds).items():
        several = seconds if isinstance(seconds, (list, tuple)) else [seconds] * 4
        for one in several:
            shapes.add_hold(["db", "api"], step, one)
    for shape in runs:
        for _ in range(4):
            shapes.add_run(shape)
    return shapes


def ticket(run_id, step="step", ago=0.0, slots=1, **more):
    asked = slots if isinstance(slots, dict) else {"db": slots}
    return Standing(TicketKey(run_id, step), Demand.of(asked), NOW - ago, **more)


def present(limit=1, holding=(), waiting=(), *, rate=None, fair_by=None, **more) -> Present:
    settings = {"db": PoolSettings(limit, rate, fair_by), "api": PoolSettings(1)}
    return Present(NOW, settings, tuple(holding), tuple(waiting), **more)


def starts(now: Present, shapes: Shapes) -> list[float | str]:
    """When each waiter starts, in seconds, or why there is no estimate."""
    keys = [waiter.key for waiter in now.waiting]
    found, _ = estimate(now, shapes, keys)
    return [found[key].missing.value if found[key].missing else found[key].typical for key in keys]


class TestAtAPool:
    TENS = past({"step": 10.0, "long": 100.0, "short": 1.0})

    def test_one_after_the_other(self):
        waiting = [ticket(name) for name in "bcd"]
        now = present(1, [ticket("a", ago=4.0)], waiting)
        assert starts(now, self.TENS) == [6.0, 16.0, 26.0]
        now = present(2, [ticket("a", ago=4.0), ticket("z", ago=1.0)], waiting)
        assert starts(now, self.TENS) == [6.0, 9.0, 16.0]

    def test_free_slots_are_taken_at_once(self):
        assert starts(present(3, [ticket("a")], map(ticket, "bcd")), self.TENS) == [0, 0, 10.0]

    def test_a_lowered_limit_drains_first(self):
        now = present(1, [ticket("a", ago=9.0), ticket("b", ago=4.0)], [ticket("c"), ticket("d")])
        assert starts(now, self.TENS) == [6.0, 16.0]

    def test_the_end_of_a_temporary_limit_is_foreseen(self):
        later = (Change(NOW + 30.0, "db", PoolSettings(3)),)
        waiting = [ticket(name) for name in "bcd"]
        assert starts(present(0, (), waiting), self.TENS) == ["paused"] * 3
        assert starts(present(0, (), waiting, changes=later), self.TENS) == [30.0] * 3
        large = [ticket("b", slots=3)]
        assert starts(present(1, (), large, changes=later), self.TENS) == [30.0]

    def test_the_default_limit_is_what_a_temporary_limit_falls_back_to(self):
        paused = PoolSettings(0, fall_back=FallBack(NOW + 30.0, None))
        states = [replace(pool("db", 0, (), [waits("b")]), settings=paused)]
        told = Told(states, [run("b")], past=[executed("old", {"step": "db"}, 10.0)])
        settings = replace(SETTINGS, default_limit=2)
        look = read_outlook(
            told, settings, states, read_past(told, settings, NOW - 86400, NOW), NOW, told.all_runs
        )
        assert look.of_steps([TicketKey("b", "step")])[TicketKey("b", "step")].typical == 30.0

    def test_a_small_demand_passes_a_large_one_until_patience_is_over(self):
        holding = [ticket("a", ago=4.0), ticket("b", "long")]
        waiting = [ticket("large", slots=3, ago=1.0), ticket("small"), ticket("small2")]
        assert starts(present(3, holding, waiting), self.TENS) == [100.0, 0.0, 6.0]
        patient = present(3, holding, waiting, patience_seconds=0.5)
        assert starts(patient, self.TENS) == [100.0, 110.0, 110.0]

    def test_patience_is_over_in_the_middle_of_a_play(self):
        holding = [ticket("a", ago=4.0), ticket("b", "long")]
        waiting = [ticket("large", slots=3, ago=1.0), *(ticket(f"s{n}") for n in range(4))]
        found = starts(present(3, holding, waiting, patience_seconds=8.0), self.TENS)
        # Two pass at 0 and at 6; at 7 patience is over, and what ends then is kept free.
        assert found == [100.0, 0.0, 6.0, 110.0, 110.0]

    def test_a_higher_priority_is_first(self):
        waiting = [ticket("b"), ticket("c", priority=1)]
        assert starts(present(1, [ticket("a")], waiting), self.TENS) == [20.0, 10.0]

    def test_a_rate_delays(self):
        waiting = [ticket(name, "short") for name in "abc"]
        now = present(5, [], waiting, rate=Rate(1, 60), due_ns={"db": nanoseconds(NOW + 7.0)})
        assert starts(now, self.TENS) == pytest.approx([7.0, 67.0, 127.0])

    def test_a_fair_order_takes_turns(self):
        many = [ticket(f"m{n}", tags={"team": "many"}) for n in range(3)]
        one = ticket("one", tags={"team": "one"})
        holding = [ticket("h", tags={"team": "many"})]
        now = present(1, holding, [*many, one], fair_by="team")
        # The groups hold the same when the holder ends; after that it is the turn of the other.
        assert starts(now, self.TENS) == [10.0, 30.0, 40.0, 20.0]
        assert starts(present(1, holding, [*many, one]), self.TENS)[3] == 40.0

    def test_one_that_asks_for_two_pools_needs_both(self):
        holding = [ticket("a", ago=4.0), ticket("b", "long", slots={"api": 1})]
        waiting = [ticket("c", slots={"db": 1, "api": 1}), ticket("d")]
        assert starts(present(1, holding, waiting), self.TENS) == [100.0, 6.0]

    def test_the_remaining_time_is_drawn_from_longer_holds(self):
        mixed = past({"step": [1.0, 1.0, 1.0, 60.0, 60.0, 60.0]})
        assert starts(present(1, [ticket("a", ago=50.0)], [ticket("b")]), mixed) == [10.0]

    def test_the_range_is_the_middle_of_what_is_drawn(self):
        spread = past({"step": list(range(1, 101))})
        key = TicketKey("b", "step")
        found = estimate(present(1, [ticket("a")], [ticket("b")]), spread, [key])[0][key]
        assert 0 < found.soonest < found.typical < found.latest < 101
        assert (found.samples, found.plays) == (100, PLAYS[0])

    @pytest.mark.parametrize(
        ("now", "reason"),
        [
            (present(0, [], [ticket("b")]), NoEstimate.PAUSED),
            (present(1, [], [ticket("b", slots=2)]), NoEstimate.TOO_LARGE),
            (present(1, [ticket("a", is_stuck=True)], [ticket("b")]), NoEstimate.LEAKED),
            (present(1, [ticket("a", ago=50.0)], [ticket("b")]), NoEstimate.OUTLASTED),
            (present(1, [ticket("a", slots={"x": 1, "db": 1})], [ticket("b")]), None),
        ],
    )
    def test_why_there_is_none(self, now, reason):
        shapes = past({"step": 10.0})
        assert starts(now, shapes) == ([10.0] if reason is None else [reason.value])
        unknown = present(1, [ticket("a")], [ticket("b")])
        assert starts(unknown, Shapes()) == ["no-history"]

    def test_who_never_starts_holds_up_nobody(self):
        waiting = [ticket("large", slots=5), ticket("b")]
        assert starts(present(1, [ticket("a")], waiting), self.TENS) == ["too-large", 10.0]

    def test_the_further_back_the_fewer_plays_and_at_last_none(self):
        waiting = [ticket(f"w{n}") for n in range(TICKETS_MAX + 5)]
        now = present(1, [ticket("a")], waiting)
        keys = [waiter.key for waiter in waiting]
        found, _ = estimate(now, self.TENS, [keys[0], keys[-1]], work=1)
        assert found[keys[0]].plays == PLAYS[-1]
        assert found[keys[-1]].missing is NoEstimate.TOO_FAR

    def test_the_same_question_has_the_same_answer(self):
        spread = past({"step": list(range(1, 101))})
        now = present(2, [ticket("a")], map(ticket, "bcd"))
        keys = [waiter.key for waiter in now.waiting]
        assert estimate(now, spread, keys) == estimate(now, spread, keys)


def shape(*steps, starts=2.0, rest=3.0, job="job"):
    """A run whose steps, each with what it holds and for how long, follow each other."""
    made = tuple(
        ShapeStep(f"s{n}", Demand.of({name: 1}), starts if n == 0 else 1.0, seconds,
                  None if n == 0 else n - 1)
        for n, (name, seconds) in enumerate(steps)
    )  # fmt: skip
    pools = frozenset(name for name, _ in steps)
    return Shape(job, pools, starts, rest, made)


def queued(run_id, pools=("db",), **more):
    return PresentRun(run_id, "job", pools=frozenset(pools), first_pools={pools[0]: 1}, **more)


class TestInTheQueue:
    SHAPE = shape(("db", 20.0))
    """2 s to start, 20 s of its step, 3 s more."""
    RULES = RunQueue(1, (), heeds_pools=False, buffer=0, interval_seconds=INTERVAL)

    def leaves(self, now: Present, shapes: Shapes, run_id: str) -> Estimate:
        return estimate(now, shapes, (), [run_id])[1][run_id]

    def test_a_run_leaves_when_one_ends_and_the_daemon_looks(self):
        going_on = queued("a", launched=NOW - 12.0, started=NOW - 10.0)
        holding = [ticket("a", "s0", ago=10.0)]
        now = present(
            5, holding, going_on=(going_on,), queued=(queued("b"), queued("c")), rules=self.RULES
        )
        shapes = past({"s0": 20.0}, [self.SHAPE])
        # 10 s more of the step and 3 s more of the run; then up to a look.
        first = self.leaves(now, shapes, "b")
        assert 13.0 <= first.soonest < first.typical < first.latest <= 13.0 + INTERVAL
        # Then 2 + 20 + 3 s of the run, in which each look is a multiple of the interval later.
        second = self.leaves(now, shapes, "c")
        assert 13.0 + 25.0 <= second.soonest <= second.latest <= 13.0 + 3 * INTERVAL + INTERVAL

    def test_a_run_in_progress_goes_on_with_what_is_left_of_it(self):
        two = shape(("db", 20.0), ("db", 30.0))
        shapes = past({"s0": 20.0, "s1": 30.0}, [two])

        def leaves(holding, done):
            run = queued("a", launched=NOW - 12.0, started=NOW - 10.0, done=done)
            now = present(5, holding, going_on=(run,), queued=(queued("b"),), rules=self.RULES)
            return self.leaves(now, shapes, "b").soonest

        in_first = leaves([ticket("a", "s0", ago=10.0)], {})
        assert 10.0 + 1.0 + 30.0 + 3.0 <= in_first <= 44.0 + INTERVAL
        between = leaves([], {"s0": NOW - 0.5})
        assert 0.5 + 30.0 + 3.0 <= between <= 33.5 + INTERVAL
        in_second = leaves([ticket("a", "s1", ago=10.0)], {"s0": NOW - 11.0})
        assert 20.0 + 3.0 <= in_second <= 23.0 + INTERVAL
        ending = leaves([], {"s0": NOW - 33.0, "s1": NOW - 2.0})
        assert 1.0 <= ending <= 1.0 + INTERVAL

    def test_a_full_pool_keeps_a_run_until_a_slot_is_free(self):
        rules = RunQueue(-1, (), heeds_pools=True, buffer=0, interval_seconds=INTERVAL)
        now = present(1, [ticket("x", "s0", ago=5.0)], queued=(queued("b"),), rules=rules)
        found = self.leaves(now, past({"s0": 20.0}, [self.SHAPE]), "b")
        assert 15.0 <= found.soonest <= found.latest <= 15.0 + INTERVAL

    def test_a_launch_that_waits_for_the_start_keeps_the_daemon_from_others(self):
        rules = RunQueue(-1, (), heeds_pools=False, buffer=0, interval_seconds=0.1)
        slow = shape(("db", 20.0), starts=30.0)
        runs = tuple(queued(name) for name in "abc")
        for share, expected in ((0.0, 0.0), (1.0, 60.0)):
            shapes = past({}, [slow])
            shapes.launching_share = share
            found = self.leaves(present(9, queued=runs, rules=rules), shapes, "c")
            assert expected <= found.soonest <= found.latest <= expected + 0.2

    def test_a_run_that_starts_longer_than_all_others_starts_some_time(self):
        starting = queued("a", launched=NOW - 50.0)
        now = present(5, going_on=(starting,), queued=(queued("b"),), rules=self.RULES)
        found = self.leaves(now, past({"s0": 20.0}, [self.SHAPE]), "b")
        assert 20.0 + 3.0 < found.soonest < found.latest <= 50.0 + 20.0 + 3.0 + INTERVAL

    def test_too_little_is_known_of_a_job(self):
        going_on = queued("a", launched=NOW - 12.0, started=NOW - 10.0)
        now = present(5, going_on=(going_on,), queued=(queued("b"),), rules=self.RULES)
        assert self.leaves(now, Shapes(), "b").missing is NoEstimate.NO_HISTORY


class TestOfADeployment:
    def test_a_step_is_one_ticket_at_all_its_pools(self):
        states = [
            pool("api", 1, [holds("a", elapsed=5.0)]),
            pool("db", 1, [holds("a", elapsed=5.0)], [waits("b")]),
        ]
        told = Told(states, [run("a"), run("b")],
                    past=[executed(f"x{n}", {"step": "db"}, 30.0) for n in range(4)])  # fmt: skip
        found = read_outlook(
            told, SETTINGS, states, read_past(told, SETTINGS, NOW - 86400, NOW), NOW,
            told.unfinished_runs(),
        )  # fmt: skip
        key = TicketKey("b", "step")
        assert found.of_steps([key])[key].typical == 25.0

    def test_words(self):
        found = Estimate(60.0, 120.0, 300.0, samples=10, plays=199)
        assert estimate_text(found) == "in about 2m (1m to 5m)"
