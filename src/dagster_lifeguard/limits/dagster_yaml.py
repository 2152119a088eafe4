"""``dagster.yaml``: adding the pool settings that a policy relies on, and changing nothing else.

Settings are put in as text, at the places that the YAML parser gives, so that every byte that is
there stays. The result is parsed and compared with what was meant; where they differ, the file is
left as it is and the user is told what to add.
"""

from __future__ import annotations

import copy
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap
from ruamel.yaml.error import YAMLError
from ruamel.yaml.nodes import CollectionNode, MappingNode

from dagster_lifeguard.compat.instance import instance_config_problem
from dagster_lifeguard.errors import ConfigError
from dagster_lifeguard.policy.yaml_text import parse_mapping

if TYPE_CHECKING:
    from collections.abc import Sequence

STANZA: tuple[tuple[str, object, str], ...] = (
    ("concurrency.pools.default_limit", 1, "of every pool that is given no limit of its own"),
    ("run_monitoring.free_slots_after_run_end_seconds", 60, "else their slots stay taken"),
    ("run_monitoring.enabled", True, "ends runs whose process died, where the launcher can tell"),
)
"""Setting, value and why."""

MONITORING = STANZA[1:]
"""Those that free the slots of a crashed or cancelled run."""

_MEND = "Mend it first; nothing was changed."

_STANZA_TEXT = (
    "concurrency: {pools: {default_limit: 1}} and "
    "run_monitoring: {enabled: true, free_slots_after_run_end_seconds: 60}"
)


def with_pool_settings(
    text: str, source: str, stanza: Sequence[tuple[str, object, str]] = STANZA
) -> tuple[str, tuple[str, ...]]:
    """Add what is missing of ``STANZA`` to a ``dagster.yaml``.

    Args:
        text: The file's contents; may be empty.
        source: Its name, for messages.
        stanza: What to add, if not all of it.

    Returns:
        The new contents, and the settings that differ from the stanza and were kept.

    Raises:
        ConfigError: The file is not a mapping in valid YAML, Dagster refuses it as it is or would
            refuse the result, or there is no place in it where the settings can be put.
    """
    document = load(text, source)
    new = text
    kept = []
    for setting, value, comment in stanza:
        path = setting.split(".")
        found = _get(document, path, source)
        if found is None:
            new = _with_setting(new, path, value, comment, source)
        elif found != value:
            kept.append(f"{setting}: {str(found).lower()}")
    problem = _what_dagster_says(new)
    if problem is None:
        return new, tuple(kept)
    before = _what_dagster_says(text)
    if before is not None:
        raise ConfigError(
            f"{source}: Dagster refuses it as it is: {before}",
            remedy=_MEND,
            names=[source],
        )
    raise ConfigError(
        f"{source}: with the pool settings added, Dagster would say: {problem}",
        remedy="Settings for runs go under concurrency: runs, for pools under concurrency: pools. "
        "Nothing was changed.",
        names=[source],
    )


def _with_setting(text: str, path: list[str], value: object, comment: str, source: str) -> str:
    expected = plain(load(text, source))
    node = expected
    for name in path[:-1]:
        node[name] = node.get(name) or {}
        node = node[name]
    node[path[-1]] = value
    try:
        new = _insert(text, path, value, comment)
        if plain(load(new, source)) == expected:
            return new
    except ConfigError:
        pass  # there is no such place in this file
    raise ConfigError(
        f"{source}: there is no place where {'.'.join(path)} can be put by itself.",
        remedy=f"Add by hand: {_STANZA_TEXT}. Nothing was changed.",
        names=[source],
    )


def _insert(text: str, path: list[str], value: object, comment: str) -> str:
    """Put a setting into the innermost mapping on its path that there is."""
    written = str(value).lower()
    node, _, depth = _innermost(text, path)
    if isinstance(node, MappingNode) and node.flow_style:
        inline = "".join(f"{name}: {{" for name in path[depth:-1])
        inline += f"{path[-1]}: {written}" + "}" * (len(path) - depth - 1)
        at = node.end_mark.index - 1
        return text[:at] + (", " if node.value else "") + inline + text[at:]
    return put_lines(text, path, [f"{path[-1]}: {written}  # {comment}"]) or text


def _innermost(text: str, path: Sequence[str]) -> tuple[Any, Any, int]:
    """The innermost value on a path that there is, its key, and how many keys lead to it."""
    node = _reader().compose(text)
    key: Any = None
    depth = 0
    while isinstance(node, MappingNode) and depth < len(path) - 1:
        found = next((pair for pair in node.value if pair[0].value == path[depth]), None)
        if found is None:
            break
        key, node = found
        depth += 1
    return node, key, depth


