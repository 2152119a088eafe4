"""Steps that went on although their slots had been taken back, as their lease was over.

The ledger tells how long a step held its slots, and Dagster's event log what the step wrote. Their
clocks are not compared: a step starts after it was granted its slots, so what it writes later after
its start than it held them was written without them.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from dagster import DagsterEventType

from dagster_lifeguard.inspections.audit.audit_result import KEPT_MAX, Outlived

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping

    from dagster_lifeguard.compat.events import EventRow
    from dagster_lifeguard.engine.rules.model import Entry

    EventsOf = Callable[[Collection[str]], Mapping[str, Iterable[EventRow]]]

_START = DagsterEventType.STEP_START.value
_WRITTEN = (
    DagsterEventType.STEP_OUTPUT.value,
    DagsterEventType.HANDLED_OUTPUT.value,
    DagsterEventType.ASSET_MATERIALIZATION.value,
    DagsterEventType.STEP_SUCCESS.value,
)
"""What only the process of a step writes. That it failed, others may say of it."""

EVENTS = tuple(map(DagsterEventType, (_START, *_WRITTEN)))
"""The types of events that are looked at."""

JUDGED_MAX = 10_000
"""How many holdings that ended with their lease are in memory, and are judged."""

_RUNS_AT_ONCE = 64


class Leases:
    """Remembers the holdings that ended with their lease, and judges them at the end.

    Attributes:
        count: Steps that went on after it.
        found: They themselves; the first ``KEPT_MAX``.
        unproven: How many others there were, of which nothing proves that the step went on.
    """

    def __init__(self) -> None:
        self.count = 0
        self.found: list[Outlived] = []
        self.unproven = 0
        self._ended: dict[tuple[str, str, int], list[Entry]] = {}

    def expired(self, entry: Entry) -> None:
        """A holding ended with its lease: one entry for each of its pools."""
        key = (entry.run_id, entry.step_key, entry.fence)
        if key in self._ended or len(self._ended) < JUDGED_MAX:
            self._ended.setdefault(key, []).append(entry)
        else:
            self.unproven += 1

    def judge(self, events_of: EventsOf, inexact: Collection[str]) -> None:
        """Look at what the steps wrote.

        Args:
            events_of: Gives the events of these runs that are of the types in ``EVENTS``.
            inexact: Pools of which durations are not exact.
        """
        of_run: dict[str, list[list[Entry]]] = {}
        for entries in self._ended.values():
            of_run.setdefault(entries[0].run_id, []).append(entries)
        run_ids = list(of_run)
        for start in range(0, len(run_ids), _RUNS_AT_ONCE):
            events = events_of(run_ids[start : start + _RUNS_AT_ONCE])
            for run_id in run_ids[start : start + _RUNS_AT_ONCE]:
                for entries in of_run[run_id]:
                    self._judge(entries, list(events.get(run_id, ())), inexact)

    def _judge(
        self, entries: list[Entry], events: Iterable[EventRow], inexact: Collection[str]
    ) -> None:
        exact = not any(entry.pool in inexact for entry in entries)
        found = _outlived(entries, events) if exact else None
        if found is None:
            self.unproven += 1
            return
        self.count += 1
        if len(self.found) < KEPT_MAX:
            self.found.append(found)


def _outlived(entries: list[Entry], events: Iterable[EventRow]) -> Outlived | None:
    """What proves that the step of a holding went on after it; None if nothing does."""
    expired = entries[0]
    own: dict[str, list[EventRow]] = {}
    for event in events:
        # A graph that holds its pool as a whole asks by its own name for the steps in it.
        if event.step_key is not None and f"{event.step_key}.".startswith(f"{expired.step_key}."):
            own.setdefault(event.step_key, []).append(event)
    proofs = [proof for found in own.values() if (proof := _proof(expired, found)) is not None]
    if not proofs:
        return None
    seconds, last = max(proofs, key=lambda proof: proof[0])
    return Outlived(
        pools=tuple(sorted({entry.pool for entry in entries})),
        run_id=expired.run_id,
        step_key=last.step_key or expired.step_key,
        fence=expired.fence,
        granted=expired.at - (expired.seconds or 0.0),
        expired=expired.at,
        event=last.kind,
        wrote=last.at,
        seconds=seconds,
    )


def _proof(expired: Entry, events: list[EventRow]) -> tuple[float, EventRow] | None:
    """The last event that one step wrote after its slots were taken back.

    Returns:
        How long after it, at least, in seconds; and the event. None if there is none for certain.
    """
    held = expired.seconds or 0.0
    starts = [event.at for event in events if event.kind == _START]
    # Of several attempts, the last that started while the slots were held, as far as clocks agree.
    started = max((at for at in starts if expired.at - held <= at <= expired.at), default=None)
    if started is None:
        return None
    following = min((at for at in starts if at > started), default=math.inf)
    written = [
        event
        for event in events
        if event.kind in _WRITTEN
        and expired.at < event.at < following
        and event.at - started > held
    ]
    if not written:
        return None
    last = max(written, key=lambda event: event.at)
    return last.at - started - held, last
