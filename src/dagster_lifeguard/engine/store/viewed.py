"""What every store's transaction has: its view, at a time that may be waited for."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dagster_lifeguard.engine.rules.model import View


class Viewed:
    """A view and its time, by which everything is decided and written.

    Args:
        view: What is true while the locks are held.
    """

    def __init__(self, view: View) -> None:
        self.view = view
        self._seen_at = time.monotonic()

    def wait_until(self, at: float) -> View:
        """Hold the locks until this time by the database's clock; the view as of then.

        The view was told some time after it was seen, so the clock is never behind.
        """
        pause_seconds = at - self.view.now - (time.monotonic() - self._seen_at)
        if pause_seconds > 0:
            time.sleep(pause_seconds)
        self.view = replace(self.view, now=max(at, self.view.now))
        return self.view
