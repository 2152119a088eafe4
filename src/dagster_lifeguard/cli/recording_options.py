"""The past executions that a command plays: their options, and the line that names them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from dagster_lifeguard.cli.duration_option import duration_option
from dagster_lifeguard.texts import date_text, number

if TYPE_CHECKING:
    from collections.abc import Callable

    from dagster_lifeguard.insight.simulation.answer import Answer


def recording_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command ``--since``, in seconds, and ``--by``."""
    since = duration_option(
        "--since", "7d", "How far back to look for executions, e.g. 30m, 24h, 7d."
    )
    by = click.option(
        "--by",
        type=click.Choice(["ledger", "event-logs"]),
        help="Where to read past executions.  [default: the engine's ledger where it runs, else "
        "Dagster's event logs]",
    )
    return since(by(command))


def recording_text(answer: Answer, deployment: str) -> str:
    """The executions that were played: how many, of which window, and where they were read."""
    source = "the engine's ledger" if answer.source == "ledger" else "Dagster's event logs"
    window = f"from {date_text(answer.since)} to {date_text(answer.until)}"
    return f"{number(answer.executions, 'execution')} of {deployment} {window}, by {source}."
