"""Older settings of ``dagster.yaml``, what they are called now, and moving them there.

A setting is moved as the lines that it is written in, comments included. Where it is written on one
line with others, the file is written anew by the YAML library, which keeps comments too. Either way
the result is compared with what it is to mean.
"""

from __future__ import annotations

import io
import textwrap
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ruamel.yaml.comments import CommentedMap
from ruamel.yaml.nodes import MappingNode

from dagster_lifeguard.errors import ConfigError
from dagster_lifeguard.limits.dagster_yaml import load, new_yaml, plain, put_lines

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_RENAMED = {
    "max_concurrent_runs": "concurrency.runs.max_concurrent_runs",
    "tag_concurrency_limits": "concurrency.runs.tag_concurrency_limits",
    "block_op_concurrency_limited_runs.op_concurrency_slot_buffer": (
        "concurrency.pools.op_granularity_run_buffer"
    ),
}

_BLOCKS = ("concurrency.runs", "concurrency.pools")

MOVED: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    *((f"run_queue.{old}", new, _BLOCKS) for old, new in _RENAMED.items()),
    *((f"run_coordinator.config.{old}", new, _BLOCKS) for old, new in _RENAMED.items()),
    (
        "concurrency.default_op_concurrency_limit",
        "concurrency.pools.default_limit",
        ("concurrency.pools",),
    ),
    ("run_coordinator", "run_queue", ("run_queue",)),
)
"""An older setting, what it is called now, and beside which others Dagster refuses it."""


@dataclass(frozen=True)
class Move:
    """A setting that was moved.

    Attributes:
        old: Where it stood, with dots.
        new: Where it stands now.
        dropped: Its value, if the new place had another one, which stays; else None.
        kept: That other value.
    """

    old: str
    new: str
    dropped: object = None
    kept: object = None

    def __str__(self) -> str:
        if self.dropped is None:
            return f"{self.old} becomes {self.new}"
        return f"{self.old}: {self.dropped} is dropped, since {self.new} says {self.kept}"


def setting(document: Any, path: str) -> Any:
    """The value of a setting, named with dots; None if it is not there."""
    node = document
    for name in path.split("."):
        node = node.get(name) if isinstance(node, dict) else None
    return node


def with_new_settings(text: str, source: str) -> tuple[str, tuple[Move, ...]]:
    """Move each older setting to where it belongs now.

    Args:
        text: A ``dagster.yaml``.
        source: Its name, for messages.

    Returns:
        The new contents, and what was moved.

    Raises:
        ConfigError: The file is not a mapping in valid YAML.
    """
    moves: list[Move] = []
    for old, new in _moves(load(text, source)):
        document = load(text, source)
        value, there = setting(document, old), setting(document, new)
        expected = _expected(document, old, new)
        text = _as_lines(text, source, old, new, expected) or _anew(text, source, old, new)
        differs = there is not None and there != value
        moves.append(Move(old, new, *((_brief(value), _brief(there)) if differs else ())))
    return text, tuple(moves)


def _moves(document: CommentedMap) -> Iterator[tuple[str, str]]:
    for old, new, _ in MOVED:
        if old != "run_coordinator" and setting(document, old) is not None:
            yield old, new
    queue = document.get("run_queue")
    if isinstance(queue, dict) and "run_coordinator" in document:
        # Beside a run coordinator Dagster refuses a run queue, whose settings are its own.
        others = [name for name in queue if name not in _RENAMED]
        yield from ((f"run_queue.{name}", f"run_coordinator.config.{name}") for name in others)


def _brief(value: object) -> object:
    return value if isinstance(value, str | int | float) else "[...]"


def _expected(document: CommentedMap, old: str, new: str) -> Any:
    """The settings as they are to be, as plain values."""
    found = plain(document)
    value = _take(found, old.split("."))
    node = found
    *folders, name = new.split(".")
    for folder in folders:
        node[folder] = node.get(folder) or {}
        node = node[folder]
    node.setdefault(name, value)
    return found


def _take(node: Any, path: Sequence[str]) -> Any:
    """Take a setting out, and what has nothing left in it."""
    name, *rest = path
    if not rest:
        return node.pop(name)
    value = _take(node[name], rest)
    if not node[name]:
        del node[name]
    return value


def _as_lines(text: str, source: str, old: str, new: str, expected: Any) -> str | None:
    """Move the lines of a setting; None if it has none to itself, or has no place to go to."""
    try:
        cut = _cut(text, old.split("."))
        if cut is None:
            return None
        rest, lines = cut
        if setting(load(text, source), new) is None:
            name, path = old.rpartition(".")[2], new.split(".")
            at = next(i for i, line in enumerate(lines) if not line.startswith("#"))
            lines[at] = path[-1] + lines[at].removeprefix(name)
            rest = put_lines(rest, path, lines) or ""
        return rest if plain(load(rest, source)) == expected else None
    except ConfigError:
        return None


def _cut(text: str, path: Sequence[str]) -> tuple[str, list[str]] | None:
    """Take the lines of a setting out, with the comments right above it."""
    node: Any = new_yaml().compose(text)
    chain: list[tuple[Any, Any]] = []
    for name in path:
        if not isinstance(node, MappingNode) or node.flow_style:
            return None
        found = next((pair for pair in node.value if pair[0].value == name), None)
        if found is None:
            return None
        chain.append(found)
        alone = len(node.value) == 1
        if not alone or len(chain) == 1:
            top = len(chain) - 1  # What has nothing else in it goes, too.
        node = found[1]
    lines = text.splitlines(keepends=True)
    begin, end = chain[-1][0].start_mark.line, _last_line(chain[-1][1]) + 1
    own = [line.rstrip("\r\n") for line in lines[begin:end]]
    if own[0][: chain[-1][0].start_mark.column].strip():
        return None
    first = _with_comments(lines, begin)
    comments = [line.strip() for line in lines[first:begin]]
    if top < len(chain) - 1:
        outer = chain[top][0].start_mark.line
        # Comments of what goes stay with the setting.
        between = [line.partition("#") for line in lines[outer:first]]
        comments = [f"#{found}".rstrip() for _, mark, found in between if mark] + comments
        first = _with_comments(lines, outer)
        comments = [line.strip() for line in lines[first:outer]] + comments
    dedented = textwrap.dedent("\n".join(own)).split("\n")
    return "".join(lines[:first] + lines[end:]), comments + dedented


def _with_comments(lines: Sequence[str], line: int) -> int:
    """The first of the comments right above a line; those at the top are about the whole file."""
    first = line
    while first > 0 and lines[first - 1].lstrip().startswith("#"):
        first -= 1
    return line if first == 0 else first


def _last_line(node: Any) -> int:
    """The last line, from 0, in which a value is written."""
    if isinstance(node.value, list) and node.value and not node.flow_style:
        last = node.value[-1]
        return _last_line(last[1] if isinstance(last, tuple) else last)
    line: int = node.end_mark.line
    is_block_text = getattr(node, "style", None) in ("|", ">")
    return line - 1 if is_block_text else line


def _anew(text: str, source: str, old: str, new: str) -> str:
    yaml = new_yaml()
    document = load(text, source)
    value = _take(document, old.split("."))
    node = document
    *folders, name = new.split(".")
    for folder in folders:
        if not isinstance(node.get(folder), CommentedMap):
            node[folder] = CommentedMap()
        node = node[folder]
    if name not in node:
        node[name] = value
    stream = io.StringIO()
    yaml.dump(document, stream)
    return stream.getvalue()
