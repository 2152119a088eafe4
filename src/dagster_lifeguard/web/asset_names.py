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
"""A search reads the names again after this time."""


class AssetNames:
    """Finds assets by a part of their name; any thread may ask.

    The first search reads the names: a deployment with many plans takes a while to answer.
    """

    def __init__(self) -> None:
        self._names: tuple[str, ...] = ()
        self._read: float | None = None
        self._lock = Lock()

    def matching(self, deployment: Deployment, text: str) -> tuple[str, ...]:
        """The assets with this text in their name, as ``a/b``; one whose last part it is first.

        Args:
            deployment: Where the assets are. While it does not answer, the names read before count.
            text: The text to search; empty finds none.
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
