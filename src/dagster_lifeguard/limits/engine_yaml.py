"""``dagster.yaml``: the stock storage's stanza turned into ours, and back.

Lines are turned into lines, and braces into braces: what is configured stays as it is written,
comments included, only further in or out, and the way back gives the same bytes. Where the stanza
is written otherwise, the file is written anew by the YAML library. Either way the result is
compared with what it is to mean.

In the older form, with a block for each storage, two blocks get another module and class in place.
The way back gives the modules that Dagster documents, whichever were written before.
"""

from __future__ import annotations

import copy
import io
import re
from typing import Any, Literal

from ruamel.yaml.comments import CommentedMap
from ruamel.yaml.nodes import MappingNode

from dagster_lifeguard.errors import ConfigError
from dagster_lifeguard.limits.dagster_yaml import load, new_yaml, refuse_what_dagster_refuses

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

_STOCK_BLOCKS = {
    "run_storage": {
        "SqliteRunStorage": "dagster._core.storage.runs",
        "PostgresRunStorage": "dagster_postgres.run_storage",
    },
    "event_log_storage": {
        "SqliteEventLogStorage": "dagster._core.storage.event_log",
        "PostgresEventLogStorage": "dagster_postgres.event_log",
    },
}
"""The blocks of the older form that the engine needs: Dagster's classes, and where they are."""

_OURS = "Lifeguard"
"""Before the name of Dagster's class it makes ours."""

Whose = Literal["stock", "lifeguard", "half", "other"]


def storage_of(text: str, source: str) -> Whose:
    """Which storage a dagster.yaml asks for.

    ``stock`` is one that can be turned into ours, and ``half`` has ours for one block of two.
    """
    document = load(text, source)
    if any(part in document for part in _PARTS):
        found = {_block_of(document, name) for name in _STOCK_BLOCKS}
        if len(found) == 1:
            return found.pop()
        return "half" if "lifeguard" in found else "other"
    stanza = document.get("storage")
    if stanza is None:
        return "stock"
    if not isinstance(stanza, CommentedMap) or len(stanza) != 1:
        return "other"
    if _is_ours(stanza):
        return "lifeguard"
    return "stock" if next(iter(stanza)) in CLASSES else "other"


def _block_of(document: CommentedMap, name: str) -> Whose:
    block = document.get(name)
    if not isinstance(block, CommentedMap):
        return "other"
    module, its_class = str(block.get("module")), str(block.get("class"))
    known = _STOCK_BLOCKS[name]
    if module == MODULE and its_class.removeprefix(_OURS) in known:
        return "lifeguard"
    is_stock = its_class in known and module.startswith("dagster")
    return "stock" if is_stock else "other"


def enabled(text: str, source: str) -> str:
    """The file with our class in the place of the stock storage.

    Raises:
        ConfigError: The storage is none that we have a class for.
    """
    state = storage_of(text, source)
    if state == "lifeguard":
        return text
    document = load(text, source)
    if any(part in document for part in _PARTS):
        found = {name: _block_of(document, name) for name in _STOCK_BLOCKS}
        if "other" in found.values():
            raise _not_replaced(source)
        blocks = [name for name, whose in found.items() if whose == "stock"]
        return _with_blocks(text, source, {name: _our_block(document[name]) for name in blocks})
    if state == "other":
        raise _not_replaced(source)
    if document.get("storage") is None:
        # What ends without a newline still does so, and is known by that when it goes back.
        is_open = bool(text) and not text.endswith("\n")
        new = text + _default(text, is_open=is_open)
        if "storage" in document:  # There, and empty.
            ours = {"custom": _ours("sqlite", {"base_dir": _HOME})}
            new = _rewritten(document, {"storage": ours})
        refuse_what_dagster_refuses(new, source)
        return new
    ((kind, config),) = document["storage"].items()
    expected = {"custom": _ours(kind, config)}
    edited = _in_braces(
        text, [kind], f"custom: {{module: {MODULE}, class: {CLASSES[kind]}, config: ", "}"
    ) or _replaced(
        text,
        kind,
        ["custom:", f"  module: {MODULE}", f"  class: {CLASSES[kind]}", "  config:"],
        by=2,
    )
    return _checked(text, source, edited, {"storage": expected})


def _not_replaced(source: str) -> ConfigError:
    return ConfigError(
        f"{source}: this storage cannot be replaced by the engine's.",
        remedy="It replaces the default storage, storage: sqlite and storage: postgres, and "
        "Dagster's SQLite and PostgreSQL classes where run_storage and event_log_storage name "
        "them. Where one of these two is written, write both.",
        names=[source],
    )


