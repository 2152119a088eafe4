"""Doing something again while the connection to the database comes and goes."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, TypeVar

from dagster_lifeguard.engine.store.contract import TryAgainError
from dagster_lifeguard.errors import StoreUnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

SECONDS_MAX = 30.0
"""How long a database may be away: a restart of the server takes less."""

_PAUSE_SECONDS = 0.25


def retry(verb: Callable[[], T]) -> T:
    """Do something that is idempotent until it comes to a known end.

    Raises:
        StoreUnavailableError: It did not within ``SECONDS_MAX``.
    """
    deadline = time.monotonic() + SECONDS_MAX
    while True:
        try:
            return verb()
        except TryAgainError as error:
            if time.monotonic() >= deadline:
                raise StoreUnavailableError(
                    f"The engine's database did not answer: {error}.",
                    remedy="Check that it runs and is reachable; nothing was granted.",
                ) from error
            time.sleep(_PAUSE_SECONDS)
