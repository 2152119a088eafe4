"""``dagster.yaml``: adding the pool settings that a policy relies on, and changing nothing else.

Settings are put in as lines of text, at the places that the YAML parser gives, so that every byte
that is there stays. Only where that is not possible, as in ``concurrency: {}`` on one line, the
file is written anew by the YAML library, comments included.
"""

from __future__ import annotations

import copy
import io
import tempfile
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from dagster_lifeguard import compat
from dagster_lifeguard.errors import ConfigError

STANZA: tuple[tuple[str, object, str], ...] = (
    ("concurrency.pools.default_limit", 1, "of every pool that is given no limit of its own"),
    ("run_monitoring.enabled", True, "finds runs whose process died"),
    ("run_monitoring.free_slots_after_run_end_seconds", 60, "else their slots stay taken"),
)
"""Setting, value and why. The last two free the slots of a crashed or cancelled run."""


def with_pool_settings(text: str, source: str) -> tuple[str, tuple[str, ...]]:
    """Add what is missing of ``STANZA`` to a ``dagster.yaml``.

    Args:
        text: The file's contents; may be empty.
        source: Its name, for messages.

    Returns:
        The new contents, and the settings that differ from the stanza and were kept.

    Raises:
        ConfigError: The file is not a mapping in valid YAML, or Dagster would refuse the result.
    """
    kept = []
    for setting, value, comment in STANZA:
        path = setting.split(".")
        found = _get(load(text, source), path, source)
        if found is None:
            text = _with_setting(text, path, value, comment, source)
        elif found != value:
            kept.append(f"{setting}: {found}")
    refuse_what_dagster_refuses(text, source)
    return text, tuple(kept)


def _with_setting(text: str, path: list[str], value: object, comment: str, source: str) -> str:
    expected = copy.deepcopy(load(text, source))
    _put(expected, path, value)
    new = _with_lines(text, load(text, source), path, value, comment)
    try:
        if new is not None and load(new, source) == expected:
            return new
    except ConfigError:
        pass  # lines do not fit in there; the library will write the file
    stream = io.StringIO()
    new_yaml().dump(expected, stream)
    return stream.getvalue()


def _with_lines(
    text: str, document: CommentedMap, path: list[str], value: object, comment: str
) -> str | None:
    """Insert the setting as lines; None if what surrounds it is not written in lines."""
    newline = "\r\n" if "\r\n" in text else "\n"
    lines = text.splitlines(keepends=True)
    if lines and not lines[-1].endswith(("\n", "\r")):
        lines[-1] += newline
    at, indent, depth = len(lines), 0, 0
    node: Any = document
    while depth < len(path) - 1 and path[depth] in node:
        key_line, key_column = node.lc.key(path[depth])
        node = node[path[depth]]
        depth += 1
        if node is None:
            at, indent, node = key_line + 1, key_column + 2, {}
        elif node and not node.fa.flow_style():
            at, indent = node.lc.key(next(iter(node)))
        else:
            return None
    step = 2
    new = [f"{' ' * (indent + step * i)}{name}:" for i, name in enumerate(path[depth:])]
    new[-1] += f" {str(value).lower()}  # {comment}"
    return "".join([*lines[:at], *(line + newline for line in new), *lines[at:]])


def _get(document: CommentedMap, path: list[str], source: str) -> object | None:
    node: Any = document
    for depth, name in enumerate(path):
        if node is None:
            return None
        if not isinstance(node, CommentedMap):
            raise ConfigError(
                f"{source}: {'.'.join(path[:depth])} is not a mapping.",
                remedy="Mend it first; nothing was changed.",
                names=[source],
            )
        node = node.get(name)
    found: object | None = node
    return found


def _put(document: CommentedMap, path: list[str], value: object) -> None:
    node: Any = document
    for name in path[:-1]:
        if node.get(name) is None:
            node[name] = CommentedMap()
        node = node[name]
    node[path[-1]] = value


def new_yaml() -> YAML:
    """A reader and writer that keeps comments and quotes."""
    yaml = YAML(typ="rt")
    yaml.preserve_quotes = True
    yaml.width = 4096
    yaml.indent(mapping=2, sequence=4, offset=2)
    return yaml


def load(text: str, source: str) -> CommentedMap:
    """Parse a dagster.yaml.

    Raises:
        ConfigError: It is not a mapping in valid YAML.
    """
    try:
        document = new_yaml().load(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark
        place = f":{mark.line + 1}:{mark.column + 1}" if mark else ""
        raise _not_yaml(f"{source}{place}", str(error.problem), source) from error
    except YAMLError as error:
        raise _not_yaml(source, " ".join(str(error).split()), source) from error
    if document is None:
        return CommentedMap()
    if not isinstance(document, CommentedMap):
        raise ConfigError(
            f"{source}: expected settings, found a {type(document).__name__}.",
            remedy="Mend it first; nothing was changed.",
            names=[source],
        )
    return document


def _not_yaml(place: str, problem: str, source: str) -> ConfigError:
    return ConfigError(
        f"{place}: not valid YAML: {problem}.",
        remedy="Mend it first; nothing was changed.",
        names=[source],
    )


def refuse_what_dagster_refuses(text: str, source: str) -> None:
    """Raise ConfigError if Dagster would refuse the file."""
    with tempfile.TemporaryDirectory() as home:
        Path(home, "dagster.yaml").write_text(text, encoding="utf-8")
        problem = compat.instance_config_problem(home)
    if problem is not None:
        raise ConfigError(
            f"{source}: with this change, Dagster says: {problem}",
            remedy="Settings for runs go under concurrency: runs, for pools under "
            "concurrency: pools. Nothing was changed.",
            names=[source],
        )
