"""Tables for a terminal, in which names that a user chose can do no harm."""

from __future__ import annotations

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from dagster_lifeguard.findings import printable


def cell(text: str, style: str = "") -> Text:
    """A cell of a table."""
    return Text(printable(text), style=style)


def plain_table() -> Table:
    """A table with a line under its heads and nothing else."""
    return Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="bold")


def new_console() -> Console:
    """A console that takes names for what they are: no markup, no emoji."""
    return Console(highlight=False, emoji=False)
