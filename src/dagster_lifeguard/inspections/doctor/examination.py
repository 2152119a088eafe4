"""All checks, by what they look at, and their answers about one subject."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from dagster_lifeguard.compat.storages import database_errors
from dagster_lifeguard.errors import LifeguardError, first_line
from dagster_lifeguard.inspections.doctor import (
    daemon,
    environment,
    executors,
    naming,
    pool_limits,
    queue,
    runtime,
    settings,
    slots,
    storage,
    tag_limits,
)
from dagster_lifeguard.inspections.finding import worst_first

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from dagster_lifeguard.inspections.doctor.check import Check
    from dagster_lifeguard.inspections.doctor.examined import Examined
    from dagster_lifeguard.inspections.finding import Finding

GROUPS: Mapping[str, tuple[Check, ...]] = {
    "Environment": environment.CHECKS,
    "Settings": settings.CHECKS,
    "Daemon": daemon.CHECKS,
    "Storage": storage.CHECKS,
    "Limits": pool_limits.CHECKS,
    "Slots": slots.CHECKS,
    "Names of pools": naming.CHECKS,
    "Run queue": (*queue.CHECKS, *tag_limits.CHECKS),
    "Runtime": runtime.CHECKS,
    "Executors": executors.CHECKS,
}
"""Every check, by noun."""

CHECKS: Mapping[str, Check] = {check.code: check for checks in GROUPS.values() for check in checks}
"""Every check, by code."""

Outcome = Literal["clear", "found", "unanswered", "ignored"]


@dataclass(frozen=True)
class Answer:
    """What one check said.

    Attributes:
        reason: Why it is unanswered.
    """

    check: Check
    group: str
    outcome: Outcome
    findings: tuple[Finding, ...] = ()
    reason: str = ""


@dataclass(frozen=True)
class Examination:
    """The answers of all checks about one subject."""

    subject: str
    answers: tuple[Answer, ...]

    @property
    def findings(self) -> tuple[Finding, ...]:
        """All findings, the worst first."""
        found = [finding for answer in self.answers for finding in answer.findings]
        return tuple(sorted(found, key=worst_first))

    @property
    def is_well(self) -> bool:
        """Whether there is no error and no warning; notes do not count."""
        return all(finding.severity == "note" for finding in self.findings)

    def by_group(self) -> dict[str, tuple[Finding, ...]]:
        """The findings of each group that has some, the group with the worst first."""
        groups: dict[str, list[Finding]] = {}
        for answer in self.answers:
            if answer.findings:
                groups.setdefault(answer.group, []).extend(answer.findings)
        ordered = {name: tuple(sorted(found, key=worst_first)) for name, found in groups.items()}
        return dict(sorted(ordered.items(), key=lambda item: worst_first(item[1][0])))

    def unanswered(self) -> dict[str, tuple[str, ...]]:
        """The reasons for which checks are unanswered, and the codes of each."""
        reasons: dict[str, list[str]] = {}
        for answer in self.answers:
            if answer.outcome == "unanswered":
                reasons.setdefault(answer.reason, []).append(answer.check.code)
        return {reason: tuple(codes) for reason, codes in reasons.items()}

    def count(self, outcome: Outcome) -> int:
        """How many checks have this outcome."""
        return sum(answer.outcome == outcome for answer in self.answers)


def examine(subject: Examined, ignored: Collection[str] = ()) -> Examination:
    """Ask all checks, but for those whose codes are ignored. Changes nothing."""
    answers = tuple(
        Answer(check, group, "ignored") if check.code in ignored else _ask(check, group, subject)
        for group, checks in GROUPS.items()
        for check in checks
    )
    return Examination(subject.name, answers)


def _ask(check: Check, group: str, subject: Examined) -> Answer:
    reason = subject.why_not(check.source)
    if reason is not None:
        return Answer(check, group, "unanswered", reason=reason)
    try:
        findings = tuple(check.find(subject))
    except LifeguardError as error:
        return Answer(check, group, "unanswered", reason=error.message)
    except database_errors() as error:
        reason = f"the database does not answer: {first_line(error)}"
        return Answer(check, group, "unanswered", reason=reason)
    return Answer(check, group, "found" if findings else "clear", findings)
