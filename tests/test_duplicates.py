"""Which run stands in for another: the pure rule, by property."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

from hypothesis import given
from hypothesis import strategies as st

from dagster_lifeguard.engine.rules.duplicates import (
    DROPS,
    ON_CONFLICT,
    WorkOrder,
    WorkProgress,
    WorkStep,
    agree,
    covers,
    on_conflict_of,
    outputs_of,
    outputs_to_come,
)

NAMES = "abcdef"
answers = st.lists(st.sampled_from(ON_CONFLICT), max_size=4)
claims = st.frozensets(st.tuples(st.sampled_from("kb"), st.sampled_from("12")), max_size=2)
orders = st.builds(
    WorkOrder,
    run_id=st.sampled_from("12345"),
    ancestors=st.frozensets(st.sampled_from("12345"), max_size=2),
    terms=st.sampled_from(["x", "y"]),
    claims=claims,
    priority=st.integers(0, 2),
)


@st.composite
def plans(draw: st.DrawFn) -> list[WorkStep]:
    """Steps a, b, c ..., each of which may wait for those before it and make its own asset."""
    steps = []
    for name in NAMES[: draw(st.integers(1, 6))]:
        before = [step.key for step in steps]
        after = draw(st.frozensets(st.sampled_from(before))) if before else frozenset()
        steps.append(
            WorkStep(
                key=name,
                op=draw(st.sampled_from([name, "graph"])),
                assets=frozenset({name}) if draw(st.booleans()) else frozenset(),
                checks=frozenset({f"{name}:check"}) if draw(st.booleans()) else frozenset(),
                after=after,
                on_conflict=draw(st.sampled_from([None, *ON_CONFLICT])),
            )
        )
    return steps


class TestAgreement:
    @given(answers)
    def test_nothing_is_dropped_that_one_answer_forbids(self, given_answers):
        dropped = DROPS[agree(given_answers)]
        assert all(dropped <= DROPS[answer] for answer in given_answers)

    @given(answers)
    def test_all_is_dropped_that_every_answer_allows(self, given_answers):
        allowed = [DROPS[answer] for answer in given_answers]
        common = frozenset.intersection(*allowed) if allowed else frozenset()
        assert DROPS[agree(given_answers)] == common

    def test_of_two(self):
        unlike = {pair for pair in product(ON_CONFLICT, repeat=2) if pair[0] != pair[1]}
        assert {agree(pair) for pair in unlike - {_CANCEL, _CANCEL[::-1]}} == {"queue"}
        assert agree(_CANCEL) == agree(_CANCEL[::-1]) == "replace_queued"
        assert [agree([answer]) for answer in ON_CONFLICT] == list(ON_CONFLICT)
        assert agree([]) == "queue"


_CANCEL = ("cancel_running", "replace_queued")


class TestOfARun:
    @given(plans())
    def test_each_op_that_makes_an_asset_has_a_say(self, steps):
        answer = on_conflict_of(steps)
        for step in steps:
            if step.assets:
                assert DROPS[answer] <= DROPS[step.on_conflict or "queue"]

    def test_a_check_without_a_rule_has_none(self):
        asset = WorkStep("a", "a", assets=frozenset("a"), on_conflict="skip_new")
        check = WorkStep("c", "c", checks=frozenset({"a:c"}))
        assert on_conflict_of([asset, check]) == "skip_new"
        assert on_conflict_of([asset, replace(check, on_conflict="queue")]) == "queue"
        assert on_conflict_of([check]) == "queue"

    def test_an_op_of_which_nobody_knows_what_it_is_for_queues_the_run(self):
        asset = WorkStep("a", "a", assets=frozenset("a"), on_conflict="skip_new")
        other = WorkStep("o", "o", on_conflict="skip_new")
        assert on_conflict_of([asset, other]) == "queue"
        assert outputs_of([asset, other]) == frozenset()
        assert on_conflict_of([asset, replace(other, op="a")]) == "skip_new"
        assert on_conflict_of([]) == "queue"


class TestOutputs:
    @given(plans())
    def test_what_is_to_come_at_first_is_all(self, steps):
        whole = outputs_to_come(steps, WorkProgress())
        assert whole == frozenset().union(*(step.outputs for step in steps))
        assert outputs_of(steps) in (whole, frozenset())

    @given(plans(), st.data())
    def test_what_is_to_come_is_what_executing_the_rest_makes(self, steps, data):
        """An oracle that goes through the steps in order, as an executor does."""
        keys = [step.key for step in steps]
        failed = data.draw(st.frozensets(st.sampled_from(keys)))
        done: set[str] = set()
        for step in steps:  # any of which may have ended by now
            if step.key not in failed and step.after <= done and data.draw(st.booleans()):
                done.add(step.key)
        progress = WorkProgress(
            outputs=frozenset().union(*(s.outputs for s in steps if s.key in done)),
            succeeded=frozenset(done),
            given_up=failed,
        )
        made: set[str] = set()
        executed = set(done)
        for step in steps:
            if step.key not in executed | failed and step.after <= executed:
                executed.add(step.key)
                made |= step.outputs
        assert outputs_to_come(steps, progress) == made

    def test_an_op_may_have_made_some_of_its_assets(self):
        step = WorkStep("pair", "pair", assets=frozenset({"left", "right"}))
        assert outputs_to_come([step], WorkProgress(outputs=frozenset({"left"}))) == {"right"}

    def test_nothing_is_covered_by_whatever(self):
        assert not covers({"a"}, set())
        assert covers({"a", "b"}, {"a"})
        assert not covers({"a"}, {"a", "b"})


class TestStandingIn:
    @given(orders, orders)
    def test_only_for_the_same_work(self, kept, dropped):
        if kept.stands_in_for(dropped):
            assert kept.terms == dropped.terms
            assert dropped.claims <= kept.claims
            assert dropped.priority <= kept.priority

    @given(orders, orders)
    def test_never_within_a_family(self, kept, dropped):
        if kept.run_id in dropped.ancestors | {dropped.run_id} or dropped.run_id in kept.ancestors:
            assert not kept.stands_in_for(dropped)
            assert not dropped.stands_in_for(kept)

    @given(orders, orders)
    def test_always_for_the_same_order_of_a_stranger(self, kept, one):
        dropped = replace(kept, run_id="6", ancestors=one.ancestors - {kept.run_id})
        assert kept.stands_in_for(dropped)
        assert dropped.stands_in_for(kept)

    @given(orders, orders, orders)
    def test_in_turn(self, a, b, c):
        """What a run stands in for, the run stands in for that stands in for it: none is lost."""
        a, b, c = (
            replace(o, run_id=n, ancestors=frozenset())
            for o, n in zip((a, b, c), "123", strict=True)
        )
        if a.stands_in_for(b) and b.stands_in_for(c):
            assert a.stands_in_for(c)
