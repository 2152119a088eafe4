"""Tables and texts in which no value is ever cut, whatever its length and the terminal's width.

A table that fits is a table. One that does not is as wide as it needs to be where nobody looks at a
screen, so that each record stays a line for grep and awk; on a terminal it becomes one block for
each record. Words are never broken: one that is wider than the screen can still be copied.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from rich import box
from rich.cells import cell_len
from rich.console import Console, Group
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from dagster_lifeguard.texts import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from rich.console import ConsoleOptions, RenderableType, RenderResult
    from rich.table import Column as RichColumn

R = TypeVar("R")

_PROSE_MIN = 20
"""Columns of the screen that a column of prose keeps, at least."""

_GAP = 3
"""Columns of the screen between two columns of a table."""


def cell(text: str, style: str = "") -> Text:
    """A cell of a table."""
    return Text(printable(text), style=style)


class WholeTable:
    """A table with a line under its heads and nothing else, in which nothing is cut.

    The first column says what a record is about.
    """

    def __init__(self) -> None:
        self._table = Table(
            box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="bold"
        )

    def add_column(self, heading: str, *, right: bool = False, prose: bool = False) -> None:
        """Add a column.

        Args:
            heading: What stands above it.
            right: Whether its values end in one line, as numbers do.
            prose: Whether its values are text that may be wrapped between words.
        """
        self._table.add_column(
            heading,
            justify="right" if right else "left",
            no_wrap=not prose,
            overflow="fold",
        )

    def add_row(self, *cells: Text) -> None:
        """Add a record."""
        self._table.add_row(*cells)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Choose the form that fits."""
        least = _GAP * (len(self._table.columns) - 1)
        unbounded = options.update(width=100_000)
        for column in self._table.columns:
            whole = _whole(column, console, unbounded)
            heading = Measurement.get(console, unbounded, column.header).maximum
            prose = max(_PROSE_MIN, heading, _longest_word(column))
            column.min_width = None if column.no_wrap else min(whole, prose)
            least += whole if column.no_wrap else min(whole, prose)
        if least <= options.max_width:
            yield self._table
        elif console.is_terminal:
            yield from self._blocks(options.max_width)
        else:
            yield from console.render(self._table, options.update(width=least))

    def _blocks(self, width: int) -> Iterator[Text]:
        columns = self._table.columns
        for cells in zip(*(column.cells for column in columns), strict=True):
            pairs = [
                Text.assemble((str(column.header), "dim"), " " if column.header else "", value)
                for column, value in zip(columns, cells, strict=True)
                if isinstance(value, Text) and value.plain
            ]
            yield _kept(pairs[0])
            line = Text()
            for pair in pairs[1:]:
                if line and 2 + len(line) + _GAP + pair.cell_len > width:
                    yield _kept(Text("  ") + line)
                    line = Text()
                line = line + Text(" " * _GAP if line else "") + pair
            if line:
                yield _kept(Text("  ") + line)


@dataclass(frozen=True, slots=True)
class Column(Generic[R]):
    """A column of a table.

    Attributes:
        heading: What stands above it.
        text: Its value in a row.
        right: Whether its values end in one line, as numbers do.
        prose: Whether its values are text that may be wrapped between words.
        shown: Whether the table has it at all.
    """

    heading: str
    text: Callable[[R], str | Text]
    right: bool = False
    prose: bool = False
    shown: bool = True


def table_of(rows: Iterable[R], *columns: Column[R]) -> WholeTable:
    """A table with these columns, and a record for each row."""
    table = WholeTable()
    shown = [column for column in columns if column.shown]
    for column in shown:
        table.add_column(column.heading, right=column.right, prose=column.prose)
    for row in rows:
        texts = [column.text(row) for column in shown]
        table.add_row(*(cell(text) if isinstance(text, str) else text for text in texts))
    return table


class Facts:
    """Lines of a word and what it says, one below the other."""

    def __init__(self, rows: Iterable[tuple[str, str]], *, indent: int = 0) -> None:
        self._rows = list(rows)
        self._indent = indent

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Print them, each text wrapped between words beside its word."""
        left = self._indent + max((len(word) for word, _ in self._rows), default=0) + 2
        for word, text in self._rows:
            head = Text(f"{' ' * self._indent}{word}".ljust(left), style="dim")
            width = max(options.max_width - left, _PROSE_MIN)
            for line in wrapped(cell(text), width):
                yield _kept(head + line)
                head = Text(" " * left)


def _kept(line: Text) -> Text:
    line.no_wrap, line.overflow = True, "ignore"
    return line


def _whole(column: RichColumn, console: Console, options: ConsoleOptions) -> int:
    return max(Measurement.get(console, options, i).maximum for i in (column.header, *column.cells))


def _longest_word(column: RichColumn) -> int:
    words = [w for value in column.cells if isinstance(value, Text) for w in value.plain.split()]
    return max((Text(word).cell_len for word in words), default=0)


def wrapped(text: Text, width: int) -> Iterator[Text]:
    """The lines of a text, broken between words only: a long word stands on a line of its own."""
    for paragraph in text.split("\n", allow_blank=True):
        ends, used = [], 0
        for word in re.finditer(r"\s*\S+", paragraph.plain):
            length = cell_len(word[0])
            if used and used + length > width:
                ends.append(word.start())
                length -= len(word[0]) - len(word[0].lstrip())
                used = 0
            used += length
        for number, line in enumerate(paragraph.divide(ends)):
            line.rstrip()
            indent = len(line.plain) - len(line.plain.lstrip()) if number else 0
            yield _kept(line[indent:] if indent else line)


class _Unbroken:
    """Texts that are wrapped as ``wrapped`` does; all else as it is."""

    def __init__(self, content: object) -> None:
        self._content = content

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        content = self._content
        if isinstance(content, str):
            content = console.render_str(content)
        if isinstance(content, Text) and not (content.no_wrap or options.no_wrap):
            yield from wrapped(content, options.max_width)
        elif isinstance(content, Group):
            yield from map(_Unbroken, content.renderables)
        else:
            yield cast("RenderableType", content)


class _Console(Console):
    """Breaks lines between words only, and cuts none."""

    def print(self, *objects: Any, **settings: Any) -> None:
        super().print(*map(_Unbroken, objects), **{"crop": False, **settings})


def new_console() -> Console:
    """A console that takes names for what they are: no markup, no emoji, never cut."""
    return _Console(highlight=False, emoji=False)
