"""Findings: what a user should know, with what to do about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Severity = Literal["error", "warning", "note"]

SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")
"""Worst first."""


@dataclass(frozen=True)
class Finding:
    """Something a user should know, with what to do about it.

    Attributes:
        code: Stable identifier, the same in text, JSON and documentation.
        severity: An error means that a limit does not hold, or that steps wait for ever; a
            warning, that somebody should look; a note is only to be known.
        message: What was found, in one line.
        remedy: What to do, in one line.
        names: The assets, pools, rules, runs or files concerned.
        evidence: What it was seen by, one line each.
        commands: The remedy as lines to paste into a shell, if it can be said so.
        snippet: The remedy as lines to paste into a file, if it can be said so.
    """

    code: str
    severity: Severity
    message: str
    remedy: str
    names: tuple[str, ...] = ()
    evidence: tuple[str, ...] = ()
    commands: tuple[str, ...] = ()
    snippet: tuple[str, ...] = ()


def worst_first(finding: Finding) -> int:
    """Sort findings by this: errors, warnings, notes."""
    return SEVERITIES.index(finding.severity)


def limit_text(limit: int | None) -> str:
    """Return a limit as a message tells it."""
    return "unlimited" if limit is None else str(limit)


def number(count: int, noun: str) -> str:
    """Return a number of things, such as ``1 error`` and ``2,000 errors``."""
    return f"{count} {noun}" if count == 1 else f"{count:,} {noun}s"


def often(count: int) -> str:
    """Return how often something was, such as ``once`` and ``2,000 times``."""
    return {1: "once", 2: "twice"}.get(count, f"{count:,} times")


def printable(text: str) -> str:
    """Escape what would move the cursor, break the line or not encode: names are the user's."""
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text
    )


def short(run_id: str) -> str:
    """As much of a run's id as tells it from others, and as Dagster's UI shows."""
    return printable(run_id[:8])
