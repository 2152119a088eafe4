"""The view of a transaction, under its locks; the same for every store."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dagster_lifeguard.engine.rules.model import View


class LockedView:
    """A view and its time. Everything in the transaction is decided and written by that time.

    Args:
        view: The locked rows.
    """

    def __init__(self, view: View) -> None:
        self.view = view
        self._seen_at = time.monotonic()

    def wait_until(self, at: float) -> View:
        """Hold the locks until this time by the database's clock; return the view of that time.

        The view reached this process some time after the database read it, so the database's clock
        has certainly reached the time when the pause is over.
        """
        pause_seconds = at - self.view.now - (time.monotonic() - self._seen_at)
        if pause_seconds > 0:
            time.sleep(pause_seconds)
        self.view = replace(self.view, now=max(at, self.view.now))
        return self.view
