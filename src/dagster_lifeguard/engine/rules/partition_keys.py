"""How the partition keys of an asset are written, and what a pool's name takes from one.

When a pool's name is filled in, only the key of the partition is known, not the definition of the
asset. So a term that needs a part of the key contains the format of the keys::

    keys = "{keys:" part { "|" part } "}"
    part = [ dimension ] [ "=" format ]

``{keys:=%Y-%m-%d}`` is the key of a time window, whose start is written so. The key of
``{keys:date=%Y-%m-%d|region}`` has two dimensions, the first a time window. White space and what
has a meaning here is percent-encoded. No directive of ``strptime`` is a digit, so the ``%20`` of a
format can only be white space.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote

if TYPE_CHECKING:
    from collections.abc import Sequence

DIRECTIVES = "YmdHMSjyGVuUWw"
"""The directives of ``strftime`` that a template may use.

Each is a number. A name, such as ``%B``, depends on the language of the process.
"""

_TEXT = re.compile(r"\{keys:([^\s{}]*)\}")
_DELIMITER = "|"  # Dagster's own, between the dimensions of a key.
_UNSAFE_IN_FORMAT = re.compile(r"%%|[\s{}|=+*]")
# One character as UTF-8, its first byte and as many as go on with it.
_ENCODED = re.compile(
    r"%[0-7][0-9A-F]|%[CD][0-9A-F]%[89AB][0-9A-F]|%E[0-9A-F](?:%[89AB][0-9A-F]){2}"
)


@dataclass(frozen=True)
class KeyPart:
    """A whole key, or one dimension of it.

    Attributes:
        dimension: The name of the dimension; empty for a whole key.
        time_format: How the start of its time window is written; None if it is no time window.
    """

    dimension: str
    time_format: str | None

    def __str__(self) -> str:
        written = quote(self.dimension, safe="")
        if self.time_format is not None:
            written += "=" + _UNSAFE_IN_FORMAT.sub(_encode, self.time_format)
        return written


@dataclass(frozen=True)
class PartitionKeys:
    """How partition keys are written.

    Attributes:
        parts: The dimensions in the order in which a key has them; one part for a whole key.
    """

    parts: tuple[KeyPart, ...]

    @classmethod
    def parse(cls, text: str) -> PartitionKeys | None:
        """Read what ``str`` writes; None if the text is something else."""
        found = _TEXT.fullmatch(text)
        if found is None:
            return None
        parts = []
        for part in found[1].split(_DELIMITER):
            dimension, equals, time_format = part.partition("=")
            parts.append(KeyPart(unquote(dimension), _decoded(time_format) if equals else None))
        return cls(tuple(parts))

    def __str__(self) -> str:
        return f"{{keys:{_DELIMITER.join(map(str, self.parts))}}}"

    def part(self, dimension: str | None) -> KeyPart:
        """Return the part of this name, or with None the only one.

        Raises:
            LookupError: There is none, or there are several; the argument says so.
        """
        names = [part.dimension for part in self.parts]
        if dimension is None:
            if len(names) > 1:
                dimensions = " and ".join(names)
                raise LookupError(f"its partitions have the dimensions {dimensions}: name one")
            return self.parts[0]
        if dimension in names:
            return self.parts[names.index(dimension)]
        if len(names) > 1:
            raise LookupError(f"its partitions have only the dimensions {' and '.join(names)}")
        raise LookupError("its partitions have no dimensions")

    def value(self, key: str, dimension: str | None, time_format: str | None) -> str:
        """Return what a template takes from the key of a partition.

        Args:
            key: The key.
            dimension: The dimension to take; None for the only one.
            time_format: How to write the start of the time window; None to leave it as it is.

        Raises:
            ValueError: The key is not written so.
            LookupError: See ``part``.
        """
        values = key.split(_DELIMITER) if len(self.parts) > 1 else [key]
        part = self.part(dimension)
        found = values[self.parts.index(part)] if len(values) == len(self.parts) else None
        if found is None or (time_format is not None and part.time_format is None):
            raise ValueError(f"The partition {key!r} is not written as {self}.")
        if time_format is None:
            return found
        return _start(found, part.time_format or "").strftime(time_format)


@lru_cache(maxsize=10_000)
def _start(written: str, time_format: str) -> datetime:
    """The start of a time window, as clocks show it where the partitions are defined."""
    try:
        return datetime.strptime(written, time_format)  # noqa: DTZ007 - no zone is needed
    except ValueError:
        # Dagster adds the offset to the second of two hours that clocks show alike.
        return datetime.strptime(written, f"{time_format}%z")


def problem_of_format(time_format: str) -> str | None:
    """What is wrong with a format in a template; None if it can be used."""
    used = re.findall(r"%(.?)", time_format)
    if any(directive not in DIRECTIVES or not directive for directive in used):
        wrong = next(d for d in used if d not in DIRECTIVES or not d)
        return f"it has %{wrong}, which is not one of {_listed(DIRECTIVES)}"
    if not used:
        return f"it has none of {_listed(DIRECTIVES)}"
    if re.search(r"\s", time_format):
        return "it has white space"
    return None


def _listed(directives: Sequence[str]) -> str:
    return " ".join(f"%{directive}" for directive in directives)


def _encode(found: re.Match[str]) -> str:
    return "".join(f"%{byte:02X}" for byte in found[0].encode())


def _decoded(text: str) -> str:
    def decode(found: re.Match[str]) -> str:
        return bytes.fromhex(found[0].replace("%", "")).decode()

    return _ENCODED.sub(decode, text)
