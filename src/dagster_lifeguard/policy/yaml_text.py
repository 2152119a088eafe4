"""Text of YAML: reading it, and telling each mistake with its place and what to write instead."""

from __future__ import annotations

import re
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.constructor import DuplicateKeyError
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    CollectionEndEvent,
    CollectionStartEvent,
    MappingStartEvent,
    ScalarEvent,
)
from ruamel.yaml.reader import ReaderError
from ruamel.yaml.tokens import ScalarToken

from dagster_lifeguard.errors import ConfigError
from dagster_lifeguard.texts import printable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

VALUES_MAX = 100_000
"""Values in a file, each alias counted as often as it is used."""

DEPTH_MAX = 50
"""Lists and mappings inside each other; no settings need as many."""

PROBLEMS_MAX = 9
"""The most problems of a file that are reported at once."""

TEXT_MAX = 400
"""Characters of one problem; what a file says may be longer than anybody reads."""

_TEMPLATE_BARE = re.compile(r"""(?<!["'\w])[^\s,"'\[{]*\{\s*[a-z_]+(?::[^{}]*)?\s*\}[^\s,"']*""")
_DOUBLED = re.compile(r'duplicate key "(.*?)" with value "', re.DOTALL)
_QUOTE = re.compile(r'"[^"]*"?')


class Problem(NamedTuple):
    """One mistake in a text, at a line and a column from 1."""

    line: int
    column: int
    text: str


def refusal(source: str, problems: Sequence[Problem], remedy: str = "") -> ConfigError:
    """The error that tells these problems, a line ``file:line:column: ...`` for each."""
    lines = [
        f"{source}:{line}:{column}: {_cut(printable(text))}" for line, column, text in problems
    ]
    if len(lines) > PROBLEMS_MAX:
        lines[PROBLEMS_MAX:] = [f"{source}: {len(lines) - PROBLEMS_MAX:,} problems more."]
    return ConfigError("\n".join(lines), remedy=remedy, names=[source])


def _cut(text: str) -> str:
    return text if len(text) <= TEXT_MAX else f"{text[:TEXT_MAX]}..."


def read_text(file: Path, *, remedy: str = "", size_max_bytes: int | None = None) -> str:
    """Read a file of YAML, with its line ends as they are.

    Args:
        file: The file.
        remedy: What to do where it cannot be read.
        size_max_bytes: A larger file is not read.

    Raises:
        ConfigError: It cannot be read, is too large, or is not UTF-8.
    """
    try:
        size_bytes = file.stat().st_size
        if size_max_bytes is not None and size_bytes > size_max_bytes:
            raise ConfigError(
                f"{file}: {size_bytes} bytes is too large for a configuration.",
                remedy=f"Keep it under {size_max_bytes} bytes; select assets by group, tag "
                "or kind instead of one by one.",
                names=[str(file)],
            )
        content = file.read_bytes()
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror}.", remedy=remedy, names=[str(file)]) from error
    return decoded(content, str(file))


def decoded(content: bytes, source: str) -> str:
    """The text of a file of UTF-8.

    Raises:
        ConfigError: It is in another encoding.
    """
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        before = content[: error.start].decode("utf-8")
        wide = content.startswith((b"\xff\xfe", b"\xfe\xff"))
        found = "UTF-16" if wide else f"the byte 0x{content[error.start]:02X}"
        text = f"not UTF-8 but {found}; " if wide else f"{found} is not UTF-8; "
        text += "save the file as UTF-8 in your editor."
        raise refusal(source, [Problem(*_line_and_column(before), text)]) from error


def parse_mapping(text: str, source: str, yaml: YAML, remedy: str = "") -> CommentedMap:
    """Parse text that is to hold settings; nothing at all stands for none of them.

    Args:
        text: The text.
        source: The file's name, for messages.
        yaml: A reader of the kind ``rt``.
        remedy: What to do about any mistake, beside what each says.

    Raises:
        ConfigError: It is not YAML, or not a mapping.
    """
    try:
        document = yaml.load(text)
    except (YAMLError, ValueError, TypeError, LookupError, RecursionError) as error:
        raise refusal(source, [_of_error(error, text)], remedy) from error
    if document is None:
        return CommentedMap()
    if not isinstance(document, CommentedMap):
        problem = Problem(1, 1, "expected settings as key: value; found a list or a single value.")
        raise refusal(source, [problem], remedy)
    return document


def refuse_surprises(text: str, source: str) -> None:
    r"""Refuse valid YAML that is never meant in settings; ``parse_mapping`` finds syntax errors.

    These are tags, keys that are not text, aliases inside their own anchor, anchors given twice,
    and quoted text in which a backslash made a control character, as in ``"C:\tables"``.

    Raises:
        ConfigError: The file contains one of these.
    """
    problems: list[Problem] = []
    with suppress(YAMLError):
        problems.extend(_surprises(text))
    if problems:
        raise refusal(source, problems)


