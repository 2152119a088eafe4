"""Local files that refuse a late writer.

Guarantees:
    A file is replaced as a whole, or not at all, and only if no larger fence replaced it before.
    The fence is on disk before the file is, so a crash between the two never lets a late writer in.
    A reader sees the old file or the new one. What was replaced survives a crash of the machine.

Not guaranteed:
    - Anything about a writer that replaces the file without this, or that holds no pool with the
      others.
    - That a successor need not wait: a process that is stopped in the instant between its look at
      the fence and its rename has the lock until it goes on or ends.
    - Network file systems, whose locks cannot be trusted, and Windows, which has no ``flock``.
"""

from __future__ import annotations

import os
import uuid
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from dagster_lifeguard.client.fencing.refusal import late
from dagster_lifeguard.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator

_DIGITS = 20


@contextmanager
def fenced_file(path: str | os.PathLike[str], fence: int) -> Iterator[Path]:
    """Replace a file at the end of the block, unless a later holder has replaced it.

    Gives the path of a file to write instead, in the same directory and with the same suffix. The
    fence stands in a file beside it, ``.NAME.fence``. When the block raises, nothing is replaced.

    Args:
        path: The file to replace, or to make.
        fence: Of ``dagster_lifeguard.fence``.

    Raises:
        LateWriterError: A larger fence was here before.
        ConfigError: The block has written no file, the file of the fence is none, or this is
            Windows.
    """
    target = Path(path)
    # In front of the name, so that the draft keeps the suffix, which libraries may check.
    draft = target.with_name(f".{uuid.uuid4().hex}.{target.name}")
    try:
        yield draft
        if not draft.is_file():
            raise ConfigError(
                f"Nothing was written to replace {target} with.",
                remedy="Write to the path that fenced_file gives.",
                names=[str(target)],
            )
        _sync(draft)
        _replace(target, draft, fence)
    finally:
        draft.unlink(missing_ok=True)


def _replace(target: Path, draft: Path, fence: int) -> None:
    try:
        import fcntl  # noqa: PLC0415 - not on Windows
    except ImportError:
        raise ConfigError(
            f"{target} cannot be fenced on this system, which has no flock.",
            remedy="Fence a table or an object instead.",
            names=[str(target)],
        ) from None
    memory = target.with_name(f".{target.name}.fence")
    descriptor = os.open(memory, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        seen = _read(descriptor, memory)
        if seen > fence:
            raise late(str(target), fence, seen)
        # In place and of one length, within one sector: there is no half of it to be read.
        os.pwrite(descriptor, f"{fence:0{_DIGITS}d}\n".encode(), 0)
        os.fsync(descriptor)
        _sync(target.parent)
        draft.replace(target)
        _sync(target.parent)
    finally:
        os.close(descriptor)


def _read(descriptor: int, memory: Path) -> int:
    text = os.pread(descriptor, _DIGITS + 1, 0)
    if not text:
        return 0
    try:
        return int(text)
    except ValueError:
        raise ConfigError(
            f"{memory} holds no fence.",
            remedy="If nobody is writing, delete it: the next writer is let in whatever its fence.",
            names=[str(memory)],
        ) from None


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
