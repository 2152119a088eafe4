"""How `make test-dagster` judges: what is not expected fails, and so does what is no longer so."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from suites import SUITES
from verdict import Expected, Result, expected_of, judge, merged

PASSED = Result("passed", ours=True)
TEST = "tests/test_x.py::TestSqlite::test_limits"
LATE = "tests/test_x.py::TestSqlite::test_late"
FAILED = Result("failed", "def test():\n>   look()\nE   AssertionError: assert 1 == 0\n", ours=True)
ENTRY = Expected("*::test_limits", ("one",), "by design", says="assert 1 == 0")


def faults(stock, ours, differences=(), not_run=()):
    return judge(stock, ours, differences, not_run).faults


def test_the_same_on_both_is_no_fault():
    skipped = Result("skipped", ours=True)
    verdict = judge({TEST: PASSED, LATE: skipped}, {TEST: PASSED, LATE: skipped}, (), ())
    assert (verdict.faults, verdict.differences, verdict.met) == ([], {}, 2)


@pytest.mark.parametrize("outcome", ["failed", "skipped"])
def test_a_difference_that_is_not_listed_is_a_fault(outcome):
    (fault,) = faults({TEST: PASSED}, {TEST: Result(outcome, FAILED.text, ours=True)})
    assert fault == f"{TEST} is {outcome} on ours: AssertionError: assert 1 == 0"


def test_a_listed_difference_is_told_with_its_reason():
    verdict = judge({TEST: PASSED}, {TEST: FAILED}, [ENTRY], ())
    assert (verdict.faults, verdict.differences) == ([], {TEST: ENTRY})


def test_another_failure_of_a_listed_test_is_a_fault():
    other = Result("failed", "E   AssertionError: assert 2 == 0", ours=True)
    (fault,) = faults({TEST: PASSED}, {TEST: other}, [ENTRY])
    assert "otherwise than expected: AssertionError: assert 2 == 0" in fault


def test_a_listed_difference_that_does_not_occur_is_a_fault():
    (fault,) = faults({TEST: PASSED}, {TEST: PASSED}, [ENTRY])
    assert fault == "*::test_limits is expected (by design), and does not occur"


def test_a_test_that_is_not_run_must_be_there():
    left = Result("not run")
    entry = Expected("*::test_late", ("one",), "needs docker")
    assert faults({TEST: PASSED, LATE: left}, {TEST: PASSED, LATE: left}, (), [entry]) == []
    assert len(faults({TEST: PASSED}, {TEST: PASSED}, (), [entry])) == 1


def test_what_fails_on_the_control_is_a_fault_also_if_it_fails_on_both():
    (fault,) = faults({TEST: FAILED}, {TEST: FAILED})
    assert fault.startswith(f"{TEST} fails on Dagster's own storage")


def test_both_must_have_the_same_tests_and_ours_must_be_met():
    assert f"{LATE} is in only one of both" in faults({TEST: PASSED, LATE: PASSED}, {TEST: PASSED})
    assert "no test met our storages" in faults({TEST: PASSED}, {TEST: Result("passed")})


def test_a_star_in_a_test_stands_for_anything_and_nothing_else_does():
    entry = Expected("*::test_x[1*]", ("one",), "by design")
    assert entry.matches("a.py::test_x[1-a]")
    assert not entry.matches("a.py::test_x[2]")
    assert not entry.matches("a.py::test_xx[1-a]")


def test_of_setup_call_and_teardown_the_worst_counts():
    lines = [
        {"test": TEST, "outcome": "passed", "text": "", "ours": True},
        {"test": TEST, "outcome": "failed", "text": "E   teardown", "ours": True},
        {"test": TEST, "outcome": "passed", "text": "", "ours": True},
        {"test": LATE, "outcome": "passed", "text": "", "ours": True},
    ]
    assert merged(lines) == {TEST: Result("failed", "E   teardown", ours=True), LATE: PASSED}


@pytest.mark.parametrize(
    "entry",
    [
        {"test": "*", "suites": ["one"]},
        {"test": "*", "suites": ["one"], "reason": ""},
        {"test": "*", "suites": ["unknown"], "reason": "by design"},
        {"test": "*", "reason": "by design"},
        {"test": "*", "suites": ["one"], "reason": "by design", "reasn": "typo"},
    ],
)
def test_an_entry_with_a_mistake_is_refused(entry):
    with pytest.raises(ValueError, match=r"\*"):
        expected_of([entry], ["one", "two"])


def test_the_lists_name_only_suites_that_there_are():
    lists = yaml.safe_load(Path(__file__).with_name("expected_differences.yaml").read_text())
    names = [suite.name for suite in SUITES]
    assert len(set(names)) == len(names)
    for key in ("differences", "not_run"):
        assert expected_of(lists[key], names)
