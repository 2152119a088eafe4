"""Whether steps started as the rates of their pools allow, judged one start after the other."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dagster_lifeguard.engine.rules.rate import nanoseconds
from dagster_lifeguard.inspections.audit.audit_result import KEPT_MAX, EarlyStart, Occupant

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dagster_lifeguard.engine.rules.rate import Rate


class Starts:
    """Counts as the rates do (see ``rate``), from the first start that is known.

    Of what started before that nothing is known, so of the first starts some may pass that were
    too early, and none is found that was not.

    Args:
        rates: The rate of each pool at the beginning. A pool without one is not judged until
            ``set_rate`` says which it has.
    """

    def __init__(self, rates: Mapping[str, Rate]) -> None:
        self.count = 0
        self.found: list[EarlyStart] = []
        self.pools: set[str] = set()
        self._rates = dict(rates)
        self._due_ns: dict[str, int] = {}

    def set_rate(self, pool: str, rate: Rate | None, at: float) -> None:
        """From this time on, the pool has this rate."""
        before = self._rates.pop(pool, None)
        if rate is not None:
            due_ns = self._due_ns.get(pool, 0)
            self._due_ns[pool] = rate.taken_over(before, due_ns, nanoseconds(at))
            self._rates[pool] = rate

    def start(self, pool: str, occupant: Occupant) -> None:
        """A step starts."""
        rate = self._rates.get(pool)
        if rate is None:
            return
        now_ns = nanoseconds(occupant.started)
        due_ns = self._due_ns.get(pool, 0)
        self._due_ns[pool] = rate.due_after_start(due_ns, now_ns)
        self.pools.add(pool)
        early_ns = rate.start_at(due_ns, now_ns) - now_ns
        if early_ns > 0:
            self.count += 1
            if len(self.found) < KEPT_MAX:
                self.found.append(EarlyStart(pool, str(rate), early_ns / 1e9, occupant))