def disabled(text: str, source: str) -> str:
    """The file with the stock storage in the place of our class; our settings go."""
    document = load(text, source)
    if any(part in document for part in _PARTS):
        blocks = [name for name in _STOCK_BLOCKS if _block_of(document, name) == "lifeguard"]
        return _with_blocks(
            text, source, {name: _stock_block(name, document[name]) for name in blocks}
        )
    if storage_of(text, source) != "lifeguard":
        return text
    for is_open in (False, True):
        default = _default(text, is_open=is_open)
        if text.endswith(default):
            return text[: -len(default)]
    custom = load(text, source)["storage"]["custom"]
    kind = next(kind for kind, name in CLASSES.items() if name == custom["class"])
    config = copy.deepcopy(custom.get("config") or CommentedMap())
    has_settings = config.pop("lifeguard", None) is not None
    expected = {kind: config}
    edited = None
    if not has_settings and list(custom) == ["module", "class", "config"]:
        edited = _in_braces(text, ["custom", "config"], f"{kind}: ", "") or _replaced(
            text, "custom", [f"{kind}:"], by=-2, skip=3
        )
    return _checked(text, source, edited, {"storage": expected})


_HOME = {"env": "DAGSTER_HOME"}


def _default(text: str, *, is_open: bool) -> str:
    """Dagster's default storage with our class, as it is put behind this text."""
    newline = "\r\n" if "\r\n" in text else "\n"
    stanza = "\n" + _DEFAULT.rstrip("\n") if is_open else _DEFAULT
    return stanza.replace("\n", newline)


def _ours(kind: str, config: Any) -> dict[str, Any]:
    return {"module": MODULE, "class": CLASSES[kind], "config": config}


def _is_ours(stanza: CommentedMap) -> bool:
    custom = stanza.get("custom")
    return (
        isinstance(custom, CommentedMap)
        and custom.get("module") == MODULE
        and custom.get("class") in CLASSES.values()
    )


def _in_braces(text: str, path: list[str], before: str, after: str) -> str | None:
    """Replace what stands around a mapping in braces below ``storage``.

    Args:
        text: The file.
        path: The keys to the mapping; all from the first one on is replaced.
        before: What takes the place of what stands before the mapping.
        after: The same behind it.

    Returns:
        The new text; None if it is not written in braces.
    """
    node: Any = new_yaml().compose(text)
    first: Any = None
    for name in ("storage", *path):
        found = [pair for pair in node.value if pair[0].value == name]
        if not found or not isinstance(found[0][1], MappingNode):
            return None
        key, node = found[0]
        if name == path[0]:
            first = key, node
    if not first[1].flow_style:
        return None
    start, end = first[0].start_mark.index, first[1].end_mark.index
    inner = text[node.start_mark.index : node.end_mark.index]
    return text[:start] + before + inner + after + text[end:]


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
    line = re.fullmatch(rf"\s*{name}:(\s*|\s+#.*)", lines[row].rstrip("\r\n"))
    if line is None:
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
    head[0] += line[1]  # The comment beside it.
    new = [" " * column + item + newline for item in head]
    return "".join([*lines[:row], *new, *body, *lines[end:]])


def _our_block(block: CommentedMap) -> dict[str, Any]:
    return {**copy.deepcopy(block), "module": MODULE, "class": f"{_OURS}{block['class']}"}


def _stock_block(name: str, block: CommentedMap) -> dict[str, Any]:
    stock = str(block["class"]).removeprefix(_OURS)
    new = {**copy.deepcopy(block), "module": _STOCK_BLOCKS[name][stock], "class": stock}
    if isinstance(new.get("config"), CommentedMap):
        new["config"].pop("lifeguard", None)
    return new


def _with_blocks(text: str, source: str, blocks: dict[str, dict[str, Any]]) -> str:
    """The file with other modules and classes in these blocks, and else as it is written."""
    if not blocks:
        return text
    root = new_yaml().compose(text)
    edits = []
    for key, block in root.value:
        if key.value in blocks:
            for name, value in block.value:
                if name.value in ("module", "class"):
                    new = blocks[key.value][name.value]
                    edits.append((value.start_mark.index, value.end_mark.index, new))
    edited = text
    for start, end, new in sorted(edits, reverse=True):
        edited = edited[:start] + new + edited[end:]
    return _checked(text, source, edited, blocks)


def _checked(text: str, source: str, edited: str | None, stanzas: dict[str, dict[str, Any]]) -> str:
    """The edited text if it means what it is to, else the file as the YAML library writes it."""
    expected = copy.deepcopy(load(text, source))
    expected.update(stanzas)
    new = edited
    try:
        if edited is None or load(edited, source) != expected:
            new = None
    except ConfigError:
        new = None  # The edit broke it; the library will write the file.
    if new is None:
        new = _rewritten(load(text, source), stanzas)
    refuse_what_dagster_refuses(new, source)
    return new


def _rewritten(document: CommentedMap, stanzas: dict[str, dict[str, Any]]) -> str:
    for name, stanza in stanzas.items():
        if isinstance(document.get(name), CommentedMap) and name != "storage":
            document[name].update(stanza)  # With its comments.
        else:
            document[name] = stanza
    stream = io.StringIO()
    new_yaml().dump(document, stream)
    return stream.getvalue()
