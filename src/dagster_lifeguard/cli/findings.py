"""Findings as text and as JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.padding import Padding
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from dagster_lifeguard.findings import Finding

_COLOURS = {"error": "red", "warning": "yellow", "note": "cyan"}


def finding_as_json(finding: Finding) -> dict[str, Any]:
    """What ``--json`` prints of a finding; its severity is where it stands."""
    return {
        "code": finding.code,
        "message": finding.message,
        "remedy": finding.remedy,
        "names": list(finding.names),
        "evidence": list(finding.evidence),
        "commands": list(finding.commands),
    }


def print_finding(console: Console, finding: Finding) -> None:
    """Print what was found, by what it was seen, and what to do; commands to paste come last."""
    head = Text.assemble((finding.severity, _COLOURS[finding.severity]), " ")
    head.append_text(Text.assemble((finding.code, "bold"), ": "))
    console.print(head + Text(printable(finding.message)))
    for line in finding.evidence:
        console.print(Padding(Text(f"- {printable(line)}"), (0, 0, 0, 2)))
    console.print(Padding(Text(printable(finding.remedy), style="dim"), (0, 0, 0, 2)))
    for command in finding.commands:
        # Never wrapped: what is pasted has to be one line.
        console.print(Text(f"    {printable(command)}"), soft_wrap=True)


def verdict(findings: Sequence[Finding]) -> str:
    """The last line of a report: how many there are of each severity."""
    if not findings:
        return "nothing found"
    counts = {kind: sum(f.severity == kind for f in findings) for kind in _COLOURS}
    parts = [number(counts["error"], "error"), number(counts["warning"], "warning")]
    return ", ".join(parts + ([number(counts["note"], "note")] if counts["note"] else []))


def printable(text: str) -> str:
    """Escape what would move the cursor, break the line or not encode: names are the user's."""
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text
    )


def number(count: int, noun: str) -> str:
    """A number of things, such as ``1 error`` and ``2 errors``."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
