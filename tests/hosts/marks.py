"""What executions leave in files, and what follows from it: the oracle outside the database.

Each execution appends lines to a file of its own: the time by CLOCK_MONOTONIC, which all hosts of a
test share for they are one machine, and a word. ``begin``, with the fence and what the wall clock
says; ``work`` every few milliseconds while user code executes; ``interrupted`` when user code is
interrupted; ``end`` when it is done. A process that is killed leaves no last word, only a last
``work``.
"""

from __future__ import annotations

import os
import time
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

WORK_SECONDS = 0.005


@contextmanager
def executing(name: str, fence: int) -> Iterator[Callable[[], None]]:
    """Leave marks for the length of a block; yields what marks a moment's work."""
    path = Path(os.environ["MARKS"]) / f"{name}.{os.getpid()}.{time.monotonic_ns()}"
    with path.open("ab", buffering=0) as stream:

        def mark(word: str) -> None:
            stream.write(f"{time.monotonic()!r} {word}\n".encode())

        mark(f"begin {fence} {time.time()!r}")
        try:
            yield lambda: mark("work")
        except BaseException:
            mark("interrupted")
            raise
        mark("end")


@dataclass(frozen=True)
class Execution:
    """One execution of user code.

    Attributes:
        name: Who executed.
        pid: The process.
        fence: The fence that user code was told.
        begun: Its first moment, by CLOCK_MONOTONIC.
        last: Its last moment so far: of its interruption, its end, or its last work.
        how: ``end``, ``interrupted``, or ``work`` while neither was seen.
        wall: What the wall clock said at its first moment.
    """

    name: str
    pid: int
    fence: int
    begun: float
    last: float
    how: str
    wall: float


class Marks:
    """The marks of a test.

    Args:
        path: Their directory.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir()

    def executions(self, name: str = "*") -> list[Execution]:
        """The executions so far, in the order in which they began."""
        found = [_execution(path) for path in self.path.glob(f"{name}.*")]
        return sorted((e for e in found if e is not None), key=lambda e: e.begun)


def _execution(path: Path) -> Execution | None:
    name, pid, _ = path.name.split(".")
    # What follows the last end of line is being written.
    lines = path.read_text().rpartition("\n")[0].splitlines()
    if not lines:
        return None
    begun, _, fence, wall = lines[0].split()
    last, how = lines[-1].split()[:2]
    how = "work" if how == "begin" else how
    return Execution(name, int(pid), int(fence), float(begun), float(last), how, float(wall))


def overlaps(executions: Sequence[Execution]) -> list[str]:
    """Where an execution began before one that had begun earlier was over."""
    found = []
    for number, later in enumerate(executions):
        for earlier in executions[:number]:
            beside = earlier.last - later.begun
            if beside > 0:
                found.append(
                    f"{earlier.name} executed on for {beside:.2f} s beside {later.name}, "
                    f"then: {earlier.how}"
                )
    return found


def fences_grow(executions: Sequence[Execution]) -> bool:
    """Whether each execution was told a larger fence than all that began before."""
    return all(one.fence < other.fence for one, other in pairwise(executions))
