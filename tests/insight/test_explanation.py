"""Why something waits: at pools, in the run queue, or not at all."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.console import Console
from told import BY_RUN, NOW, SETTINGS, Told, executed, holds, pool, run, waits

from dagster_lifeguard.cli.explain_text import explanation_lines
from dagster_lifeguard.compat.health import RunQueue
from dagster_lifeguard.deployment.contract import PlannedStep
from dagster_lifeguard.engine.rules.duplicates import DUPLICATE_TAG
from dagster_lifeguard.engine.rules.model import WaitReason
from dagster_lifeguard.errors import UnknownNameError
from dagster_lifeguard.insight.explanation import RUNS_SEEN_MAX, explain
from dagster_lifeguard.insight.past import read_past
from dagster_lifeguard.insight.queue_look import Obstacle
from dagster_lifeguard.insight.step_answer import State
from dagster_lifeguard.insight.subject import asset_or_run, known_pool, pool_or_run

ORDERS = PlannedStep("orders", "db", ("sales/orders",))


INTERVAL = 0.1
"""So often the daemon looks; an estimate may be later by that."""


def letting_go(runs_max=-1, *rules, heeds_pools=True, buffer=0) -> RunQueue:
    return RunQueue(runs_max, rules, heeds_pools, buffer, INTERVAL)


TWO = letting_go(2)
ENGINE = replace(SETTINGS, engine=True)
NOTES = PlannedStep("notes", None, ("notes",))


def why(told: Told, text: str):
    settings = told.settings()
    past = read_past(told, settings, NOW - 86400, NOW)
    return explain(told, asset_or_run(told, text), settings, past, NOW)


def told_of(*runs, states=(), plan=(ORDERS, NOTES), **more) -> Told:
    plans = {r.run_id: list(plan) for r in runs}
    assets = {a: (s.pool,) if s.pool else () for s in plan for a in s.assets}
    return Told(list(states), list(runs), plans, assets, **more)


class TestSteps:
    def test_one_that_waits_is_told_behind_whom(self):
        told = told_of(
            run("aaa1", pools=frozenset({"db"})),
            run("bbb1", pools=frozenset({"db"})),
            run("ccc1", pools=frozenset({"db"})),
            states=[
                pool("db", 1, [holds("aaa1", "orders", 4.0)],
                     [waits("bbb1", "orders", 9.0), waits("ccc1", "orders")])
            ],
            past=[executed(f"x{n}", {"orders": "db"}, 10.0) for n in range(3)],
        )  # fmt: skip
        found = why(told, "ccc:orders")
        assert found.is_waiting
        (step,) = found.steps
        assert (step.state, step.seconds, step.assets) == (State.WAITING, 5.0, ("sales/orders",))
        (asked,) = step.pools
        assert (asked.waiter.position, asked.waiter.reason) == (2, WaitReason.FULL)
        assert [w.run_id for w in asked.ahead] == ["bbb1"]
        assert [h.run_id for h in asked.holders] == ["aaa1"]
        assert step.estimate.typical == 16.0
        assert step.estimate.samples == 3

    def test_an_asset_tells_who_executes_it_and_then_the_queue(self):
        told = told_of(
            run("a", pools=frozenset({"db"})),
            run("b", pools=frozenset({"db"})),
            run("c", pools=frozenset({"db"})),
            run("d", "QUEUED", pools=frozenset({"db"})),
            run("e", "SUCCESS", pools=frozenset({"db"})),
            states=[pool("db", 1, [holds("c", "orders")],
                         [waits("b", "orders"), waits("a", "orders")])],
        )  # fmt: skip
        found = why(told, "sales/orders")
        assert [(s.run_id, s.state) for s in found.steps] == [
            ("c", State.HOLDING),
            ("b", State.WAITING),
            ("a", State.WAITING),
            ("d", State.QUEUED),
        ]
        assert [p.pool for p in found.pools] == ["db"]

    def test_states_of_the_steps_of_a_run(self):
        plan = [PlannedStep(key, None) for key in ("done", "now", "later")]
        executions = executed("a", {"done": None, "now": None}, 5.0)
        done, now = executions.steps
        executions = replace(
            executions, status="STARTED", ended=None, steps=(done, replace(now, ended=None))
        )
        told = told_of(run("a"), plan=plan, past=[executions])
        states = [(s.step_key, s.state) for s in why(told, "a").steps]
        assert states == [
            ("done", State.DONE),
            ("now", State.EXECUTING),
            ("later", State.PENDING),
        ]
        assert not any(step.is_limited for step in why(told, "a").steps)

    def test_a_run_that_is_over(self):
        told = told_of(run("a", "FAILURE", ended=NOW - 5), past=[executed("a", {"notes": None}, 1)])
        states = {s.step_key: s.state for s in why(told, "a").steps}
        assert states == {"orders": State.NOT_EXECUTED, "notes": State.DONE}
        assert not why(told, "a").is_waiting

    def test_every_step_of_a_graph_asset_is_told(self):
        plan = [
            PlannedStep("graph.load", "db"),
            PlannedStep("graph.inner.store", "db", ("graph",)),
            PlannedStep("graphic", "db", ("graphic",)),
        ]
        state = pool("db", 1, [holds("z")], [waits("a", "graph.load")])
        told = told_of(run("a", pools=frozenset({"db"})), states=[state], plan=plan)
        found = [(s.step_key, s.state) for s in why(told, "graph").steps]
        assert found == [("graph.load", State.WAITING), ("graph.inner.store", State.PENDING)]

    @pytest.mark.parametrize("step", ["orders", "each[x]"])
    def test_a_step_that_waits_for_slots_inside_it_waits(self, step):
        plan = [PlannedStep("orders", "db", ("sales/orders",)), PlannedStep("each[?]", "db")]
        states = [
            pool("api", 1, [holds("z", "other[slots:1]")], [waits("a", f"{step}[slots:2]")]),
            pool("db", 5, [holds("a", step)]),
        ]
        told = told_of(run("a", pools=frozenset({"db"})), states=states, plan=plan)
        told.told_settings = replace(told.told_settings, engine=True)
        (found,) = (s for s in why(told, f"a:{step}").steps)
        assert (found.step_key, found.state) == (step, State.WAITING)
        api = next(p for p in found.pools if p.pool.pool == "api")
        assert (api.waiter.position, [h.run_id for h in api.holders]) == (1, ["z"])
        assert step in [s.step_key for s in why(told, "a").steps]
        assert not [s for s in why(told, "a").steps if "[slots" in s.step_key]

    def test_a_step_made_while_the_run_goes_on(self):
        plan = [PlannedStep("list", None), PlannedStep("each[?]", "db")]
        state = pool("db", 1, [holds("a", "each[x]")], [waits("a", "each[y]")])
        told = told_of(run("a", pools=frozenset({"db"})), states=[state], plan=plan)
        found = {s.step_key: s.state for s in why(told, "a").steps}
        assert found == {
            "list": State.PENDING,
            "each[x]": State.HOLDING,
            "each[y]": State.WAITING,
        }
        assert why(told, "a:each[y]").steps[0].pools[0].waiter.position == 1

    def test_several_pools_and_the_slowest_of_them(self):
        told = told_of(
            run("a", pools=frozenset({"api", "db"})),
            run("z", pools=frozenset()),
            states=[
                pool("api", 4, [], [waits("a", "orders", slots=2)]),
                pool("db", 1, [holds("z")], [waits("a", "orders")]),
            ],
            plan=[PlannedStep("orders", "{hold:step}db+api*2", ("sales/orders",))],
            told_settings=replace(SETTINGS, engine=True),
        )
        (step,) = why(told, "sales/orders").steps
        assert {a.pool.pool: (a.slots, a.waiter.reason) for a in step.pools} == {
            "api": (2, WaitReason.NEXT),
            "db": (1, WaitReason.FULL),
        }
        assert step.estimate.missing.value == "no-history"

    def test_a_pool_known_only_once_a_step_claims(self):
        told = told_of(
            run("a", pools=frozenset()),
            states=[pool("db[2024]", 1, [holds("z")], [waits("a", "orders")])],
            plan=[PlannedStep("orders", "{hold:step}db[{partition}]", ("sales/orders",))],
            told_settings=replace(SETTINGS, engine=True),
        )
        found = why(told, "sales/orders")
        assert (found.pools, found.pools_by_partition) == ((), ("db[{partition}]",))
        (step,) = found.steps
        assert [asked.pool.pool for asked in step.pools] == ["db[2024]"]
        assert step.state is State.WAITING

    @pytest.mark.parametrize(("tag", "told"), [("other", "other"), ("none", None), (None, None)])
    def test_a_run_that_was_dropped_names_the_one_that_does_its_work(self, tag, told):
        tags = {} if tag is None else {DUPLICATE_TAG: tag}
        dropped = replace(run("a", "CANCELED", pools=frozenset({"db"})), tags=tags)
        assert why(told_of(dropped), "a").duplicate_of == told

    def test_of_what_makes_several_assets_the_pool_of_this_one(self):
        assets = ("sales/orders", "sales/lines")
        told = told_of(
            run("a", pools=frozenset({"sales/lines"})),
            run("b", pools=frozenset({"sales/orders"})),
            states=[pool("sales/orders", 1, [holds("b", "models")])],
            plan=[PlannedStep("models", "{hold:step}{asset:path}", assets)],
            told_settings=replace(SETTINGS, engine=True),
        )
        found = why(told, "sales/orders")
        assert [p.pool for p in found.pools] == ["sales/orders"]
        assert found.pools_by_partition == ()
        assert [step.run_id for step in found.steps] == ["b"]

    def test_not_limited_at_all(self):
        told = told_of(run("a"), plan=[NOTES])
        found = why(told, "notes")
        assert found.pools == ()
        assert not found.steps[0].is_limited
        unlimited = told_of(run("a"), states=[pool("db", None)])
        assert not why(unlimited, "sales/orders").steps[0].is_limited

    def test_no_run_makes_it(self):
        told = told_of(run("a", "SUCCESS", pools=frozenset({"db"})))
        found = why(told, "sales/orders")
        assert (found.steps, found.is_waiting) == ((), False)

    def test_too_many_runs_are_said_to_be_too_many(self):
        runs = [
            run(f"r{n:03}", "QUEUED", pools=frozenset({"db"})) for n in range(RUNS_SEEN_MAX + 7)
        ]
        found = why(told_of(*runs, states=[pool("db")]), "sales/orders")
        assert (len(found.steps), found.runs_unseen) == (RUNS_SEEN_MAX, 7)


class TestHeldGraphs:
    TEXT = "{hold:asset}sales*2+wh"
    STEPS = (PlannedStep("g.a", TEXT), PlannedStep("g.b", TEXT, ("g",)))

    def why(self, holder, waiter, settings=ENGINE):
        states = [pool("sales", 2, holder, waiter), pool("wh", 9)]
        told = told_of(run("mine"), run("other"), states=states, told_settings=settings)
        told.plans["mine"] = list(self.STEPS)
        return why(told, "mine").steps

    def test_a_graph_waits_as_a_whole(self):
        steps = self.why([holds("other", "g", slots=2)], [waits("mine", "g", slots=2)])
        assert [(s.step_key, s.state) for s in steps] == [
            ("g.a", State.WAITING),
            ("g.b", State.WAITING),
        ]
        assert [(a.pool.pool, a.slots) for a in steps[0].pools] == [("sales", 2), ("wh", 1)]
        assert steps[0].pools[0].waiter.position == 1

    def test_a_graph_holds_as_a_whole(self):
        steps = self.why([holds("mine", "g", slots=2)], [])
        assert [s.state for s in steps] == [State.HOLDING, State.HOLDING]

    def test_its_past_is_that_of_the_whole(self):
        runs = [executed(f"x{n}", {"g.a": self.TEXT, "g.b": self.TEXT}, 5.0) for n in range(3)]
        past = read_past(told_of(past=runs), ENGINE, NOW - 86400, NOW)
        assert past.holds["sales"].spread().count == 3
        assert past.holds_of("sales", "g") is not None


class TestRunQueue:
    def look(self, *others, states=(), queue=TWO, settings=SETTINGS, past=(), **mine):
        mine = run("mine", "QUEUED", **{"pools": frozenset({"db"}), **mine})
        told = told_of(*others, mine, states=states, past=list(past),
                       told_settings=settings, told_queue=queue)  # fmt: skip
        (step, _) = why(told, "mine").steps
        assert step.state is State.QUEUED
        return step.queue_place

    def test_as_many_runs_go_on_as_may(self):
        place = self.look(
            run("a", started=NOW - 5),
            run("b"),
            run("c", "QUEUED"),
            past=[executed(f"x{n}", {}, 25.0) for n in range(3)],
        )
        (blockage,) = place.blockages
        assert (blockage.obstacle, blockage.limit, blockage.taken) == (Obstacle.RUNS_MAX, 2, 2)
        assert [outline.run_id for outline in blockage.behind] == ["b", "a"]
        assert (place.position, place.length) == (2, 2)
        # b began 90 s ago, longer than any that is known; c goes in after a, and then it does.
        assert place.estimate.typical == pytest.approx(20.0 + 25.0, abs=2 * INTERVAL)

    def test_when_one_of_them_ends(self):
        place = self.look(
            run("a", started=NOW - 5),
            run("b", started=NOW - 15),
            past=[executed(f"x{n}", {}, 25.0) for n in range(3)],
        )
        assert place.estimate.typical == pytest.approx(10.0, abs=INTERVAL)

    def test_any_number_of_runs(self):
        assert self.look(run("a"), run("b"), queue=letting_go()).blockages == ()
        assert self.look(run("a"), run("b"), queue=None).blockages == ()

    @pytest.mark.parametrize(
        ("rule", "name"),
        [
            (("team", "x", False, 1), "team=x"),
            (("team", None, False, 2), "team"),
            (("team", None, True, 1), "team=x"),
            (("team", "y", False, 1), None),
            (("team", None, False, 3), None),
            (("other", None, False, 0), None),
        ],
    )
    def test_tags(self, rule, name):
        others = [run("a", tags={"team": "x"}), run("b", tags={"team": "y"}), run("c")]
        place = self.look(*others, queue=letting_go(-1, rule), tags={"team": "x"})
        assert [b.name for b in place.blockages] == ([name] if name else [])

    def test_priority_is_looked_at_first(self):
        others = [run("a", "QUEUED"), run("b", "QUEUED", priority=5), run("c", "QUEUED")]
        assert self.look(*others, priority=1).position == 2
        assert self.look(*others, priority=9).position == 1

    def test_a_full_pool_under_granularity_run(self):
        state = pool("db", 1, [holds("a", "")], [waits("mine", "")])
        holder = run("a", pools=frozenset({"db"}), started=NOW - 10)
        place = self.look(holder, states=[state], settings=BY_RUN,
                          past=[executed(f"x{n}", {"s": "db"}, 40.0) for n in range(3)])  # fmt: skip
        (blockage,) = place.blockages
        assert (blockage.obstacle, blockage.name, blockage.taken) == (Obstacle.POOL, "db", 1)
        assert [outline.run_id for outline in blockage.behind] == ["a"]
        assert place.estimate.typical == pytest.approx(30.0, abs=INTERVAL)

    def test_a_pool_that_the_run_queue_does_not_heed(self):
        state = pool("db", 1, [holds("a", "")], [waits("mine", "")])
        holder = run("a", pools=frozenset({"db"}))
        queue = letting_go(heeds_pools=False)
        assert self.look(holder, states=[state], settings=BY_RUN, queue=queue).blockages == ()

    def test_under_granularity_op_all_its_pools_are_full(self):
        def names(*states, pools):
            return [b.name for b in self.look(states=states, pools=frozenset(pools)).blockages]

        full, waited_for = pool("db", 1, [holds("a")]), pool("api", 1, [], [waits("b")])
        free = pool("free", 1)
        assert names(full, waited_for, pools={"db", "api"}) == ["api", "db"]
        assert names(full, free, pools={"db", "free"}) == []

    def test_under_granularity_op_only_its_first_steps_count(self):
        states = [pool("db", 1, [holds("a")]), pool("api", 1)]
        pools = frozenset({"db", "api"})

        def names(first):
            return [
                b.name for b in self.look(states=states, pools=pools, first_pools=first).blockages
            ]

        assert names({"db": 1}) == ["db"]
        assert names({"api": 1}) == []
        assert names(None) == [], "a first step that asks for no pool"

    def test_it_leaves_as_soon_as_one_of_its_first_pools_lets_it(self):
        states = [
            pool("db", 1, [holds("a", elapsed=0.0)]),
            pool("api", 1, [holds("b", elapsed=0.0)]),
        ]
        past = [executed(f"x{n}", {"s": "db", "t": "api"}, 40.0) for n in range(3)]
        past += [executed(f"y{n}", {"s": "api"}, 4.0) for n in range(30)]
        place = self.look(run("a"), run("b"), states=states, past=past, queue=letting_go(),
                          pools=frozenset({"db", "api"}))  # fmt: skip
        assert [b.name for b in place.blockages] == ["api", "db"]
        assert place.estimate.typical == pytest.approx(4.0, abs=INTERVAL)

    def test_runs_that_begin_count_as_if_they_held_already(self):
        launched = [
            run("starting", "STARTING", pools=frozenset({"db"})),
            run("young", started=NOW - 4.0, pools=frozenset({"db"})),
            run("old", started=NOW - 6.0, pools=frozenset({"db"})),
        ]
        (blockage,) = self.look(*launched, states=[pool("db", 2)], queue=letting_go()).blockages
        assert (blockage.limit, blockage.taken, blockage.promised) == (2, 0, 2)
        assert self.look(*launched, states=[pool("db", 3)], queue=letting_go()).blockages == ()

    def test_those_ahead_that_are_launched_count_too(self):
        ahead = [run(f"ahead{n}", "QUEUED", pools=frozenset({"db"})) for n in range(2)]
        (blockage,) = self.look(*ahead, states=[pool("db", 2)], queue=letting_go()).blockages
        assert (blockage.taken, blockage.promised) == (0, 2)
        (blockage,) = self.look(*ahead, states=[pool("db", 9)]).blockages
        assert (blockage.obstacle, blockage.limit, blockage.taken) == (Obstacle.RUNS_MAX, 2, 2)
        assert [outline.run_id for outline in blockage.behind] == ["ahead0", "ahead1"]

    def test_a_buffer_lets_more_runs_go_than_there_are_slots(self):
        state = pool("db", 1, [holds("a")])
        queue = letting_go()
        assert len(self.look(run("a"), states=[state], queue=queue).blockages) == 1
        queue = letting_go(buffer=1)
        assert self.look(run("a"), states=[state], queue=queue).blockages == ()

    def test_who_is_ahead_in_the_queue_for_the_same_pool_is_reckoned_with(self):
        others = [
            run("a"),
            *(run(f"same{n}", "QUEUED", pools=frozenset({"db"})) for n in range(3)),
            run("elsewhere", "QUEUED", pools=frozenset({"api"})),
        ]
        place = self.look(
            *others,
            states=[pool("db", 1, [holds("a", elapsed=0.0)])],
            past=[executed(f"x{n}", {"s": "db"}, 40.0) for n in range(3)],
            queue=letting_go(),
        )
        # 40 s for the holder and for each ahead, and each time up to an interval.
        assert place.position == 5
        assert place.estimate.typical == pytest.approx(4 * 40.0, abs=4 * INTERVAL)


class TestOrderInWords:
    def said(self, mine, *, limit=1, fair_by="team", **more):
        """What is said of the order, without line breaks."""
        told = told_of(
            run("holder"), mine,
            states=[pool("db", limit, [holds("holder")], fair_by=fair_by, **more)],
            plan=[ORDERS], told_settings=ENGINE, told_queue=TWO,
        )  # fmt: skip
        lines = explanation_lines(why(told, mine.run_id), name="it", in_full=True)
        orders = [str(line) for line in lines if str(line).startswith("Order:")]
        assert len(orders) == 1
        return orders[0]

    QUEUED = "Among the runs that will ask for db, the group whose runs in progress hold the fewest slots"
    WAITING = "A slot of db goes to the group that holds the fewest of its slots"

    def test_of_a_run_in_the_queue_that_will_ask_for_a_fair_pool(self):
        mine = run("mine", "QUEUED", pools=frozenset({"db"}))
        assert self.QUEUED in self.said(mine)
        for more in ({"fair_by": None}, {"limit": None}):
            assert "the run queue looks at runs" in self.said(mine, **more)
            assert self.QUEUED not in self.said(mine, **more)

    def test_of_a_step_that_waits_at_a_fair_pool(self):
        waiting = [waits("mine", "orders")]
        assert self.WAITING in self.said(run("mine"), waiting=waiting)
        assert self.WAITING not in self.said(run("mine"), waiting=waiting, fair_by=None)


class TestNames:
    TOLD = told_of(
        run("aaaa1111"), run("aaaa2222"), run("bbbb"), states=[pool("db"), pool("database")]
    )

    def test_an_asset_comes_before_a_run(self):
        assert asset_or_run(self.TOLD, "notes").kind == "asset"
        assert asset_or_run(self.TOLD, "b").run.run_id == "bbbb"
        found = asset_or_run(self.TOLD, "bb:notes")
        assert (found.kind, found.step_key) == ("step", "notes")

    def test_a_pool_comes_before_a_run(self):
        assert pool_or_run(self.TOLD, "db").name == "db"
        assert pool_or_run(self.TOLD, "bbb").run.run_id == "bbbb"
        assert known_pool(self.TOLD, "database") == "database"
        only_planned = told_of(run("a"))
        assert known_pool(only_planned, "db") == "db"

    @pytest.mark.parametrize(
        ("find", "text", "message", "remedy"),
        [
            (asset_or_run, "aaaa", "aaaa1111, aaaa2222", "more of the run's id"),
            (asset_or_run, "sales/order", "no asset and no run", "Did you mean sales/orders?"),
            (asset_or_run, "ORDERS", "no asset", "Did you mean sales/orders?"),
            (asset_or_run, "db", "db is a pool", "lifeguard status db"),
            (asset_or_run, "", "no asset", "Give an asset"),
            (pool_or_run, "databse", "no pool and no run", "Did you mean database?"),
            (pool_or_run, "zzz", "no pool and no run", "RUN_ID:STEP"),
            (known_pool, "dbb", "no pool", "Did you mean db?"),
            (known_pool, "zzz", "no pool", "lifeguard status --all"),
        ],
    )
    def test_what_is_not_known_is_said_with_what_is_near(self, find, text, message, remedy):
        with pytest.raises(UnknownNameError) as refusal:
            find(self.TOLD, text)
        assert message in refusal.value.message
        assert remedy in refusal.value.remedy

    def test_an_unknown_step(self):
        with pytest.raises(UnknownNameError, match="no step 'note'") as refusal:
            why(self.TOLD, "bbbb:note")
        assert "Did you mean notes?" in refusal.value.remedy


class TestRunsThatAreOver:
    """Whatever is left of them in a pool."""

    def test_one_that_still_waits_goes_in_nowhere(self):
        told = told_of(
            run("aaa1", "FAILURE", ended=NOW - 60.0, pools=frozenset({"db"})),
            states=[pool("db", 1, [], [waits("aaa1", "orders")])],
        )
        found = why(told, "aaa1")
        assert not found.is_waiting
        assert (found.run_over, found.run_ended) == ("FAILURE", NOW - 60.0)
        assert [(step.state, step.estimate) for step in found.steps] == [
            (State.NOT_EXECUTED, None),
            (State.NOT_EXECUTED, None),
        ]
        assert found.steps[0].pools[0].waiter is None
        text = told_text(found)
        assert "its run is failure since 1m" in text
        assert "any moment" not in text

    def test_what_no_lease_keeps_is_told(self):
        told = told_of(
            run("aaa1", "FAILURE", ended=NOW - 60.0, pools=frozenset({"db"})),
            run("bbb1", pools=frozenset({"db"})),
            states=[pool("db", 1, over=(waits("aaa1", "orders"), holds("bbb1", "orders")))],
        )
        for run_id in ("aaa1", "bbb1"):
            found = why(told, f"{run_id}:orders")
            assert found.lease_over == ("db",)
            assert "db is not blocked: the next claim" in told_text(found)
        assert why(told, "bbb1:notes").lease_over == ()
        assert why(told_of(run("ccc1"), states=told.states), "ccc1").lease_over == ()

    def test_a_step_whose_own_process_is_dead_is_told_of_by_itself_and_by_who_waits(self):
        dead = replace(holds("aaa1", "orders"), lost="host:7")
        told = told_of(
            run("aaa1", pools=frozenset({"db"})),
            run("bbb1", pools=frozenset({"db"})),
            states=[pool("db", 1, [dead], [waits("bbb1", "orders")])],
        )
        for run_id in ("aaa1", "bbb1"):
            text = told_text(why(told, run_id))
            assert text.count("own process host:7 is dead or silent; its slots stay held") == 1

    def test_one_that_still_holds_says_both(self):
        told = told_of(
            run("aaa1", "CANCELED", ended=NOW - 60.0, pools=frozenset({"db"})),
            states=[pool("db", 1, [holds("aaa1", "orders")])],
        )
        text = told_text(why(told, "aaa1"))
        assert "its run is canceled since 1m, and still holds" in text


def told_text(found) -> str:
    console = Console(width=300, record=True, file=io.StringIO())
    for line in explanation_lines(found, name="told", in_full=False):
        console.print(line)
    return console.export_text()
