"""The names of all assets, kept for the search of the overview."""

from __future__ import annotations

import time
from contextlib import suppress
from threading import Lock
from typing import TYPE_CHECKING

from dagster_lifeguard.errors import LifeguardError

if TYPE_CHECKING:
    from dagster_lifeguard.deployment.contract import Deployment

FRESH_SECONDS = 30.0
"""The names are read again after this time, if somebody searches."""


class AssetNames:
    """Finds assets by a part of their name; any thread may ask.

    The names are read when somebody searches, and not before: a deployment that has many plans
    takes a while to tell them.
    """

    def __init__(self) -> None:
        self._names: tuple[str, ...] = ()
        self._read: float | None = None
        self._lock = Lock()

    def matching(self, deployment: Deployment, text: str) -> tuple[str, ...]:
        """The assets with this text in their name, as ``a/b``; one whose last part it is first.

        Args:
            deployment: Where the assets are. While it does not tell them, those it told before.
            text: What somebody searches; empty finds none.
        """
        wanted = text.strip().lower()
        if not wanted:
            return ()
        found = [name for name in self._all(deployment) if wanted in name.lower()]
        found.sort(key=lambda name: name.lower().rpartition("/")[2] != wanted)
        return tuple(found)

    def _all(self, deployment: Deployment) -> tuple[str, ...]:
        with self._lock:
            now = time.monotonic()
            if self._read is None or now - self._read > FRESH_SECONDS:
                self._read = now
                with suppress(LifeguardError):  # The search finds pools all the same.
                    self._names = tuple(deployment.assets())
            return self._names
