"""Tables for a terminal, in which names that a user chose can do no harm."""

from __future__ import annotations

from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from dagster_lifeguard.findings import printable

_WRAPPED_MIN = 20


def cell(text: str, style: str = "") -> Text:
    """A cell of a table."""
    return Text(printable(text), style=style)


def plain_table() -> Table:
    """A table with a line under its heads and nothing else."""
    return Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="bold")


def new_console(width: int | None = None) -> Console:
    """A console that takes names for what they are: no markup, no emoji."""
    return Console(highlight=False, emoji=False, width=width)


def print_whole(table: Table) -> None:
    """Print a table whose columns without wrapping stand whole, wider than the terminal if need be.

    Those that wrap keep ``_WRAPPED_MIN`` columns of the screen.

    A name that is cut is of no use, and one that the terminal wraps can still be read and copied.
    """
    unbounded = new_console(width=10_000)
    fixed = [column.no_wrap for column in table.columns]
    wholes = [
        max(Measurement.get(unbounded, unbounded.options, item).maximum for item in items)
        for items in ([column.header, *column.cells] for column in table.columns)
    ]
    least = sum(
        whole if is_fixed else min(whole, _WRAPPED_MIN)
        for column, whole, is_fixed in zip(table.columns, wholes, fixed, strict=True)
    )
    gaps = 3 * (len(table.columns) - 1)
    new_console(width=max(new_console().width, least + gaps)).print(table)
