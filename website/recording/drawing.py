"""A session as an animated SVG: one small file that needs no player, on the site and on GitHub."""

from __future__ import annotations

import re
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

from website.recording.terminal import COLUMNS, Command, Line, Style

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

VISIBLE_ROWS = 29
CELL = 8.4
ROW = 19
PADDING = 16
BAR = 34
TYPED_EACH = 0.06
BEFORE_OUTPUT = 0.5
BETWEEN_COMMANDS = 2.5
AT_THE_END = 2.0

_WORDS = re.compile(r"\S+( \S+)*")
_COLORS = ("#6b7280", "#ff7b72", "#4ade80", "#f2cc60", "#79c0ff", "#d2a8ff", "#56d4dd", "#e6edf3")
_STYLE = """\
.w{{font:14px ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace;\
fill:#d6dde6}}
.l,.k{{visibility:hidden;animation:s 0s linear forwards}}
@keyframes s{{to{{visibility:visible}}}}
.g{{animation:m {seconds}s step-end forwards}}
@keyframes m{{{moves}}}
#end:target~svg .l,#end:target~svg .k{{visibility:visible;animation:none}}
#end:target~svg .g{{animation:none;transform:translateY({last}px)}}
@media (prefers-reduced-motion:reduce){{.l,.k{{visibility:visible;animation:none}}\
.g{{animation:none;transform:translateY({last}px)}}}}
"""


@dataclass(frozen=True)
class _Shown:
    """A line of the animation: when it appears, and how it is written."""

    at: float
    markup: str


def animated(commands: Sequence[Command], title: str) -> str:
    """Return the SVG of a session. It plays once; ``#end`` after its address shows the last moment.

    Args:
        commands: What was run, with the second at which each line appears.
        title: What the session shows, for readers who do not see it.
    """
    shown = list(_shown(commands))
    seconds = shown[-1].at + AT_THE_END
    moves, last = _moves(shown, seconds)
    width = round(COLUMNS * CELL + 2 * PADDING)
    inner = VISIBLE_ROWS * ROW
    height = BAR + inner + PADDING
    style = _STYLE.format(seconds=f"{seconds:.2f}", moves=moves, last=last)
    rows = "\n".join(
        f'<text class="l" y="{(number + 1) * ROW - 5}" style="animation-delay:{line.at:.2f}s">'
        f"{line.markup}</text>"
        for number, line in enumerate(shown)
        if line.markup
    )
    return f"""\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" \
height="{height}" role="img" aria-label="{escape(title)}">
<title>{escape(title)}</title>
<style>{style}</style>
<g id="end"/>
<rect width="{width}" height="{height}" rx="10" fill="#11161d"/>
<circle cx="20" cy="17" r="5" fill="#ff5f57"/>
<circle cx="38" cy="17" r="5" fill="#febc2e"/>
<circle cx="56" cy="17" r="5" fill="#28c840"/>
<svg x="{PADDING}" y="{BAR}" width="{width - 2 * PADDING}" height="{inner}" class="w">
<g class="g">
{rows}
</g>
</svg>
</svg>
"""


def _shown(commands: Sequence[Command]) -> Iterator[_Shown]:
    at = 0.6
    for number, command in enumerate(commands):
        if number:
            yield _Shown(at, "")
        keys = "".join(
            f'<tspan class="k" style="animation-delay:{at + 0.4 + TYPED_EACH * place:.2f}s">'
            f"{escape(key)}</tspan>"
            for place, key in enumerate(command.text)
        )
        yield _Shown(at, f'<tspan fill="#4ade80">$ </tspan><tspan fill="#fff">{keys}</tspan>')
        began = at + 0.4 + TYPED_EACH * len(command.text) + BEFORE_OUTPUT
        for line in command.lines:
            yield _Shown(began + line.at, _markup(line))
        at = began + command.seconds + BETWEEN_COMMANDS


def _markup(line: Line) -> str:
    """Each run of characters that look alike, at its own column: no font can shift it."""
    parts, column = [], 0
    for text, style in line.spans():
        for words in _WORDS.finditer(text):
            place = f'x="{(column + words.start()) * CELL:.1f}"'
            length = f'textLength="{len(words.group()) * CELL:.1f}"'
            look = _attributes(style)
            parts.append(f"<tspan {place} {length}{look}>{escape(words.group())}</tspan>")
        column += len(text)
    return "".join(parts)


def _attributes(style: Style) -> str:
    parts = []
    if style.color is not None:
        parts.append(f' fill="{_COLORS[style.color]}"')
    if style.bold:
        parts.append(' font-weight="bold"')
    if style.dim:
        parts.append(' opacity="0.7"')
    return "".join(parts)


def _moves(shown: Sequence[_Shown], seconds: float) -> tuple[str, int]:
    """Return the steps by which the lines move up, and how far they are moved at the end."""
    moves = {0.0: 0}
    for number, line in enumerate(shown):
        if number >= VISIBLE_ROWS:
            moves[line.at] = -(number + 1 - VISIBLE_ROWS) * ROW
    last = min(moves.values())
    steps = "".join(
        f"{100 * at / seconds:.3f}%{{transform:translateY({offset}px)}}"
        for at, offset in moves.items()
    )
    return f"{steps}to{{transform:translateY({last}px)}}", last
