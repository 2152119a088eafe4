"""Wrong tokens: an address that sends many of them has to wait."""

from __future__ import annotations

import time
from collections import OrderedDict
from typing import TYPE_CHECKING

from dagster_lifeguard.web.errors import RequestRefusedError

if TYPE_CHECKING:
    from collections.abc import Callable

FREE = 5
"""The number of wrong tokens from one address without consequence."""

PAUSE_MAX = 60.0
"""After each further one the address waits twice as long as before, from 1 s up to this."""

ADDRESSES_MAX = 10_000
"""The most addresses whose wrong tokens are remembered: the latest ones."""

_TOO_MANY_REQUESTS = 429


class Guesses:
    """The wrong tokens of each address.

    Args:
        clock: Tells seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._found: OrderedDict[str, tuple[int, float]] = OrderedDict()

    def refuse_hasty(self, address: str) -> None:
        """Refuse an address that has to wait.

        Raises:
            RequestRefusedError: It has.
        """
        _, until = self._found.get(address, (0, 0.0))
        left = until - self._clock()
        if left > 0:
            raise RequestRefusedError(
                _TOO_MANY_REQUESTS,
                "Too many wrong tokens came from this address.",
                remedy=f"Wait {left:.0f} s, and try again.",
            )

    def add(self, address: str) -> None:
        """Take a wrong token of an address."""
        count = self._found.get(address, (0, 0.0))[0] + 1
        pause = min(2.0 ** min(count - FREE - 1, 30), PAUSE_MAX) if count > FREE else 0.0
        self._found[address] = (count, self._clock() + pause)
        self._found.move_to_end(address)
        while len(self._found) > ADDRESSES_MAX:
            self._found.popitem(last=False)

    def forget(self, address: str) -> None:
        """Take the right token of an address."""
        self._found.pop(address, None)
