"""Findings as text and as JSON."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.text import Text

from dagster_lifeguard.cli.tables import wrapped
from dagster_lifeguard.texts import number, printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from dagster_lifeguard.inspections.finding import Finding

_COLOURS = {"error": "red", "warning": "yellow", "note": "cyan"}


def finding_as_json(finding: Finding) -> dict[str, Any]:
    """What ``--json`` prints of a finding; its severity is where it stands."""
    found = asdict(finding)
    del found["severity"]
    return found


def print_finding(console: Console, finding: Finding) -> None:
    """Print what was found, by what it was seen, and what to do; lines to paste come last."""
    head = Text.assemble((finding.severity, _COLOURS[finding.severity]), " ")
    head.append_text(Text.assemble((finding.code, "bold"), ": "))
    console.print(head + Text(printable(finding.message)))
    for line in finding.evidence:
        print_indented(console, "- ", line)
    print_indented(console, "", finding.remedy, style="dim")
    for line in (*finding.commands, *finding.snippet):
        # Never wrapped: a pasted line has to stay one line.
        console.print(Text(f"    {printable(line)}"), soft_wrap=True)


def print_indented(console: Console, bullet: str, text: str, *, style: str = "") -> None:
    """Print a paragraph below what it belongs to."""
    lines = wrapped(Text(printable(text), style=style), console.width - 2 - len(bullet))
    for index, line in enumerate(lines):
        console.print(Text("  " + (bullet if index == 0 else " " * len(bullet))) + line)


def verdict(findings: Sequence[Finding]) -> str:
    """The last line of a report: how many there are of each severity."""
    counts = {kind: sum(f.severity == kind for f in findings) for kind in _COLOURS}
    parts = [number(counts["error"], "error"), number(counts["warning"], "warning")]
    if not counts["error"] and not counts["warning"]:
        parts = ["nothing found"]
    return ", ".join(parts + ([number(counts["note"], "note")] if counts["note"] else []))
