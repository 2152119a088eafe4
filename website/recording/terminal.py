"""A session in a terminal: real commands in a pseudo-terminal, and when each line was printed."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import shlex
import struct
import subprocess
import termios
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

COLUMNS = 80
ROWS = 200
"""More than any command here prints, so that no command moves the cursor above the first row."""

_COLORS = (*range(30, 38), *range(90, 98))
_ESCAPE = re.compile(r"\x1b\[(?P<parameters>[\d;?]*)(?P<command>[A-Za-z])")


@dataclass(frozen=True)
class Style:
    """How characters look: the numbers of an SGR sequence, reduced to what our commands print."""

    bold: bool = False
    dim: bool = False
    color: int | None = None
    """0 to 7, as in SGR 30 to 37."""

    def changed(self, parameters: str) -> Style:
        """Return the style after an SGR sequence with these parameters."""
        style = self
        for number in (int(each or 0) for each in parameters.split(";")):
            match number:
                case 0:
                    style = Style()
                case 1:
                    style = replace(style, bold=True)
                case 2:
                    style = replace(style, dim=True)
                case 22:
                    style = replace(style, bold=False, dim=False)
                case 39:
                    style = replace(style, color=None)
                case _ if number in _COLORS:
                    style = replace(style, color=number % 10)
        return style


@dataclass
class Line:
    """One line of the screen, and the second at which it got its last character."""

    at: float = 0.0
    cells: list[tuple[str, Style]] = field(default_factory=list)

    @property
    def text(self) -> str:
        return "".join(character for character, _ in self.cells).rstrip()

    def spans(self) -> Iterator[tuple[str, Style]]:
        """Yield runs of characters that look alike."""
        run, style = "", Style()
        for character, look in self.cells:
            if look != style and run:
                yield run, style
                run = ""
            run, style = run + character, look
        if run.rstrip():
            yield run.rstrip(), style


@dataclass
class Screen:
    """The lines that a terminal would show, without an end below."""

    lines: list[Line] = field(default_factory=lambda: [Line()])
    row: int = 0
    column: int = 0
    style: Style = field(default_factory=Style)

    def feed(self, text: str, at: float) -> None:
        """Print text that a command wrote at a second."""
        position = 0
        while position < len(text):
            escape = _ESCAPE.match(text, position)
            if escape:
                self._obey(escape["command"], escape["parameters"])
                position = escape.end()
                continue
            self._put(text[position], at)
            position += 1

    def _put(self, character: str, at: float) -> None:
        if character == "\r":
            self.column = 0
        elif character == "\n":
            self.row += 1
            while len(self.lines) <= self.row:
                self.lines.append(Line(at))
        else:
            line = self.lines[self.row]
            line.cells += [(" ", Style())] * (self.column - len(line.cells))
            line.cells[self.column : self.column + 1] = [(character, self.style)]
            line.at = at
            self.column += 1

    def _obey(self, command: str, parameters: str) -> None:
        if command == "m":
            self.style = self.style.changed(parameters)
        elif command == "K":
            self.lines[self.row].cells.clear()
        elif command == "A":
            self.row = max(0, self.row - int(parameters or 1))
        elif command not in ("h", "l"):  # the cursor is hidden and shown
            raise ValueError(f"a sequence that this screen does not know: {parameters}{command}")


@dataclass(frozen=True)
class Command:
    """A command that was run, and what it printed by the second since it began."""

    text: str
    lines: tuple[Line, ...]
    seconds: float


def run(text: str, environment: Mapping[str, str], within: str) -> Command:
    """Run one command in a pseudo-terminal, in the directory ``within``.

    Raises:
        subprocess.CalledProcessError: The command exited with anything but 0 or 1.
    """
    words = shlex.split(text)
    controller, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    began = time.monotonic()
    process = subprocess.Popen(
        words,
        stdin=subprocess.DEVNULL,
        stdout=terminal,
        stderr=terminal,
        cwd=within,
        env={**environment, "TERM": "xterm-256color", "COLUMNS": str(COLUMNS)},
    )
    os.close(terminal)
    screen = Screen()
    for piece in _pieces(controller):
        screen.feed(piece, time.monotonic() - began)
    code = process.wait()
    if code not in (0, 1):
        shown = "\n".join(line.text for line in screen.lines)
        raise subprocess.CalledProcessError(code, words, output=shown)
    lines = screen.lines
    while lines and not lines[-1].text:
        lines.pop()
    return Command(text, tuple(lines), time.monotonic() - began)


def _pieces(controller: int) -> Iterator[str]:
    """Yield what is written, in pieces that end neither in a character nor in a sequence."""
    rest = b""
    while True:
        try:
            got = os.read(controller, 65536)
        except OSError:  # the other end is closed
            got = b""
        if not got:
            break
        rest += got
        whole = rest.rpartition(b"\n")[0] + b"\n" if b"\n" in rest else b""
        if whole:
            yield whole.decode()
            rest = rest[len(whole) :]
    os.close(controller)
    yield rest.decode()


def compressed(commands: Sequence[Command], longest_pause: float) -> list[Command]:
    """Shorten every pause between two lines to ``longest_pause`` seconds at most."""
    done = []
    for command in commands:
        lines, shown_at, before = [], 0.0, 0.0
        for line in command.lines:
            shown_at += min(max(line.at - before, 0.0), longest_pause)
            before = max(line.at, before)
            lines.append(Line(shown_at, line.cells))
        done.append(Command(command.text, tuple(lines), shown_at))
    return done
