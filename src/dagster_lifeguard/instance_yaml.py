"""``dagster.yaml``: adding the pool settings that a policy relies on, and changing nothing else."""

from __future__ import annotations

import io
import tempfile
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap
from ruamel.yaml.error import MarkedYAMLError

from dagster_lifeguard import compat
from dagster_lifeguard.errors import ConfigError

STANZA: tuple[tuple[str, object, str], ...] = (
    ("concurrency.pools.default_limit", 1, "of every pool that is given no limit of its own"),
    ("run_monitoring.enabled", True, "finds runs whose process died"),
    ("run_monitoring.free_slots_after_run_end_seconds", 60, "else such a run's slots stay taken"),
)
"""Setting, value and why. The last two free the slots of a crashed or cancelled run."""

_INDENTS = ((2, 0), (4, 2), (6, 4), (4, 0))
"""How far people indent sequences, and the dash within: tried until the file comes out as it is."""


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
    yaml, document = _load(text, source)
    kept = []
    for setting, value, comment in STANZA:
        found = _put(document, setting.split("."), value, comment, source)
        if found != value:
            kept.append(f"{setting}: {found}")
    new = _dump(yaml, document)
    _refuse_what_dagster_refuses(new, source)
    return (text if _same(yaml, text, new) else new), tuple(kept)


def _load(text: str, source: str) -> tuple[YAML, CommentedMap]:
    yaml = YAML(typ="rt")
    yaml.preserve_quotes = True
    yaml.width = 4096
    try:
        document = yaml.load(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark
        place = f":{mark.line + 1}:{mark.column + 1}" if mark else ""
        raise ConfigError(
            f"{source}{place}: not valid YAML: {error.problem}.",
            remedy="Mend it first; nothing was changed.",
            names=[source],
        ) from error
    if document is None:
        document = CommentedMap()
        if text.strip():
            document.yaml_set_start_comment(
                "\n".join(line.strip().lstrip("#").strip() for line in text.strip().splitlines())
            )
    if not isinstance(document, CommentedMap):
        raise ConfigError(
            f"{source}: expected settings, found a {type(document).__name__}.",
            remedy="Mend it first; nothing was changed.",
            names=[source],
        )
    for sequence, offset in _INDENTS:
        yaml.indent(mapping=2, sequence=sequence, offset=offset)
        if _dump(yaml, document) == text:
            break
    return yaml, document


def _dump(yaml: YAML, document: CommentedMap) -> str:
    stream = io.StringIO()
    yaml.dump(document, stream)
    return stream.getvalue()


def _same(yaml: YAML, old: str, new: str) -> bool:
    return bool(yaml.load(old) == yaml.load(new)) and bool(old.strip())


def _put(
    document: CommentedMap, path: list[str], value: object, comment: str, source: str
) -> object:
    """Set a value unless there is one; return the value that is there in the end."""
    node: Any = document
    for depth, name in enumerate(path[:-1]):
        if node.get(name) is None:
            node[name] = CommentedMap()
        node = node[name]
        if not isinstance(node, CommentedMap):
            raise ConfigError(
                f"{source}: {'.'.join(path[: depth + 1])} is not a mapping.",
                remedy="Mend it first; nothing was changed.",
                names=[source],
            )
    if path[-1] not in node:
        node[path[-1]] = value
        node.yaml_add_eol_comment(comment, path[-1])
    return node[path[-1]]


def _refuse_what_dagster_refuses(text: str, source: str) -> None:
    with tempfile.TemporaryDirectory() as home:
        Path(home, "dagster.yaml").write_text(text, encoding="utf-8")
        problem = compat.instance_config_problem(home)
    if problem is not None:
        raise ConfigError(
            f"{source}: with the pool settings added, Dagster says: {problem}",
            remedy="Settings for runs go under concurrency: runs, for pools under "
            "concurrency: pools. Nothing was changed.",
            names=[source],
        )
