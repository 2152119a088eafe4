"""Which steps of a run will not execute any more."""

from __future__ import annotations

import pytest
from dagster import DagsterEventType as Event

from dagster_lifeguard.compat.plans import StepPlan
from dagster_lifeguard.storage.progress import StepProgress


def plan(**after: str) -> dict[str, StepPlan]:
    """Steps, and the steps that each waits for; ``__`` stands for ``[?]``."""

    def key(text: str) -> str:
        return text.replace("__", "[?]")

    return {
        key(step): StepPlan(key(step), None, (), frozenset(map(key, text.split())))
        for step, text in after.items()
    }


def over(steps: dict[str, StepPlan], yielded: str = "", **last: Event) -> set[str]:
    did = {step.replace("__", "[") + "]" * ("__" in step): kind for step, kind in last.items()}
    return set(StepProgress(did, {"fan": frozenset(yielded.split())}).over(steps))


BEGAN, DID, FAILED, SKIPPED = (
    Event.STEP_START,
    Event.STEP_SUCCESS,
    Event.STEP_FAILURE,
    Event.STEP_SKIPPED,
)
CHAIN = plan(c="b", b="a", a="", other="")
MAPPED = plan(end="more__", more__="each__ side", each__="fan", side="", fan="")


class TestPlainSteps:
    def test_one_that_began_goes_on(self) -> None:
        assert over(CHAIN, a=DID, b=BEGAN) == {"a"}
        assert over(CHAIN, a=DID, b=DID, c=DID) == {"a", "b", "c"}

    def test_one_that_is_to_try_again_goes_on(self) -> None:
        for kind in (Event.STEP_UP_FOR_RETRY, Event.STEP_RESTARTED):
            assert over(CHAIN, a=kind) == set()

    def test_nothing_follows_a_failure(self) -> None:
        assert over(CHAIN, a=FAILED) == {"a", "b", "c"}
        assert over(CHAIN, a=DID, b=FAILED, other=BEGAN) == {"a", "b", "c"}

    def test_what_follows_a_skipped_step_is_told_by_an_event_of_its_own(self) -> None:
        assert over(CHAIN, a=SKIPPED) == {"a"}
        assert over(CHAIN, a=SKIPPED, b=SKIPPED, c=SKIPPED) == {"a", "b", "c"}

    def test_steps_that_the_run_does_not_execute_are_not_waited_for(self) -> None:
        assert over(plan(c="b"), c=DID) == {"c"}


class TestMappedSteps:
    def test_they_are_not_over_before_they_are_known(self) -> None:
        assert over(MAPPED, side=DID) == {"side"}
        assert over(MAPPED, "x", side=DID, fan=BEGAN) == {"side"}

    def test_each_is_waited_for(self) -> None:
        done = {"side": DID, "fan": DID, "each__x": DID, "more__x": DID}
        assert over(MAPPED, "x y", **done) == {"side", "fan"}
        assert over(MAPPED, "x y", **done, each__y=DID) == {"side", "fan", "each[?]"}
        done |= {"each__y": DID, "more__y": DID}
        assert over(MAPPED, "x y", **done) == {"side", "fan", "each[?]", "more[?]"}

    def test_none_may_be_made(self) -> None:
        assert over(MAPPED, "", side=DID, fan=DID) == {"side", "fan", "each[?]", "more[?]"}

    def test_one_that_fails_takes_along_what_is_mapped_on_and_what_collects(self) -> None:
        done = {"side": DID, "fan": DID, "each__x": FAILED}
        assert over(MAPPED, "x y", **done) == {"side", "fan", "end"}
        done |= {"each__y": DID}
        assert over(MAPPED, "x y", **done) == {"side", "fan", "each[?]", "end"}
        done |= {"more__y": BEGAN}
        assert over(MAPPED, "x y", **done) == {"side", "fan", "each[?]", "end"}
        done |= {"more__y": DID}
        assert over(MAPPED, "x y", **done) == {"side", "fan", "each[?]", "more[?]", "end"}

    @pytest.mark.parametrize("failing", ["fan", "side"])
    def test_nothing_follows_what_fails_before_them(self, failing: str) -> None:
        others = {"fan": DID, "side": DID, "each__x": DID} | {failing: FAILED}
        assert over(MAPPED, "x" if failing == "side" else "", **others) == MAPPED.keys()

    def test_those_of_an_earlier_run_are_there_by_their_own_keys(self) -> None:
        found = {
            "each[y]": StepPlan("each[y]", None, ()),
            "end": StepPlan("end", None, (), frozenset({"each[x]", "each[y]"})),
        }
        assert over(found, each__y=DID) == {"each[y]"}
        assert over(found, each__y=FAILED) == {"each[y]", "end"}