def put_lines(text: str, path: Sequence[str], lines: Sequence[str]) -> str | None:
    """Put the lines of a setting into the innermost mapping on its path that there is.

    Args:
        text: The file.
        path: The keys to the setting.
        lines: How it is written, its own key at column 0 and comments included.

    Returns:
        The new text; None if that mapping is written on one line.
    """
    node, key, depth = _innermost(text, path)
    if isinstance(node, MappingNode) and node.flow_style:
        return None
    newline = "\r\n" if "\r\n" in text else "\n"
    if isinstance(node, MappingNode) and key is not None:
        at, indent = key.end_mark.line + 1, node.value[0][0].start_mark.column
    elif key is not None:  # its value is null, written as nothing or as ~
        text = text[: node.start_mark.index].rstrip(" ") + text[node.end_mark.index :]
        at, indent = key.end_mark.line + 1, key.start_mark.column + 2
    else:
        at, indent = None, 0
    old = text.splitlines(keepends=True)
    if old and not old[-1].endswith(("\n", "\r")):
        old[-1] += newline
    new = [f"{' ' * (indent + 2 * i)}{name}:" for i, name in enumerate(path[depth:-1])]
    margin = " " * (indent + 2 * len(new))
    new += [f"{margin}{line}".rstrip() for line in lines]
    at = len(old) if at is None else at
    return "".join([*old[:at], *(line + newline for line in new), *old[at:]])


def _get(document: CommentedMap, path: list[str], source: str) -> object | None:
    node: Any = document
    for depth, name in enumerate(path):
        if node is None:
            return None
        if not isinstance(node, CommentedMap):
            raise ConfigError(
                f"{source}: {'.'.join(path[:depth])} is not a mapping.",
                remedy=_MEND,
                names=[source],
            )
        node = node.get(name)
    found: object | None = node
    return found


def plain(value: Any) -> Any:
    """What was read, as values of its own that know nothing of how they are written."""
    if isinstance(value, CommentedMap):
        return {key: plain(item) for key, item in value.items()}
    return copy.deepcopy(value)


def new_yaml() -> YAML:
    """Return a reader and writer that keeps comments, quotes and line lengths."""
    yaml = YAML(typ="rt")
    yaml.preserve_quotes = True
    yaml.width = 4096
    yaml.indent(mapping=2, sequence=4, offset=2)
    return yaml


def _reader() -> YAML:
    yaml = new_yaml()
    yaml.version = (1, 1)  # the version that Dagster reads, in which yes is true
    return yaml


def load(text: str, source: str) -> CommentedMap:
    """Parse a ``dagster.yaml``.

    Raises:
        ConfigError: It is not a mapping in valid YAML.
    """
    return parse_mapping(text, source, _reader(), remedy=_MEND)


class DoubledKey(NamedTuple):
    """A key that stands more than once in a mapping.

    Attributes:
        path: The keys to it, with dots.
        lines: Where it stands, from 1; the last is the one that counts.
    """

    path: str
    lines: tuple[int, ...]


def load_as_dagster_does(text: str, source: str) -> tuple[CommentedMap, tuple[DoubledKey, ...]]:
    """Parse a ``dagster.yaml`` in which a key may stand twice: the last one counts.

    Raises:
        ConfigError: It is not a mapping in valid YAML.
    """
    yaml = _reader()
    doubled: list[DoubledKey] = []
    try:
        node = yaml.compose(text)
        _keep_last(node, (), doubled, set())
    except (YAMLError, ValueError, RecursionError):
        doubled.clear()  # The error is told below.
    if not doubled:
        return load(text, source), ()
    return yaml.constructor.construct_document(node), tuple(doubled)


def _keep_last(node: Any, path: tuple[str, ...], doubled: list[DoubledKey], seen: set[int]) -> None:
    """Drop from the mappings below a node each pair whose key stands again further down."""
    if not isinstance(node, CollectionNode) or id(node) in seen:
        return
    seen.add(id(node))
    if isinstance(node, MappingNode):
        places: dict[str, list[int]] = {}
        last: dict[str, Any] = {}
        for key, value in node.value:
            places.setdefault(key.value, []).append(key.start_mark.line + 1)
            last[key.value] = (key, value)
        names = [name for name, lines in places.items() if len(lines) > 1]
        doubled += [DoubledKey(".".join((*path, n)), tuple(places[n])) for n in names]
        node.value = list(last.values())
        for name, (_, value) in last.items():
            _keep_last(value, (*path, name), doubled, seen)
    else:
        for item in node.value:
            _keep_last(item, path, doubled, seen)


def refuse_what_dagster_refuses(text: str, source: str) -> None:
    """Try whether Dagster accepts the contents of a ``dagster.yaml``.

    Raises:
        ConfigError: It does not.
    """
    problem = _what_dagster_says(text)
    if problem is not None:
        raise ConfigError(
            f"{source}: as changed, Dagster would say: {problem}",
            remedy="Nothing was changed.",
            names=[source],
        )


def _what_dagster_says(text: str) -> str | None:
    with tempfile.TemporaryDirectory() as home:
        Path(home, "dagster.yaml").write_text(text, encoding="utf-8")
        return instance_config_problem(home)
