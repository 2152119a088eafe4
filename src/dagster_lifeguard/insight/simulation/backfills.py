"""How long backfills take in two plays of the same past."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dagster_lifeguard.engine.rules.pool_settings import BACKFILL_TAG

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dagster_lifeguard.insight.simulation.outcome import Play
    from dagster_lifeguard.insight.simulation.recording import Recording


@dataclass(frozen=True, slots=True)
class BackfillAnswer:
    """One backfill, under both settings.

    Attributes:
        backfill: Its id.
        runs: How many of its runs asked for pools.
        executions: How many of their executions asked for pools.
        before: Seconds from the first that asked to the end of the last, with the settings that
            were in force; None if one of them never started.
        after: The same with the wanted settings.
    """

    backfill: str
    runs: int
    executions: int
    before: float | None
    after: float | None

    @property
    def change(self) -> float:
        """How much longer it takes, in seconds; 0 if that is not known."""
        return 0.0 if self.before is None or self.after is None else self.after - self.before


def compare_backfills(past: Recording, before: Play, after: Play) -> tuple[BackfillAnswer, ...]:
    """The backfills that asked for pools, the largest change first.

    A wait in the run queue counts from the submission of the run.
    """
    places: dict[str, list[int]] = defaultdict(list)
    for place, arrival in enumerate(past.arrivals):
        backfill = arrival.tags.get(BACKFILL_TAG)
        if backfill is not None:
            places[backfill].append(place)
    found = (
        BackfillAnswer(
            backfill,
            len({past.arrivals[place].key.run_id for place in of_backfill}),
            len(of_backfill),
            _seconds(past, before, of_backfill),
            _seconds(past, after, of_backfill),
        )
        for backfill, of_backfill in places.items()
    )
    return tuple(sorted(found, key=lambda answer: (-abs(answer.change), answer.backfill)))


def _seconds(past: Recording, played: Play, places: Sequence[int]) -> float | None:
    begins, ends = [], []
    for place in places:
        asked, granted = played.asked[place], played.granted[place]
        if asked is None or granted is None:
            return None
        begins.append(asked - played.queued[place])
        ends.append(granted + past.arrivals[place].seconds)
    return max(ends) - min(begins)
