"""How much of the suite is run: a little in ``make test``, all of it in ``make torture``."""

from __future__ import annotations

import os
from typing import TypeVar

T = TypeVar("T")

TIMES = int(os.environ.get("LIFEGUARD_TORTURE", "1"))


def some(few: list[T], *more: T) -> list[T]:
    """What to go through: a few, and in ``make torture`` more."""
    return few if TIMES == 1 else [*few, *more]
