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
