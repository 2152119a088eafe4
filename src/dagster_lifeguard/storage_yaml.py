"""``dagster.yaml``: the stock storage's stanza turned into ours, and back.

Lines are turned into lines: what is configured stays as it is written, comments included, only
further in or out. Where the stanza is not written in lines, the file is written anew by the YAML
library. Either way the result is compared with what it is to mean.
"""

from __future__ import annotations

import copy
import io
import re
from typing import Any, Literal

from ruamel.yaml.comments import CommentedMap

from dagster_lifeguard.errors import ConfigError
from dagster_lifeguard.instance_yaml import load, new_yaml, refuse_what_dagster_refuses

MODULE = "dagster_lifeguard.storage"

CLASSES = {"sqlite": "LifeguardSqliteStorage", "postgres": "LifeguardPostgresStorage"}

_DEFAULT = f"""\
# Put in by: lifeguard engine enable. Taken out by: lifeguard engine disable
storage:
  custom:
    module: {MODULE}
    class: {CLASSES["sqlite"]}
    config:
      base_dir: {{env: DAGSTER_HOME}}
"""
"""Dagster's default storage, with our class."""

_PARTS = ("run_storage", "event_log_storage", "schedule_storage")


def storage_of(text: str, source: str) -> Literal["stock", "lifeguard", "other"]:
    """Which storage a dagster.yaml asks for: ``stock`` is one that can be turned into ours."""
    document = load(text, source)
    stanza = document.get("storage")
    if any(part in document for part in _PARTS):
        return "other"
    if stanza is None:
        return "stock"
    if not isinstance(stanza, CommentedMap) or len(stanza) != 1:
        return "other"
    if _is_ours(stanza):
        return "lifeguard"
    return "stock" if next(iter(stanza)) in CLASSES else "other"


def enabled(text: str, source: str) -> str:
    """The file with our class in the place of the stock storage.

    Raises:
        ConfigError: The storage is none that we have a class for.
    """
    state = storage_of(text, source)
    if state == "lifeguard":
        return text
    if state == "other":
        raise ConfigError(
            f"{source}: this storage cannot be replaced by the engine's.",
            remedy="It replaces the default storage, storage: sqlite and storage: postgres. "
            "Storage written as run_storage, event_log_storage and schedule_storage has to be "
            "written as one of these first.",
            names=[source],
        )
    document = load(text, source)
    if document.get("storage") is None:
        newline = "\r\n" if "\r\n" in text else "\n"
        start = text if not text or text.endswith("\n") else text + newline
        new = start + _DEFAULT.replace("\n", newline)
        if "storage" in document:  # There, and empty.
            new = _rewritten(document, {"custom": _ours("sqlite", {"base_dir": _HOME})})
        refuse_what_dagster_refuses(new, source)
        return new
    ((kind, config),) = document["storage"].items()
    expected = {"custom": _ours(kind, config)}
    lines = _replaced(
        text,
        kind,
        ["custom:", f"  module: {MODULE}", f"  class: {CLASSES[kind]}", "  config:"],
        by=2,
    )
    return _checked(text, source, lines, expected)


def disabled(text: str, source: str) -> str:
    """The file with the stock storage in the place of our class; our settings go."""
    if storage_of(text, source) != "lifeguard":
        return text
    newline = "\r\n" if "\r\n" in text else "\n"
    default = _DEFAULT.replace("\n", newline)
    if text.endswith(default):
        return text[: -len(default)]
    custom = load(text, source)["storage"]["custom"]
    kind = next(kind for kind, name in CLASSES.items() if name == custom["class"])
    config = copy.deepcopy(custom.get("config") or CommentedMap())
    has_settings = config.pop("lifeguard", None) is not None
    expected = {kind: config}
    lines = None
    if not has_settings and list(custom) == ["module", "class", "config"]:
        lines = _replaced(text, "custom", [f"{kind}:"], by=-2, skip=3)
    return _checked(text, source, lines, expected)


_HOME = {"env": "DAGSTER_HOME"}


def _ours(kind: str, config: Any) -> dict[str, Any]:
    return {"module": MODULE, "class": CLASSES[kind], "config": config}


def _is_ours(stanza: CommentedMap) -> bool:
    custom = stanza.get("custom")
    return (
        isinstance(custom, CommentedMap)
        and custom.get("module") == MODULE
        and custom.get("class") in CLASSES.values()
    )


def _replaced(text: str, name: str, head: list[str], *, by: int, skip: int = 0) -> str | None:
    """Replace the line of a stanza's only key by others, and shift the lines below it.

    Args:
        text: The file.
        name: The key under ``storage``.
        head: What takes the place of its line.
        by: How far to shift what is below.
        skip: How many lines below to leave out.

    Returns:
        The new text; None if it is not written in lines.
    """
    stanza = load(text, "")["storage"]
    if stanza.fa.flow_style() or getattr(stanza[name], "fa", stanza.fa).flow_style():
        return None
    row, column = stanza.lc.key(name)
    newline = "\r\n" if "\r\n" in text else "\n"
    lines = text.splitlines(keepends=True)
    if not re.fullmatch(rf"\s*{name}:\s*(#.*)?", lines[row].rstrip("\r\n")):
        return None
    end = row + 1
    for index in range(row + 1, len(lines)):
        if lines[index].strip():
            if len(lines[index]) - len(lines[index].lstrip(" ")) <= column:
                break
            end = index + 1
    body = [
        (" " * by + line if by > 0 else line[-by:]) if line.strip() else line
        for line in lines[row + 1 + skip : end]
    ]
    new = [" " * column + line + newline for line in head]
    return "".join([*lines[:row], *new, *body, *lines[end:]])


def _checked(text: str, source: str, lines: str | None, stanza: dict[str, Any]) -> str:
    """The lines if they mean what they are to mean, else the file as the YAML library writes it."""
    expected = copy.deepcopy(load(text, source))
    expected["storage"] = stanza
    new = lines
    try:
        if lines is None or load(lines, source) != expected:
            new = None
    except ConfigError:
        new = None  # The shift broke it; the library will write the file.
    if new is None:
        new = _rewritten(load(text, source), stanza)
    refuse_what_dagster_refuses(new, source)
    return new


def _rewritten(document: CommentedMap, stanza: dict[str, Any]) -> str:
    document["storage"] = stanza
    stream = io.StringIO()
    new_yaml().dump(document, stream)
    return stream.getvalue()
