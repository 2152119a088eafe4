"""Values that take long to compute, each used again for a while."""

from __future__ import annotations

import time
from collections import OrderedDict
from threading import Lock
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

K = TypeVar("K", bound="Hashable")
V = TypeVar("V")

SHARE = 20
"""A value is used for at least this many times as long as it took to compute."""


class Cache(Generic[K, V]):
    """A cache of values by key. Any thread may ask; two threads may compute one value.

    Args:
        fresh_seconds: A value is used for at least this long.
        count_max: At most this many values are in the cache: the ones that were used last.
    """

    def __init__(self, fresh_seconds: float, count_max: int) -> None:
        self._fresh_seconds = fresh_seconds
        self._count_max = count_max
        self._kept: OrderedDict[K, tuple[V, float]] = OrderedDict()
        self._lock = Lock()

    def get(self, key: K, compute: Callable[[], V], *, even_old: bool = False) -> V:
        """The value of a key, computed anew if it is missing or old.

        Args:
            key: The key.
            compute: Computes the value.
            even_old: Whether an old value will do.
        """
        began = time.monotonic()
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                value, until = self._kept[key]
                if even_old or began <= until:
                    return value
        value = compute()
        done = time.monotonic()
        with self._lock:
            self._kept[key] = value, done + max(self._fresh_seconds, SHARE * (done - began))
            self._kept.move_to_end(key)
            while len(self._kept) > self._count_max:
                self._kept.popitem(last=False)
        return value
