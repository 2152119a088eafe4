"""More tuples than fit into memory, put in order: sorted parts in a file, then merged."""

from __future__ import annotations

import heapq
import marshal
import tempfile
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import IO

    from typing_extensions import Self

PART = 100_000
"""How many tuples are sorted in memory at once."""

_BLOCK = 2_000


class Spool:
    """Takes tuples of numbers and texts in any order, and gives them back sorted, once.

    Within ``with``; the temporary file goes with it.
    """

    def __init__(self) -> None:
        self._part: list[tuple[Any, ...]] = []
        self._file: IO[bytes] | None = None
        self._blocks: list[list[int]] = []

    def add(self, item: tuple[Any, ...]) -> None:
        """Take one."""
        self._part.append(item)
        if len(self._part) >= PART:
            self._put_away()

    def in_order(self) -> Iterator[tuple[Any, ...]]:
        """All of them."""
        self._part.sort()
        return heapq.merge(self._part, *map(self._read, self._blocks))

    def _put_away(self) -> None:
        self._part.sort()
        if self._file is None:
            self._file = tempfile.TemporaryFile(prefix="lifeguard-")  # noqa: SIM115
        places = []
        for start in range(0, len(self._part), _BLOCK):
            places.append(self._file.tell())
            marshal.dump(self._part[start : start + _BLOCK], self._file)
        self._blocks.append(places)
        self._part = []

    def _read(self, places: list[int]) -> Iterator[tuple[Any, ...]]:
        file = self._file
        assert file is not None
        for place in places:
            file.seek(place)
            yield from marshal.load(file)  # noqa: S302 - we wrote it ourselves

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()
