"""The order in which the run queue launches runs: who is next, and that nobody starves."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dagster_lifeguard.engine.rules.launch_order import (
    LaunchOrder,
    QueueRules,
    Turns,
    by_priority,
    counted_for,
    priority_of,
)
from dagster_lifeguard.engine.rules.order import SLOT

TAG = "dagster/backfill"
LIMITS = {"warehouse": 8, "cluster": 2, "orders": 1, "paused": 0}


@dataclass(frozen=True)
class Asking:
    run_id: str
    priority: int = 0
    tags: dict = field(default_factory=dict)
    pools: frozenset | None = frozenset({"warehouse"})
    first_pools: dict | None = field(default_factory=lambda: {"warehouse": 1})


def rules(fair_by=None, *, by_run=False, tag_limits=(), limits=LIMITS) -> QueueRules:
    return QueueRules(fair_by or {"warehouse": TAG}, limits.get, by_run, tag_limits)


def asks(name, *pools, group=None, priority=0, **tags) -> Asking:
    if group is not None:
        tags[TAG] = group
    first = dict.fromkeys(pools, 1)
    return Asking(name, priority, tags, frozenset(pools), first)


def runs_of(group, count, *pools):
    return [asks(f"{group}{n}", *(pools or ("warehouse",)), group=group) for n in range(count)]


def names(queued, going_on=(), turns=None, **more):
    order = LaunchOrder(rules(**more), turns or {}, going_on)
    return [run.run_id for run in order.of(queued)]


def test_the_daily_run_is_next_beside_a_backfill_that_came_first():
    daily = asks("daily", "warehouse")
    assert names([*runs_of("b", 60), daily], runs_of("b", 10))[0] == "daily"
    # While nothing goes on yet, the one that came first is first, and then it is its turn.
    assert names([*runs_of("b", 60), daily])[:3] == ["b0", "daily", "b1"]


def test_groups_that_queue_many_runs_take_turns_from_what_they_have():
    queued = [*runs_of("b", 3), *runs_of("c", 3)]
    assert names(queued, [asks("x", "warehouse", group="b")]) == [
        "c0",
        "b0",
        "c1",
        "b1",
        "c2",
        "b2",
    ]


def test_a_share_is_counted_in_slots_of_the_pool_and_never_more_than_it_has():
    wide = replace(asks("wide", "warehouse", group="b"), first_pools={"warehouse": 3})
    queued = [*runs_of("b", 1), *runs_of("c", 4)]
    assert names(queued, [wide]) == ["c0", "c1", "c2", "b0", "c3"]
    wider = replace(wide, first_pools={"warehouse": 50})
    queued = [*runs_of("b", 1), *runs_of("c", 10)]
    assert names(queued, [wider]).index("b0") == 8


def test_runs_that_need_no_fair_pool_keep_their_places():
    others = [asks("x", "orders"), asks("y"), replace(asks("z"), pools=None, first_pools=None)]
    b, daily = runs_of("b", 3), asks("daily", "warehouse")
    queued = [others[0], b[0], others[1], b[1], others[2], b[2], daily]
    found = names(queued, runs_of("b", 2))
    assert found == ["x", "daily", "y", "b0", "z", "b1", "b2"]


def test_a_pool_without_a_limit_has_no_line():
    daily = asks("daily", "warehouse")
    assert names([*runs_of("b", 2), daily], runs_of("b", 2), limits={})[-1] == "daily"


def test_a_higher_priority_still_goes_first():
    urgent = replace(asks("urgent", "warehouse", group="b"), priority=1)
    low = asks("low", "warehouse", priority=-1)
    queued = [low, *runs_of("b", 2), asks("daily", "warehouse"), urgent]
    assert names(queued, runs_of("b", 4)) == ["urgent", "daily", "b0", "b1", "low"]


def test_the_groups_are_those_of_the_pools_tag():
    queued = [asks(f"a{n}", "warehouse", team="a") for n in range(3)]
    queued += [asks("b", "warehouse", team="b"), asks("none", "warehouse")]
    found = names(queued, fair_by={"warehouse": "team"})
    assert found == ["a0", "b", "none", "a1", "a2"]


def test_a_run_that_asks_later_for_the_pool_is_in_its_line_too():
    """The daily run would else wait behind a backfill that begins with steps of no pool."""
    backfill = [replace(run, first_pools=None) for run in runs_of("b", 5)]
    daily = replace(asks("daily", "warehouse"), first_pools=None)
    assert names([*backfill, daily], backfill)[0] == "daily"


def test_of_several_fair_pools_a_run_is_in_the_line_of_the_one_with_the_fewest_slots():
    fair_by = {"warehouse": TAG, "cluster": TAG}
    both = runs_of("b", 4, "cluster", "warehouse")
    daily = [asks("of cluster", "cluster"), asks("of warehouse", "warehouse")]
    queued = [*both, *daily]
    found = names(queued, both, fair_by=fair_by)
    assert found[0] == "of cluster"
    assert found[-1] == "of warehouse"  # Alone in its line, it keeps its place.


@pytest.mark.parametrize("free_pools", [("warehouse",), ("warehouse", "orders")])
def test_runs_that_stay_in_the_queue_anyhow_put_nobody_of_their_group_behind(free_pools):
    """A limit by tag keeps 20 runs of the daily group; what the rest may do is as without them."""
    kept = [asks(f"kept{n}", "warehouse", team="x") for n in range(20)]
    free = asks("free", *free_pools)
    going_on = [asks("x", "warehouse", team="x"), *runs_of("b", 1)]
    queued = [*kept, *runs_of("b", 5), free]
    limit = [("team", None, False, 1)]
    assert names(queued, going_on)[0] != "free"
    found = names(queued, going_on, tag_limits=limit)
    assert found[:3] == ["b0", "free", "b1"]
    assert found[-20:] == [run.run_id for run in kept]


def test_under_granularity_run_a_run_stays_for_each_of_its_pools_that_is_full():
    kept = runs_of("b", 20, "warehouse", "orders")
    queued = [*kept, *runs_of("c", 5), asks("free", "warehouse", group="b")]
    going_on = [asks("x", "orders"), *runs_of("c", 1)]
    assert names(queued, going_on, by_run=True)[:2] == ["free", "c0"]
    assert names(queued, going_on)[:2] == ["b0", "c0"]  # Under op one free pool is enough.


def test_under_granularity_op_a_run_stays_whose_first_pools_are_all_paused():
    paused = [replace(run, first_pools={"paused": 1}) for run in runs_of("b", 20, "warehouse")]
    queued = [*paused, *runs_of("c", 5), asks("free", "warehouse", group="b")]
    assert names(queued, runs_of("c", 1))[:2] == ["free", "c0"]


@pytest.mark.parametrize(
    ("tags", "counted"),
    [
        ({}, []),
        ({"team": "a"}, [("team", None, 3), ("team", "a", 2)]),
        ({"team": "b"}, [("team", None, 3)]),
        ({"user": "u"}, [("user", "u", 1)]),
    ],
)
def test_limits_by_tag_count_a_key_a_value_or_each_value(tags, counted):
    limits = [("team", None, False, 3), ("team", "a", False, 2), ("user", None, True, 1)]
    assert list(counted_for(tags, limits)) == counted


@pytest.mark.parametrize(("text", "priority"), [(None, 0), ("3", 3), ("-1", -1), ("high", 0)])
def test_a_priority_is_a_number_or_0(text, priority):
    assert priority_of({} if text is None else {"dagster/priority": text}) == priority


@dataclass
class Queue:
    """A queue whose runs are launched one at each look, and end after so many looks."""

    rules: QueueRules = field(default_factory=rules)
    lasts: int = 1
    turns: dict[str, Turns] = field(default_factory=dict)
    queued: list[Asking] = field(default_factory=list)
    going_on: list[Asking] = field(default_factory=list)
    launched: list[Asking] = field(default_factory=list)

    def look(self) -> Asking | None:
        self.going_on = self.going_on[-(self.lasts - 1) :] if self.lasts > 1 else []
        if not self.queued:
            return None
        order = LaunchOrder(self.rules, self.turns, self.going_on)
        first = order.of(self.queued)[0]
        order.launched(first.run_id)
        self.turns = order.turns
        self.queued.remove(first)
        self.going_on.append(first)
        self.launched.append(first)
        return first

    def shares(self) -> Counter:
        return Counter(run.tags.get(TAG, "") for run in self.launched)


def test_groups_whose_runs_go_one_at_a_time_are_launched_equally_often():
    """Nobody holds at any look, so only the turns tell."""
    queue = Queue(queued=[*runs_of("a", 30), *runs_of("b", 30), *runs_of("c", 30)])
    for _ in range(60):
        queue.look()
        most, *_, least = sorted((queue.shares()[g] for g in "abc"), reverse=True)
        assert most - least <= 1, queue.shares()


def test_a_group_that_comes_to_a_line_of_two_that_take_turns_gets_its_own():
    queue = Queue(queued=[*runs_of("a", 50), *runs_of("b", 50)])
    for _ in range(10):
        queue.look()
    queue.queued += runs_of("c", 50)
    for _ in range(30):
        queue.look()
    assert queue.shares() == {"a": 15, "b": 15, "c": 10}


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 3), st.integers(1, 4), st.integers(0, 5))
def test_no_group_starves_under_new_groups_without_end(old, lasts, slots_ahead):
    """As many new groups as are launched, each with its first run."""
    queue = Queue(lasts=lasts, turns={"warehouse": Turns(0, {"g0": slots_ahead * SLOT})})
    for n in range(old):
        queue.queued += runs_of(f"g{n}", 40)
    seen = Counter()
    for look in range(400):
        queue.queued.append(asks(f"new{look}", "warehouse", group=f"new{look}"))
        found = queue.look()
        assert found is not None
        seen[found.tags[TAG]] += 1
    assert all(seen[f"g{n}"] >= 2 for n in range(old)), seen


def test_who_left_the_line_is_forgotten_once_the_line_has_come_to_its_turn():
    queue = Queue()
    for look in range(200):
        queue.queued.append(asks(f"r{look}", "warehouse", group=f"g{look}"))
        queue.look()
        assert len(queue.turns["warehouse"].of_groups) <= 3


def test_a_pool_that_is_no_longer_fair_or_limited_is_forgotten():
    turns = {"warehouse": Turns(3, {"b": 5}), "orders": Turns(1)}
    assert LaunchOrder(rules(), turns, []).turns == {"warehouse": turns["warehouse"]}
    assert LaunchOrder(rules(limits={}), turns, []).turns == {}


def test_only_a_run_of_a_line_moves_its_turns():
    order = LaunchOrder(rules(), {}, [])
    order.of([asks("other", "orders"), *runs_of("b", 2)])
    assert not order.launched("other")
    assert not order.launched("unknown")
    assert order.turns["warehouse"].turn == 0
    assert order.launched("b0")
    assert not order.launched("b0")
    assert order.turns["warehouse"].of_groups["b"] == SLOT


@st.composite
def queues(draw):
    pools = st.frozensets(st.sampled_from(sorted(LIMITS)), max_size=3)
    runs = []
    for n in range(draw(st.integers(0, 25))):
        asked = draw(pools)
        run = asks(f"r{n}", *asked, group=draw(st.sampled_from(["a", "b", None])))
        run = replace(run, priority=draw(st.sampled_from([0, 0, 0, 1])))
        runs.append(replace(run, tags={**run.tags, "team": draw(st.sampled_from("xy"))}))
    return runs


@settings(max_examples=200, deadline=None)
@given(
    queues(),
    queues(),
    st.booleans(),
    st.sampled_from([(), (("team", "x", False, 1),)]),
    st.sets(st.sampled_from(sorted(LIMITS)), min_size=1),
)
def test_every_run_is_there_once_by_priority_and_others_where_they_were(
    queued, going_on, by_run, tag_limits, fair
):
    found_rules = rules(dict.fromkeys(fair, TAG), by_run=by_run, tag_limits=tag_limits)
    found = LaunchOrder(found_rules, {}, going_on).of(queued)
    stock = by_priority(queued)
    assert sorted(r.run_id for r in found) == sorted(r.run_id for r in queued)
    assert [r.priority for r in found] == [r.priority for r in stock]
    for before, after in zip(stock, found, strict=True):
        # A place of a line stays one of the same line.
        assert (before.pools & fair == after.pools & fair) or (
            before.pools & fair and after.pools & fair
        )
        if not before.pools & fair:
            assert before is after
