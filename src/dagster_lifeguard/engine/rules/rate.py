"""How many steps may start per time: the generic cell rate algorithm (GCRA), in whole nanoseconds.

For each pool one number is stored: the due time, at which the next step starts if starts are spread
evenly. A step may start ``burst - 1`` intervals before the due time, and moves the due time by one
interval. So in any span of S seconds, both ends counted, at most ``burst + S * starts / seconds``
steps start. Proof: the first of k starts sets the due time to at least its own time plus one
interval, and the last start comes no earlier than k - burst intervals after the first.

After a start the due time is at most ``burst`` intervals ahead of the clock. If it is further
ahead, the clock was set back. The first claim that sees this corrects the due time, once: the pool
waits for one interval at most.

When a rate replaces another, earlier starts still count, each with the new interval, and at most
the new burst of them. So in a span over one change at most the larger burst of steps start, plus
what each rate allows in its part of the span.

Times are whole nanoseconds because the due time is added up for as long as the pool exists, and an
interval is rounded up, so that no rounding error ever allows one start too many.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from dagster_lifeguard.errors import ConfigError

UNITS = {"second": 1, "minute": 60, "hour": 3600, "day": 86400}
"""The units that may follow the slash, in seconds."""

STARTS_MAX = 1_000_000
"""The most starts in a unit of time."""

BURST_MAX = 10_000
"""The most starts at once."""

_NS = 1_000_000_000
_TEXT = re.compile(rf"([1-9]\d*)/({'|'.join(UNITS)})")


def nanoseconds(seconds: float) -> int:
    """Seconds since the epoch in whole nanoseconds, exact to the microsecond of the database."""
    return round(seconds * 1_000_000) * 1000


def seconds(nanoseconds: int) -> float:
    """The first microsecond that is not before these nanoseconds, in seconds since the epoch."""
    return -(-nanoseconds // 1000) / 1_000_000


@dataclass(frozen=True, slots=True)
class Rate:
    """How many steps of a pool may start per time. A step counts once, for any number of slots.

    Attributes:
        starts: How many steps may start in each unit of time.
        seconds: The unit of time, in seconds.
        burst: How many steps may start at once after a quiet time.

    Raises:
        ConfigError: A number is out of bounds.
    """

    starts: int
    seconds: int
    burst: int = 1

    def __post_init__(self) -> None:
        for name, value, most in (
            ("starts", self.starts, STARTS_MAX),
            ("burst", self.burst, BURST_MAX),
        ):
            if not 1 <= value <= most:
                raise ConfigError(
                    f"A rate with {name} {value} is out of bounds.",
                    remedy=f"Give {name} from 1 to {most:,}.",
                )
        if self.seconds not in UNITS.values():
            raise ConfigError(
                f"A rate for every {self.seconds} seconds is not one.",
                remedy=f"Give it for each {', '.join(UNITS)}.",
            )

    @classmethod
    def parse(cls, text: str, burst: int = 1) -> Rate:
        """The rate that a text such as ``100/minute`` says.

        Raises:
            ConfigError: It says none, or one that is out of bounds.
        """
        found = _TEXT.fullmatch(text)
        if found is None:
            raise ConfigError(
                f"{text!r} is not a rate.",
                remedy=f"Write {', '.join('N/' + unit for unit in UNITS)}, such as 100/minute.",
                names=[text],
            )
        return cls(int(found[1]), UNITS[found[2]], burst)

    @classmethod
    def read(cls, text: str) -> Rate:
        """The rate that was written as text: the inverse of ``str``."""
        rate, _, burst = text.partition(", burst ")
        return cls.parse(rate, int(burst or 1))

    @property
    def interval_ns(self) -> int:
        """The time from one start to the next when they are spread evenly."""
        return -(-self.seconds * _NS // self.starts)

    def start_at(self, due_ns: int, now_ns: int, count: int = 1) -> int:
        """When the ``count``-th start from now may be, if those before it are as early as may be.

        Args:
            due_ns: What is kept for the pool.
            now_ns: The time; one that is not after it means: now.
            count: 1 for the next start.
        """
        return self._due(due_ns, now_ns) + (count - self.burst) * self.interval_ns

    def ready(self, due_ns: int, now_ns: int) -> int:
        """How many steps may start now."""
        early = now_ns - self._due(due_ns, now_ns) + self.burst * self.interval_ns
        return early // self.interval_ns

    def due_after_start(self, due_ns: int, now_ns: int) -> int:
        """What to keep for the pool when a step starts now."""
        return self._due(due_ns, now_ns) + self.interval_ns

    def corrected(self, due_ns: int, now_ns: int) -> int:
        """What to keep for the pool if the clock was set back: the latest a start can have set."""
        return min(due_ns, now_ns + self.burst * self.interval_ns)

    def taken_over(self, before: Rate | None, due_ns: int, now_ns: int) -> int:
        """What to keep for the pool when this rate is set.

        Args:
            before: The rate that it has had so far. Without one, starts were not counted, and what
                was kept when its last rate was deleted counts as it is.
            due_ns: What is kept for the pool.
            now_ns: The time.
        """
        if before is not None and due_ns > now_ns:
            debt_ns = before.corrected(due_ns, now_ns) - now_ns
            due_ns = now_ns + -(-debt_ns * self.interval_ns // before.interval_ns)
        return self.corrected(due_ns, now_ns)

    def _due(self, due_ns: int, now_ns: int) -> int:
        return max(self.corrected(due_ns, now_ns), now_ns)

    @property
    def text(self) -> str:
        """The rate without its burst, such as ``100/minute``: what ``parse`` reads."""
        unit = next(name for name, seconds in UNITS.items() if seconds == self.seconds)
        return f"{self.starts}/{unit}"

    def __str__(self) -> str:
        return self.text if self.burst == 1 else f"{self.text}, burst {self.burst}"
