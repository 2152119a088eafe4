"""An account of what was changed here: who, when, from what, to what."""

from __future__ import annotations

import json
import logging
from collections import deque
from dataclasses import asdict, dataclass
from logging.handlers import RotatingFileHandler
from threading import Lock
from typing import TYPE_CHECKING, Literal

from dagster_lifeguard.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

KEPT_MAX = 1000
"""So many of the newest changes are kept in memory."""

_FILE_BYTES = 10_000_000
_log = logging.getLogger("dagster_lifeguard.web.changes")


@dataclass(frozen=True, slots=True)
class Change:
    """Something that was changed.

    Attributes:
        at: When, in seconds since the epoch.
        who: By whom, as far as the server knows: an address and a mark of its session.
        what: A limit was set, or slots were freed.
        pool: The pool; empty for slots of several.
        before: The limit in force before; None if it was unlimited.
        after: The limit that was set.
        run_id: Whose slots were freed; empty for a limit.
        step_key: The same.
        forced: Whether they were freed although somebody may still have worked under them.
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


class ChangeLog:
    """Keeps the newest changes in memory, logs each, and writes each to a file if there is one.

    Args:
        path: A file with one JSON object a line; what it says already is known again. At 10 MB it
            is put aside as ``PATH.1``.

    Raises:
        ConfigError: The file cannot be written.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._kept: deque[Change] = deque(maxlen=KEPT_MAX)
        self._file: RotatingFileHandler | None = None
        self._lock = Lock()
        if path is None:
            return
        try:
            if path.exists():
                with path.open(encoding="utf-8") as lines:
                    self._kept.extend(Change(**json.loads(line)) for line in lines)
            self._file = RotatingFileHandler(path, maxBytes=_FILE_BYTES, backupCount=1)
        except (OSError, ValueError, TypeError) as error:
            raise ConfigError(
                f"{path} cannot be used for an account of changes: {error}.",
                remedy="Name another file with --change-log.",
                names=[str(path)],
            ) from error

    def add(self, change: Change) -> None:
        """Remember a change that was made."""
        text = json.dumps(asdict(change))
        with self._lock:
            self._kept.append(change)
        _log.info("%s", text)
        if self._file is not None:
            self._file.handle(logging.LogRecord("", logging.INFO, "", 0, text, None, None))

    def newest(self, pool: str | None = None) -> tuple[Change, ...]:
        """The changes that are kept, of one pool or of all, newest first."""
        with self._lock:  # Pages are made in threads of their own.
            kept = tuple(reversed(self._kept))
        return tuple(c for c in kept if pool in (None, c.pool))

    def limit_before_pause(self, pool: str) -> int | None:
        """The limit that a pool had before it was paused here; None if that is not known."""
        for change in self.newest(pool):
            if change.what == "limit" and change.after == 0 and change.before:
                return change.before
        return None