class _Opened:
    """A list or mapping that is being read: how many nodes of it were, and its anchor."""

    def __init__(self, event: CollectionStartEvent) -> None:
        self.anchor: str | None = event.anchor
        self._is_mapping = isinstance(event, MappingStartEvent)
        self._count = 0

    def next_is_key(self) -> bool:
        """Count one more node; whether it is the key of a mapping."""
        self._count += 1
        return self._is_mapping and self._count % 2 == 1


def _surprises(text: str) -> Iterator[Problem]:
    opened: list[_Opened] = []
    anchors: set[str] = set()
    for event in YAML(typ="rt").parse(text):
        if isinstance(event, CollectionEndEvent):
            opened.pop()
        if not isinstance(event, AliasEvent | CollectionStartEvent | ScalarEvent):
            continue
        line, column = event.start_mark.line + 1, event.start_mark.column + 1
        if opened and opened[-1].next_is_key() and not isinstance(event, ScalarEvent):
            yield Problem(line, column, "a key that is no text; write a name.")
        if isinstance(event, AliasEvent):
            if any(event.anchor == outer.anchor for outer in opened):
                yield Problem(line, column, f"*{event.anchor} stands inside what it stands for.")
            continue
        if event.anchor in anchors:
            yield Problem(line, column, f"the anchor &{event.anchor} is given twice; rename one.")
        anchors |= {event.anchor} - {None}
        if event.tag is not None:
            tag = str(event.tag).replace("tag:yaml.org,2002:", "!!")
            told = f"the tag {tag} is not read here; write the value itself, without a tag."
            yield Problem(line, column, told)
        if isinstance(event, CollectionStartEvent):
            opened.append(_Opened(event))
            if len(opened) > DEPTH_MAX:
                yield Problem(line, column, f"nested deeper than {DEPTH_MAX}.")
                return
        elif event.style == '"' and not event.value.isprintable():
            raw = text[event.start_mark.index : event.end_mark.index]
            if "\\" in raw:
                told = "in double quotes YAML reads a backslash and a letter as a control character"
                yield Problem(line, column, f"{told}; write it in single quotes: {_single(raw)}")


def _single(raw: str) -> str:
    """A double-quoted text as it is to be written where its backslashes are backslashes."""
    return "'" + raw.strip('"').replace("'", "''") + "'"


def plain(document: Any, source: str) -> Any:
    """Turn what the YAML library returns into plain values, which pydantic checks strictly.

    Each alias counts as what it stands for, so that a few lines cannot stand for billions.

    Raises:
        ConfigError: There are too many values, or a key is no text.
    """
    seen = 0

    def plain_value(value: Any) -> Any:
        nonlocal seen
        seen += 1
        if seen > VALUES_MAX:
            raise refusal(source, [Problem(1, 1, f"more than {VALUES_MAX:,} values.")])
        if isinstance(value, CommentedMap):
            for key in value:
                if not isinstance(key, str):
                    _refuse_key(value, key, source)
            return {key: plain_value(item) for key, item in value.items()}
        if isinstance(value, CommentedSeq):
            return [plain_value(item) for item in value]
        return value

    return plain_value(document)


def _refuse_key(mapping: CommentedMap, key: object, source: str) -> NoReturn:
    line, column = mapping.lc.key(key) if key in (mapping.lc.data or ()) else (mapping.lc.line, 0)
    text = "null" if key is None else str(key).lower() if isinstance(key, bool) else str(key)
    told = f'a key that is no text; write it in quotes: "{text}".'
    raise refusal(source, [Problem(line + 1, column + 1, told)])


def place_of(
    document: CommentedMap, loc: Sequence[int | str], *, of_key: bool = False
) -> tuple[int, int]:
    """Return line and column (from 1) of what ``loc`` names, or of the nearest part there is.

    Args:
        document: What was parsed.
        loc: Keys and indices, from the outermost.
        of_key: Whether the place of the last key is meant, and not of its value.
    """
    node: Any = document
    place = (0, 0)
    for depth, part in enumerate(loc):
        try:
            if isinstance(node, CommentedSeq):
                place = node.lc.item(part)
            elif isinstance(node, CommentedMap) and of_key and depth == len(loc) - 1:
                place = node.lc.key(part)
            elif isinstance(node, CommentedMap):
                place = node.lc.value(part)
            else:
                break
            node = node[part]
        except (KeyError, IndexError, TypeError):
            break
    return place[0] + 1, place[1] + 1


