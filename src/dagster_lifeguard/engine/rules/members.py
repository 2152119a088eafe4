"""Some of the assets that one op makes, written down short: ``{of:marts/*,seeds/fx}``.

An asset is named as ``names.pool_name(key, "path")`` names it, so no name has a comma, ``*``,
a brace or white space. A pattern is such a name or, with ``*`` at its end, how some begin::

    members = "{" ( "of" | "but" ) ":" pattern { "," pattern } "}"
    pattern = name | beginning "*"

``{but:...}`` stands for all assets of the op that no pattern fits.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

_TEXT = re.compile(r"\{(?P<word>of|but):(?P<patterns>[^\s,*{}]+\*?(?:,[^\s,*{}]+\*?)*)\}")
_WORD_ENDS = re.compile(r"[/_.\-]")
"""Where the beginning of a name may be cut off, so that a person can read it."""


@dataclass(frozen=True)
class Members:
    """Some of the assets of an op.

    Attributes:
        patterns: Names, and beginnings of names with ``*`` at the end.
        are_left_out: Whether these are the ones left out.
    """

    patterns: tuple[str, ...]
    are_left_out: bool = False

    @classmethod
    def parse(cls, text: str) -> Members | None:
        """Read what ``str`` writes; None if the text is something else."""
        found = _TEXT.fullmatch(text)
        if found is None:
            return None
        return cls(tuple(found["patterns"].split(",")), found["word"] == "but")

    @classmethod
    def among(cls, chosen: Iterable[str], names: Iterable[str]) -> Members | None:
        """Describe the chosen ones of these names as shortly as patterns can; None for all.

        A pattern with ``*`` fits several chosen names and none of the others.
        """
        wanted = sorted(set(chosen))
        others = sorted(set(names) - set(wanted))
        if not others:
            return None
        found = (cls(tuple(_patterns(wanted, others))), cls(tuple(_patterns(others, wanted)), True))  # noqa: FBT003
        return min(found, key=lambda members: len(str(members)))

    def __contains__(self, name: str) -> bool:
        names, beginnings = self._split
        return (name in names or name.startswith(beginnings)) is not self.are_left_out

    @cached_property
    def _split(self) -> tuple[frozenset[str], tuple[str, ...]]:
        beginnings = tuple(p[:-1] for p in self.patterns if p.endswith("*"))
        return frozenset(p for p in self.patterns if not p.endswith("*")), beginnings

    def __str__(self) -> str:
        return f"{{{'but' if self.are_left_out else 'of'}:{','.join(self.patterns)}}}"


def _patterns(wanted: Sequence[str], others: Sequence[str]) -> Iterator[str]:
    """Patterns that fit these sorted names and none of the others; no name is fitted twice."""
    done = 0
    while done < len(wanted):
        name = wanted[done]
        for end in (match.end() for match in _WORD_ENDS.finditer(name)):
            beginning = name[:end]
            if _count(others, beginning):
                continue
            # Every wanted name before this one is done, so those that begin so follow it.
            count = _count(wanted, beginning)
            if count > 1:
                yield f"{beginning}*"
                done += count
                break
        else:
            yield name
            done += 1


def _count(names: Sequence[str], beginning: str) -> int:
    """How many of these sorted names begin so."""
    first = bisect_left(names, beginning)
    after = bisect_left(names, beginning + chr(0x10FFFF), lo=first)
    return after - first
