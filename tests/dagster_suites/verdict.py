"""What a suite came to on Dagster's own storage and on ours, beside what is expected. No I/O."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

PASSED, FAILED, SKIPPED, NOT_RUN = "passed", "failed", "skipped", "not run"
_WORST_FIRST = (FAILED, SKIPPED, PASSED, NOT_RUN)


@dataclass(frozen=True)
class Result:
    """What one test came to.

    Attributes:
        outcome: passed, failed, skipped or not run.
        text: Of a failure, all that pytest says.
        ours: Whether the test had an instance on our storages.
    """

    outcome: str
    text: str = ""
    ours: bool = False


@dataclass(frozen=True)
class Expected:
    """A test that is expected to fail on our storages, or that is not run at all.

    Attributes:
        test: Its id, in which ``*`` stands for anything.
        suites: The names of the suites that it is expected in.
        reason: Why.
        says: A text that the failure has, so that no other failure of the test passes for it.
    """

    test: str
    suites: tuple[str, ...]
    reason: str
    says: str = ""

    @property
    def pattern(self) -> str:
        return re.escape(self.test).replace(r"\*", ".*")

    def matches(self, test: str) -> bool:
        return re.fullmatch(self.pattern, test) is not None


def expected_of(found: Iterable[Mapping[str, Any]], names: Sequence[str]) -> list[Expected]:
    """Read one list of the file.

    Raises:
        ValueError: An entry lacks its test or reason, or names a suite that there is not.
    """
    entries = []
    for entry in found:
        try:
            expected = Expected(**{**entry, "suites": tuple(entry["suites"])})
        except (KeyError, TypeError) as error:
            raise ValueError(f"{dict(entry)}: {error}") from error
        unknown = set(expected.suites) - set(names)
        if unknown or not expected.reason:
            raise ValueError(f"{expected.test}: unknown suites {unknown} or no reason")
        entries.append(expected)
    return entries


def merged(lines: Iterable[Mapping[str, Any]]) -> dict[str, Result]:
    """One result for each test: the worst of what its setup, call and teardown came to."""
    results: dict[str, Result] = {}
    for line in lines:
        result = Result(line["outcome"], line["text"], line["ours"])
        before = results.get(line["test"])
        if before is None or _rank(result) < _rank(before):
            results[line["test"]] = result
    return results


def _rank(result: Result) -> int:
    return _WORST_FIRST.index(result.outcome)


@dataclass
class Verdict:
    """What a suite came to.

    Attributes:
        stock: How many tests came to what on Dagster's own storage, by outcome.
        ours: The same on our storages.
        met: How many tests had an instance on our storages.
        differences: The tests that came to something else on ours, as expected, each with its entry.
        faults: Lines, each of which makes the whole fail.
    """

    stock: Counter[str]
    ours: Counter[str]
    met: int
    differences: dict[str, Expected] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)

    def add(self, suite: str, other: Verdict) -> None:
        """Add up: what another suite came to."""
        self.stock += other.stock
        self.ours += other.ours
        self.met += other.met
        self.differences |= {f"{suite}: {test}": e for test, e in other.differences.items()}
        self.faults += other.faults


def judge(
    stock: Mapping[str, Result],
    ours: Mapping[str, Result],
    differences: Sequence[Expected],
    not_run: Sequence[Expected],
) -> Verdict:
    """Compare both, and both with what is expected of this suite."""
    verdict = Verdict(
        Counter(result.outcome for result in stock.values()),
        Counter(result.outcome for result in ours.values()),
        sum(result.ours for result in ours.values()),
    )
    faults = verdict.faults
    if not verdict.met:
        faults.append("no test met our storages")
    faults += [f"{test} is in only one of both" for test in sorted(stock.keys() ^ ours.keys())]
    occurred = set()
    for test in sorted(stock.keys() & ours.keys()):
        control, result = stock[test], ours[test]
        occurred |= {e for e in not_run if result.outcome == NOT_RUN and e.matches(test)}
        if control.outcome == FAILED:
            faults.append(f"{test} fails on Dagster's own storage: {last_line(control.text)}")
        elif control.outcome != result.outcome:
            expected = next((entry for entry in differences if entry.matches(test)), None)
            occurred.add(expected)
            if expected is None:
                faults.append(f"{test} is {result.outcome} on ours: {last_line(result.text)}")
            elif expected.says not in result.text:
                faults.append(
                    f"{test} fails otherwise than expected: {last_line(result.text)}; "
                    f"expected: {expected.says}"
                )
            else:
                verdict.differences[test] = expected
    faults += [
        f"{entry.test} is expected ({entry.reason}), and does not occur"
        for entry in (*differences, *not_run)
        if entry not in occurred
    ]
    return verdict


def last_line(text: str) -> str:
    """What pytest says of the error itself."""
    lines = [line[1:].strip() for line in text.splitlines() if line.startswith("E ")]
    return lines[0] if lines else (text.strip().splitlines() or ["nothing said"])[-1]