# ---- what a syntax error means -------------------------------------------------------------------


def _of_error(error: Exception, text: str) -> Problem:
    if isinstance(error, MarkedYAMLError):
        return _of_syntax(error, text)
    if isinstance(error, ReaderError):
        code = ord(text[error.position])
        told = f"the character #x{code:04X} is not allowed in YAML; delete it."
        return Problem(*_line_and_column(text[: error.position]), told)
    if isinstance(error, RecursionError):
        return Problem(1, 1, "lists and mappings are nested too deep.")
    if isinstance(error, TypeError):
        return Problem(1, 1, f"a key that is no text: {error}.")
    # Such as a date that is none.
    return Problem(*_place_of_value(text), f"not a value in YAML: {error}. Write it in quotes.")


def _of_syntax(error: MarkedYAMLError, text: str) -> Problem:
    mark = error.problem_mark or error.context_mark
    line, column = (mark.line, mark.column) if mark else (0, 0)
    said = f"{error.context or ''} {error.problem or ''}"
    if isinstance(error, DuplicateKeyError):
        found = _DOUBLED.search(str(error.problem))
        key = f'the key "{found[1]}"' if found else "a key"
        told = f"{key} stands here a second time; take one of the two out."
        return Problem(line + 1, column + 1, told)
    opening = _open_quote(error, text)
    if opening is not None:
        return opening
    lines = text.split("\n")
    here = lines[line] if line < len(lines) else ""
    problem = " ".join(str(error.problem).split())
    return Problem(line + 1, column + 1, f"not valid YAML: {problem}.{_hint(said, here, column)}")


def _hint(said: str, line: str, column: int) -> str:
    """What to write instead, as far as the error and its line tell it."""
    bare = _TEMPLATE_BARE.search(line)
    if "unknown escape character" in said:
        quoted = [found[0] for found in _QUOTE.finditer(line) if found.end() >= column]
        return " In double quotes a backslash begins an escape; write it in single quotes: " + (
            _single(quoted[0]) if quoted else r"'C:\data'"
        )
    if bare is not None:
        return f' Write a template in quotes: "{_balanced(bare[0])}".'
    if "alias" in said:
        return ' An asset selection of all assets is written in quotes: "*".'
    if "'\\t'" in said:
        return " Indent with spaces, not with tabs."
    if "cannot start any token" in said:
        return " Write a value that begins with it in quotes."
    if "another document" in said:
        return " Keep all settings in one document, without a second ---."
    if "mapping values are not allowed" in said:
        return " Indent keys of one mapping alike, and write a value that holds ': ' in quotes."
    if "block end" in said or "could not find expected ':'" in said:
        return " Check the indentation and the quotes of this line."
    return ""


def _balanced(text: str) -> str:
    while text.endswith("]") and text.count("]") > text.count("["):
        text = text[:-1]
    return text


def _open_quote(error: MarkedYAMLError, text: str) -> Problem | None:
    """The quote that nothing closes, or that is closed only by the opening one of another value."""
    start = error.context_mark
    if (
        start is not None
        and "quoted scalar" in str(error.context)
        and "end of" in str(error.problem)
    ):
        return Problem(start.line + 1, start.column + 1, "the quote that opens here is not closed.")
    last = None
    try:
        for token in YAML(typ="rt").scan(text):
            is_quoted = isinstance(token, ScalarToken) and token.style in ("'", '"')
            if is_quoted and token.end_mark.line > token.start_mark.line:
                last = token
            if error.problem_mark and token.start_mark.index >= error.problem_mark.index:
                break
    except YAMLError:
        pass  # It is the error that is to be explained.
    if last is None or error.problem_mark is None or last.end_mark.line != error.problem_mark.line:
        return None
    return Problem(
        last.start_mark.line + 1,
        last.start_mark.column + 1,
        f"the quote that opens here is closed only in line {last.end_mark.line + 1}; close it in "
        "its own line.",
    )


def _place_of_value(text: str) -> tuple[int, int]:
    """The first value that YAML takes for a date or a number and that is none."""
    yaml = YAML(typ="rt")
    try:
        for event in YAML(typ="rt").parse(text):
            if isinstance(event, ScalarEvent) and event.style is None:
                try:
                    yaml.load(event.value)
                except (YAMLError, ValueError, LookupError):
                    return event.start_mark.line + 1, event.start_mark.column + 1
    except YAMLError:
        pass
    return 1, 1


def _line_and_column(before: str) -> tuple[int, int]:
    """The place, from 1, of what follows this text."""
    return before.count("\n") + 1, len(before) - (before.rfind("\n") + 1) + 1
