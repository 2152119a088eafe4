"""Pools in outline and in full, and what the past says of them."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console, Group
from told import BY_RUN, NOW, SETTINGS, Told, executed, holds, pool, run, waits

from dagster_lifeguard.cli.pool_tables import overview_table
from dagster_lifeguard.engine.rules.model import WaitReason
from dagster_lifeguard.engine.rules.rate import Rate, nanoseconds
from dagster_lifeguard.insight.durations import Durations, Sample, Spread, quantile
from dagster_lifeguard.insight.outlook import read_outlook
from dagster_lifeguard.insight.overview import overview
from dagster_lifeguard.insight.past import read_past
from dagster_lifeguard.insight.pools import look_into, runs_in
from dagster_lifeguard.insight.waits import NOBODY

NOTHING = Durations(NOW, NOW)


def past(*executions, settings=SETTINGS) -> Durations:
    return read_past(Told(past=list(executions)), settings, NOW - 86400, NOW)


class TestPast:
    def test_waits_and_holds_are_counted_by_pool(self):
        found = past(
            executed("a", {"load": "db"}, 10.0),
            executed("b", {"load": "db", "other": "api"}, 30.0, waited=5.0),
        )
        assert found.waits["db"].seconds == (0.0, 5.0)
        assert found.holds["db"].seconds == (10.0, 30.0)
        assert found.holds["api"].seconds == (30.0,)
        assert found.own_holds["db", "load"].seconds == (10.0, 30.0)

    def test_what_goes_on_has_waited_and_not_held(self):
        found = past(executed("a", {"load": "db"}, 10.0, waited=4.0, ended=False))
        assert found.waits["db"].seconds == (4.0,)
        assert "db" not in found.holds

    def test_under_granularity_run_the_run_waits_and_holds(self):
        found = past(executed("a", {"x": "db", "y": "api"}, 10.0, queued=7.0), settings=BY_RUN)
        assert found.waits["db"].seconds == found.waits["api"].seconds == (7.0,)
        assert found.own_holds["api", "job"].seconds == (10.0,)

    @pytest.mark.parametrize(
        ("engine", "pools"),
        [(True, {"db", "api"}), (None, {"db", "api"}), (False, {"{hold:step}db+api*2"})],
    )
    def test_an_expression_is_several_pools_where_there_may_be_an_engine(self, engine, pools):
        settings = replace(SETTINGS, engine=engine)
        assert (
            past(executed("a", {"x": "{hold:step}db+api*2"}, 1.0), settings=settings).holds.keys()
            == pools
        )

    @pytest.mark.parametrize(
        ("text", "partition", "pool"),
        [
            ("db[{partition}]", "2024 01", "db[2024%2001]"),
            ("{keys:=%Y-%m-%d}db[{partition:%Y}]", "2024-01-01", "db[2024]"),
            ("{keys:=%Y-%m-%d}db[{partition:%Y}]", "never", "db[{partition:%Y}]"),
        ],
    )
    def test_a_partition_is_filled_in(self, text, partition, pool):
        execution = executed("a", {"x": "{hold:step}" + text}, 1.0)
        steps = tuple(replace(step, partitions=(partition,)) for step in execution.steps)
        settings = replace(SETTINGS, engine=True)
        found = past(replace(execution, steps=steps), settings=settings)
        assert found.holds.keys() == {pool}

    @given(
        st.lists(st.integers(0, 10**6), min_size=1, max_size=40).map(sorted),
        st.sampled_from([5, 10, 25, 50, 75, 90, 95, 100]),
    )
    def test_a_quantile_is_the_smallest_that_so_many_do_not_exceed(self, ordered, percent):
        enough = [
            v for v in ordered if 100 * sum(o <= v for o in ordered) >= percent * len(ordered)
        ]
        assert quantile(ordered, percent / 100) == min(enough)

    def test_a_step_of_its_own_counts_before_its_pool(self):
        few, many = Sample.of([1.0, 2.0]), Sample.of([7.0, 8.0, 9.0])
        own = {("db", "few"): few, ("db", "many"): many}
        found = Durations(0, 1, holds={"db": Sample.of(range(10))}, own_holds=own)
        assert found.holds_of("db", "many") is many
        assert len(found.holds_of("db", "few")) == 10
        assert found.holds_of("other", "many") is None

    def test_quantiles_are_durations_that_were_seen(self):
        assert Sample.of(range(1, 101)).spread() == Spread(100, 50, 95)
        assert Sample.of([3.0]).spread() == Spread(1, 3.0, 3.0)
        assert Sample.of([1.0, 100.0]).spread() == Spread(2, 1.0, 100.0)
        assert Sample.of([]).spread() is None


class TestOverview:
    def look(self, *states, settings=SETTINGS, past=NOTHING):
        return overview(states, NOBODY, settings, past, NOW)

    def test_pools_under_most_pressure_come_first(self):
        found = self.look(
            pool("idle", 5),
            pool("half", 4, [holds("a"), holds("b")]),
            pool("unlimited", None, [holds("c")]),
            pool("paused", 0, [], [waits("d")]),
            pool("crowded", 1, [holds("e")], [waits("f"), waits("g")]),
            pool("busy", 1, [holds("h")], [waits("i", waited=50.0)]),
            pool("busy too", 1, [holds("j")], [waits("k", waited=60.0)]),
        )
        order = ["paused", "crowded", "busy too", "busy", "half", "unlimited", "idle"]
        assert [p.pool for p in found.pools] == order
        assert [p.pool for p in found.busy] == order[:-1]

    def test_a_pool_in_outline(self):
        state = pool("db", 4, [holds("a", slots=3)], [waits("b", slots=2), waits("c", waited=9.0)])
        executions = [executed("x", {"s": "db"}, 1.0, waited=float(n)) for n in range(20)]
        (found,) = self.look(state, past=past(*executions)).pools
        assert (found.held, found.waiting, found.wanted, found.oldest_wait) == (3, 2, 3, 9.0)
        assert (found.utilisation, found.pressure, found.is_idle) == (0.75, 1.5, False)
        assert found.waits == Spread(20, 9.0, 18.0)

    def test_pools_that_were_used_in_the_window_are_listed_beside_those_in_use(self):
        pools = {"a": "db", "b": "used", "c": "daily[{partition}]"}
        ran = executed("x", pools, 1.0, waited=3.0)
        settings = replace(SETTINGS, default_limit=2)
        found = self.look(pool("db", 4, [holds("a")]), settings=settings, past=past(ran))
        busy, used = found.pools
        assert (busy.pool, busy.limit, busy.from_default) == ("db", 4, False)
        assert (used.pool, used.limit, used.from_default) == ("used", 2, True)
        assert (used.is_idle, used.waits) == (True, Spread(1, 3.0, 3.0))
        assert self.look(past=past(ran)).pools[0].limit is None

    def test_a_step_that_waits_at_two_pools_is_counted_once(self):
        states = [pool(name, 1, [], [waits("a")]) for name in ("x", "y")]
        found = self.look(*states)
        assert (found.waiting, found.held, found.oldest_wait) == (1, 0, 5.0)

    def test_what_is_not_told_is_none(self):
        state = pool("db", 1, [], [replace(waits("a"), since=None)])
        found = self.look(state)
        assert found.pools[0].oldest_wait is found.oldest_wait is found.pools[0].waits is None

    def test_nothing(self):
        found = self.look()
        assert (found.pools, found.held, found.waiting, found.oldest_wait) == ((), 0, 0, None)


class TestPool:
    def look(self, state, *runs, past=NOTHING):
        told = Told([state], list(runs))
        outlook = read_outlook(told, SETTINGS, [state], past, NOW, told.unfinished_runs())
        return look_into(state, NOBODY, {r.run_id: r for r in runs}, past, NOW, outlook)

    def test_holders_and_queue(self):
        executions = [executed(f"x{n}", {"step": "db"}, 30.0) for n in range(5)]
        state = pool("db", 1, [holds("a", elapsed=12.0)], [waits("b"), waits("c", priority=-1)])
        found = self.look(state, run("a"), run("b", job_name="nightly"), past=past(*executions))
        (holder,) = found.holders
        assert (holder.job_name, holder.run_status, holder.elapsed) == ("job", "STARTED", 12.0)
        assert (holder.typical, holder.is_leaked) == (Spread(5, 30.0, 30.0), False)
        first, second = found.queue
        assert (first.position, first.job_name, first.waited) == (1, "nightly", 5.0)
        assert (second.position, second.priority, second.job_name) == (2, -1, None)
        assert (first.estimate.typical, second.estimate.typical) == (18.0, 48.0)
        assert found.holds == Spread(5, 30.0, 30.0)

    @pytest.mark.parametrize("runs", [(), (run("a", "SUCCESS"),)])
    def test_a_holder_whose_run_is_over_is_leaked(self, runs):
        found = self.look(pool("db", 1, [holds("a")], [waits("b")]), *runs)
        assert found.holders[0].is_leaked
        assert found.queue[0].estimate.missing.value == "leaked"

    def test_a_script_has_no_run_and_its_slots_are_its_own(self):
        found = self.look(pool("db", 1, [holds("script-host-0a1b", "load.py")], [waits("b")]))
        assert not found.holders[0].is_leaked
        assert found.queue[0].estimate.missing.value != "leaked"

    def test_a_rate_is_a_reason_and_tells_when(self):
        queue = [waits("a"), waits("large", slots=3), waits("b"), waits("c")]
        state = pool("api", 2, [], queue, rate=Rate.parse("60/minute"))
        due = replace(state, due_ns=nanoseconds(NOW + 0.5))
        told = [(w.reason, w.estimate.typical) for w in self.look(due).queue]
        assert told[0] == (WaitReason.RATE, 0.5)
        assert told[1][0] is WaitReason.TOO_LARGE
        assert [reason for reason, _ in told[2:]] == [WaitReason.RATE, WaitReason.BEHIND]
        assert [w.reason for w in self.look(state).queue[:3:2]] == [
            WaitReason.NEXT,
            WaitReason.RATE,
        ]
        unlimited = replace(
            due, settings=replace(due.settings, limit=None), waiting=(waits("a"), waits("b"))
        )
        told = [(w.reason, w.estimate.latest) for w in self.look(unlimited).queue]
        assert told == [(WaitReason.RATE, 0.5), (WaitReason.RATE, 1.5)]
        assert self.look(due).summary.settings == {"rate": "60/minute"}

    def test_a_fair_order_tells_the_group_of_each(self):
        holding, waiting = replace(holds("a"), group="x"), replace(waits("b"), group="")
        found = self.look(pool("api", 1, [holding], [waiting], fair_by="team"))
        assert found.summary.settings == {"order": "fair(tag:team)"}
        assert [one.group for one in (*found.holders, *found.queue)] == ["x", ""]

    def test_reasons(self):
        def reasons(*args, **more):
            return [waiter.reason for waiter in self.look(pool("db", *args, **more)).queue]

        assert reasons(0, [], [waits("a")]) == [WaitReason.PAUSED]
        assert reasons(1, [holds("a")], [waits("b")]) == [WaitReason.FULL]
        assert reasons(1, [], [waits("a"), waits("b")]) == [WaitReason.NEXT, WaitReason.BEHIND]
        promised = replace(waits("a"), assigned=NOW)
        assert reasons(1, [], [promised]) == [WaitReason.PROMISED]
        assert reasons(1, [holds("b")], [promised]) == [WaitReason.FULL]
        large = waits("a", slots=3)
        assert reasons(2, [], [large, waits("b")]) == [WaitReason.TOO_LARGE, WaitReason.NEXT]
        two = [holds("a")], [waits("b", slots=2), waits("c")]
        assert reasons(2, *two) == [WaitReason.FULL, WaitReason.NEXT]

    def test_who_waits_for_what_is_unlimited_goes_in_now(self):
        found = self.look(pool("db", None, [], [waits("a")]))
        assert found.queue[0].estimate.latest == 0.0

    def test_only_the_runs_in_the_pools_are_asked_for(self):
        told = Told(all_runs=[run("a"), run("b"), run("c")])
        states = [pool("db", 1, [holds("a")], [waits("b")])]
        assert runs_in(told, states).keys() == {"a", "b"}
        assert runs_in(told, []) == {}


def test_a_screen_lists_what_fits_and_says_how_many_are_left():
    states = [pool(f"pool{n}", 1) for n in range(5)]
    found = overview(states, NOBODY, SETTINGS, NOTHING, NOW)
    console = Console(width=80, record=True)
    console.print(Group(*overview_table(
        found, found.pools, name="x", width=80, rows_max=2
    )))  # fmt: skip
    shown = console.export_text()
    assert [f"pool{n}" in shown for n in range(5)] == [True, True, False, False, False]
    assert "and 3 more" in shown
    assert "5 pools" in shown
