"""The account of changes over this server: visitor, time, old and new value."""

from __future__ import annotations

import json
import logging
from collections import deque
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from errno import ENOSPC
from io import FileIO
from logging.handlers import RotatingFileHandler
from os import SEEK_END, strerror
from threading import Lock
from typing import TYPE_CHECKING, Literal

from dagster_lifeguard.errors import ConfigError
from dagster_lifeguard.web.errors import RequestRefusedError

if TYPE_CHECKING:
    from pathlib import Path

KEPT_MAX = 1000
"""The most changes in memory, the newest ones."""

_FILE_BYTES = 10_000_000
_LINE_BYTES = 16_384
_ROOM = "Make room on the disk, and look whether the file can be written."
_log = logging.getLogger("dagster_lifeguard.web.changes")


@dataclass(frozen=True, slots=True)
class PoolChange:
    """A change of a pool.

    Attributes:
        at: When, in seconds since the epoch.
        who: The visitor: an address, and a mark of the session.
        what: Whether a limit was set, or slots were freed.
        pool: The pool; empty for slots of several.
        before: The limit in force before; None if it was unlimited.
        after: The limit that was set.
        until: When it falls back by itself; None if it lasts.
        run_id: The run whose slots were freed; empty for a limit.
        step_key: The step whose slots were freed; empty for a limit.
        forced: Whether the slots were freed although their holder may have been alive.
    """

    at: float
    who: str
    what: Literal["limit", "free"]
    pool: str
    before: int | None = None
    after: int | None = None
    run_id: str = ""
    step_key: str = ""
    forced: bool = False
    until: float | None = None


class _Account(RotatingFileHandler):
    """The file. A failed write raises an error, where logging would print it."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        del record
        raise  # noqa: PLE0704 - called while the error is handled

    def try_room(self) -> None:
        """Try whether a line can be written; the file stays as it is.

        Raises:
            OSError: It cannot be written.
        """
        with self.lock or nullcontext(), FileIO(self.baseFilename, "a") as file:
            size = file.seek(0, SEEK_END)
            try:
                if file.write(b" " * _LINE_BYTES) < _LINE_BYTES:
                    raise OSError(ENOSPC, strerror(ENOSPC))
            finally:
                file.truncate(size)


def _end_line(path: Path) -> None:
    """End the last line of the file, if a process died while it wrote the line.

    A part of a change is cut off; a whole change only gets its end of line.

    Raises:
        OSError: The file cannot be changed.
    """
    with path.open("r+b") as file:
        last = file.read().rpartition(b"\n")[2]
        if not last:
            return
        try:
            PoolChange(**json.loads(last))
        except (ValueError, TypeError):
            file.truncate(file.tell() - len(last))
            _log.warning("%s ended in the middle of a line, which was cut off: %r", path, last)
        else:
            file.write(b"\n")


class ChangeLog:
    """Keeps the newest changes in memory, logs each, and writes each to a file if there is one.

    Args:
        path: A file with one JSON object a line. The changes in it are read. At 10 MB it becomes
            ``PATH.1``, and a new file begins.

    Raises:
        ConfigError: The file cannot be written.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._kept: deque[PoolChange] = deque(maxlen=KEPT_MAX)
        self._file: _Account | None = None
        self._lock = Lock()
        if path is None:
            return
        try:
            if path.exists():
                _end_line(path)
                with path.open(encoding="utf-8") as lines:
                    self._kept.extend(PoolChange(**json.loads(line)) for line in lines)
            self._file = _Account(path, maxBytes=_FILE_BYTES, backupCount=1)
        except (OSError, ValueError, TypeError) as error:
            raise ConfigError(
                f"{path} cannot be used for an account of changes: {error}.",
                remedy="Name another file with --change-log.",
                names=[str(path)],
            ) from error

    def refuse_full(self) -> None:
        """Refuse a change that cannot be written down, before it is made.

        Raises:
            RequestRefusedError: The file cannot be written.
        """
        if self._file is None:
            return
        try:
            self._file.try_room()
        except OSError as error:
            raise RequestRefusedError(
                503,
                f"Nothing was changed: the account of changes cannot be written: {error}.",
                remedy=_ROOM,
            ) from error

    def add(self, change: PoolChange) -> None:
        """Write down a change that was made.

        Raises:
            RequestRefusedError: The file cannot be written; memory and log have the change.
        """
        text = json.dumps(asdict(change))
        with self._lock:
            self._kept.append(change)
        _log.info("%s", text)
        if self._file is not None:
            try:
                self._file.handle(logging.LogRecord("", logging.INFO, "", 0, text, None, None))
            except OSError as error:
                raise RequestRefusedError(
                    503,
                    f"The change was made, but the account of changes lacks it: {error}.",
                    remedy=f"{_ROOM} The server's log has the change.",
                ) from error

    def newest(self, pool: str | None = None) -> tuple[PoolChange, ...]:
        """The changes in memory, of one pool or of all, newest first."""
        with self._lock:  # Pages are made in threads of their own.
            kept = tuple(reversed(self._kept))
        return tuple(c for c in kept if pool in (None, c.pool))

    def last_limits(self) -> dict[str, PoolChange]:
        """For each pool the newest change of its limit."""
        found: dict[str, PoolChange] = {}
        for change in self.newest():
            if change.what == "limit":
                found.setdefault(change.pool, change)
        return found

    def limit_before_pause(self, pool: str) -> int | None:
        """The limit of a pool before it was paused over this server; None if that is unknown."""
        for change in self.newest(pool):
            if change.what == "limit" and change.after == 0 and change.before:
                return change.before
        return None
