"""What ``lifeguard audit`` found, in words."""

from __future__ import annotations

import time
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from dagster_lifeguard.engine.rules.shown_names import pool_text
from dagster_lifeguard.inspections.audit.verdict import verdict_text
from dagster_lifeguard.texts import date_text, duration_text, number, often, printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from dagster_lifeguard.inspections.audit.audit_result import (
        EarlyStart,
        Excess,
        LongWait,
        Outlived,
        StaleFence,
        Subject,
    )
    from dagster_lifeguard.inspections.audit.deployment_audit import AuditReport

NOTHING_FOUND: Mapping[Subject, str] = {
    "limits": "Limits: nothing found",
    "rates": "Rates: nothing found",
    "fences": "Fences: nothing found",
    "leases": "Steps after their lease: nothing found",
    "duplicates": "Two runs in one asset at once: nothing found",
    "waits": "Long waits: nothing found",
}
"""The heading above caveats of a subject without findings."""

SHOWN_MAX = 10
"""So many findings of a subject are shown as text; JSON has the first 1,000."""


@dataclass(frozen=True, slots=True)
class _Section:
    """The findings of one subject.

    Attributes:
        heading: What was found.
        count: How many findings there are.
        found: The lines of each finding.
    """

    subject: Subject
    heading: str
    count: int
    found: Iterable[Iterable[Text]]


def print_report(report: AuditReport, long_wait: float) -> None:
    """Print the findings and the caveats of each subject, and last the verdict."""
    console = Console(highlight=False, emoji=False, soft_wrap=True)
    for section in _sections(report, long_wait):
        caveats = report.caveats(section.subject)
        if section.count:
            console.print(Text(section.heading, style="bold"))
            for lines in islice(section.found, SHOWN_MAX):
                console.print(*lines, sep="\n")
            if section.count > SHOWN_MAX:
                more = f"  and {section.count - SHOWN_MAX:,} more; --json lists the first 1,000"
                console.print(Text(more))
        elif caveats:
            console.print(Text(NOTHING_FOUND[section.subject], style="bold"))
        for caveat, times in caveats.items():
            console.print(Text(f"  - {caveat.sentence(times)}", style="dim"))
        if caveats or section.count:
            console.print()
    styles = {"kept": "bold green", "exceeded": "bold red", "unsafe": "bold red"}
    style = styles.get(report.verdict, "bold yellow")
    console.print(Text(verdict_text(report), style=style))


def _sections(report: AuditReport, long_wait: float) -> Iterator[_Section]:
    limits, executions = report.limits, report.executions
    count = limits.excess_count
    heading = f"A limit was exceeded {often(count)}."
    yield _Section("limits", heading, count, map(_excess, limits.excesses))
    count = limits.early_count
    heading = f"A rate was exceeded {often(count)}."
    yield _Section("rates", heading, count, map(_early, limits.early))
    count = limits.stale_count
    heading = f"A fence did not grow {often(count)}."
    yield _Section("fences", heading, count, map(_stale, limits.stale))
    count = limits.outlived_count
    heading = f"{number(count, 'step')} went on after the lease was over."
    yield _Section("leases", heading, count, map(_outlived, limits.outlived))
    count = executions.duplicate_count
    heading = f"Two runs made one asset at once {often(count)}."
    yield _Section("duplicates", heading, count, map(_excess, executions.duplicates))
    count = limits.wait_count
    heading = f"{number(count, 'wait')} of {duration_text(long_wait)} or more"
    yield _Section("waits", heading, count, map(_wait, limits.waits))


def _excess(excess: Excess) -> Iterator[Text]:
    lane = excess.lane
    name = pool_text(lane.name) if lane.kind == "pool" else lane.name
    name += f" [{lane.partition}]" if lane.partition else ""
    lasted = "" if excess.seconds is None else f" for {_seconds(excess.seconds)}"
    held = f"{excess.held} of {excess.limit} slots" if lane.kind == "pool" else "two runs"
    if excess.held > 2 and lane.kind == "asset":  # noqa: PLR2004
        held = f"{excess.held} runs"
    going_on = ", and goes on" if excess.ended is None else ""
    yield _first(name, f"{held}{lasted} from {date_text(excess.started)}{going_on}")
    for occupant in excess.occupants[-SHOWN_MAX:]:
        step = f" step {occupant.step_key}" if occupant.step_key else ""
        yield _further(f"run {occupant.run_id}{step} since {_clock(occupant.started)}")


def _early(early: EarlyStart) -> Iterator[Text]:
    who = early.occupant
    yield _first(pool_text(early.pool), f"{_seconds(early.seconds)} too early for {early.rate}")
    yield _further(f"run {who.run_id} step {who.step_key} at {_clock(who.started)}")


def _stale(stale: StaleFence) -> Iterator[Text]:
    given = "given twice" if stale.fence == stale.largest else f"given after {stale.largest}"
    yield _first(pool_text(stale.pool), f"{stale.fence} {given}")
    for who in (stale.first, stale.occupant):
        yield _further(f"run {who.run_id} step {who.step_key} at {date_text(who.started)}")


def _outlived(late: Outlived) -> Iterator[Text]:
    how = f"for {_seconds(late.seconds)} or more after {date_text(late.expired)}"
    yield _first(", ".join(map(pool_text, late.pools)), how)
    wrote = f"{late.event} at {_clock(late.wrote)} by its machine's clock"
    yield _further(f"run {late.run_id} step {late.step_key}, fence {late.fence}, wrote {wrote}")


def _wait(wait: LongWait) -> Iterator[Text]:
    who = f"run {wait.run_id}" + (f" step {wait.step_key}" if wait.step_key else " (queued)")
    line = f"{duration_text(wait.seconds):>12}  {pool_text(wait.name)}  {who}"
    yield Text(f"  {printable(f'{line} until {date_text(wait.ended)}')}")


def _first(name: str, text: str) -> Text:
    return Text.assemble("  ", (printable(name), "red"), f"  {text}")


def _further(text: str) -> Text:
    return Text(f"      {printable(text)}", style="dim")


def _clock(at: float) -> str:
    return time.strftime("%H:%M:%S", time.localtime(at)) + f"{at % 1:.3f}"[1:]


def _seconds(seconds: float) -> str:
    return f"{seconds:.3f} s" if seconds < 10 else duration_text(seconds)  # noqa: PLR2004
