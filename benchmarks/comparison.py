"""A project that was executed with one limit and then with another, and what plays say of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dagster_lifeguard.engine.rules.admission import PATIENCE_SECONDS
from dagster_lifeguard.insight.durations import quantile
from dagster_lifeguard.insight.simulation.answer import play_recording
from dagster_lifeguard.insight.simulation.backfills import compare_backfills
from dagster_lifeguard.insight.simulation.outcome import Play
from measures import Measure
from queued_runs import NUMBER

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from dagster_lifeguard.insight.simulation.recording import Recording

WAIT_MIN = 0.1
"""Steps that wait for a shorter time in each of the executions and plays have no error to speak of,
and are not counted."""

_Step = tuple[str, str]
"""The number of a run and a step of it: the same in both executions."""


def as_it_was(past: Recording) -> Play:
    """What really happened, in the form of a play."""
    count = len(past.arrivals)
    real = Play([None] * count, [None] * count, queued=[0.0] * count)
    ended: list[float] = []
    for place, (arrival, waited) in enumerate(zip(past.arrivals, past.waited, strict=True)):
        assert waited is not None, "it started before the window"
        began = 0.0
        if arrival.after is not None:
            began = ended[arrival.after]
        elif arrival.run is not None and past.queue is not None:
            real.queued[place] = past.queued[arrival.run] or 0.0
            began = past.queue.submissions[arrival.run].at + real.queued[place]
        asked = began + arrival.at
        granted = asked + waited - real.queued[place]
        real.asked[place], real.granted[place] = asked, granted
        ended.append(granted + arrival.seconds)
    return real


@dataclass(frozen=True)
class Comparison:
    """One project, executed and played both ways. Waits in seconds.

    Attributes:
        recorded: The waits with the limit before.
        played: The same, simulated.
        foreseen: The waits simulated with the limit after.
        came: The waits with the limit after.
        backfills: Seconds that all backfills took: recorded, foreseen, and as it came.
    """

    recorded: Mapping[_Step, float]
    played: Mapping[_Step, float]
    foreseen: Mapping[_Step, float]
    came: Mapping[_Step, float]
    backfills: tuple[float, float, float] | None

    @classmethod
    def of(
        cls, execute: Callable[[int], Recording], limits: tuple[int, int], pools: Iterable[str]
    ) -> Comparison:
        """Execute, play, and execute with the limit after."""
        before, after = map(execute, limits)
        changed = before.with_settings({pool: {"limit": limits[1]} for pool in pools})
        was, came = as_it_was(before), as_it_was(after)
        played, foreseen = (play_recording(each, PATIENCE_SECONDS) for each in (before, changed))
        backfills = None
        if compare_backfills(before, was, foreseen):
            backfills = (
                _backfill_seconds(before, was),
                _backfill_seconds(before, foreseen),
                _backfill_seconds(after, came),
            )
        found = cls(
            _waits(before, was),
            _waits(before, played),
            _waits(before, foreseen),
            _waits(after, came),
            backfills,
        )
        missing = len(found.recorded.keys() ^ found.came.keys())
        assert not missing, f"{missing} steps are known of one execution alone"
        return found

    def measures(self, name: str) -> Iterator[Measure]:
        """The waits both ways, and how far the foreseen ones are from those that came."""
        kinds = {
            "before": self.recorded,
            "before, played": self.played,
            "foreseen": self.foreseen,
            "that came": self.came,
        }
        for share in (0.5, 0.95):
            for kind, waits in kinds.items():
                seconds = quantile(sorted(waits.values()), share)
                yield Measure(f"{name}: p{100 * share:.0f} wait {kind}", seconds, "s")
        if self.backfills is not None:
            for kind, taken in zip(
                ("before", "foreseen", "that came"), self.backfills, strict=True
            ):
                yield Measure(f"{name}: time of backfills {kind}", taken, "s")
        waited = [s for s in self.came if max(kind[s] for kind in kinds.values()) >= WAIT_MIN]
        yield Measure(f"{name}: steps that waited", len(waited), "")
        for what, one, other in (
            ("the play of the past", self.played, self.recorded),
            ("what was foreseen", self.foreseen, self.came),
        ):
            errors = sorted(abs(one[s] - other[s]) for s in waited)
            for share in (0.5, 0.9):
                label = "median" if share == 0.5 else f"p{100 * share:.0f}"
                yield Measure(f"{name}: error of {what}, {label}", quantile(errors, share), "s")


def _waits(past: Recording, play: Play) -> dict[_Step, float]:
    waits = {}
    for place, arrival in enumerate(past.arrivals):
        waited = play.waited(place)
        assert waited is not None, f"{arrival.key} never started"
        waits[arrival.tags[NUMBER], arrival.key.step_key] = waited
    return waits


def _backfill_seconds(past: Recording, play: Play) -> float:
    found = (backfill.before for backfill in compare_backfills(past, play, play))
    return sum(seconds for seconds in found if seconds is not None)
