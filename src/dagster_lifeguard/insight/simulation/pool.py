"""One pool of the world: its row, its queue, and how its slots were used."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

from dagster_lifeguard.engine.rules.model import WAITERS_SEEN_MAX, PoolView
from dagster_lifeguard.engine.rules.order import turns_in_force
from dagster_lifeguard.engine.rules.pool_settings import most_slots
from dagster_lifeguard.engine.rules.rate import nanoseconds
from dagster_lifeguard.insight.simulation.line import Line

if TYPE_CHECKING:
    from dagster_lifeguard.engine.rules.model import QueuedTicket
    from dagster_lifeguard.engine.rules.pool_settings import PoolSettings


class Pool:
    """The row of one pool.

    Attributes:
        held: Held slots that count against the limit.
        present: All held slots, also of holders that started while there was no limit.
        waiting: How many tickets wait that ask for it, wherever they stand.
        line: The queue, without tickets that ask for more slots than the limit.
        look_at: When the next waiter has to look whether the rate lets it start.
        since: The time up to which the use was counted.
        used: The use in the window so far, in slot-seconds; the same unit as ``offered``.
    """

    __slots__ = (
        "due_ns",
        "fence",
        "held",
        "held_by",
        "line",
        "look_at",
        "most",
        "name",
        "offered",
        "present",
        "settings",
        "since",
        "too_large",
        "turn",
        "turns",
        "unlimited",
        "used",
        "waiting",
        "window",
    )

    def __init__(self, name: str, settings: PoolSettings, window: tuple[float, float]) -> None:
        self.name = name
        self.settings = settings
        self.line = Line()
        self.too_large: dict[int, QueuedTicket] = {}
        self.held = 0
        self.present = 0
        self.waiting = 0
        self.held_by: Counter[str] = Counter()
        self.fence = 0
        self.due_ns = 0
        self.turn = 0
        self.turns: dict[str, int] = {}
        self.look_at = math.inf
        self.window = window
        self.since = window[0]
        self.used = self.offered = 0.0
        self.unlimited = False
        self.most = 0

    @property
    def is_plain(self) -> bool:
        """Whether it has no rate and its order is not fair."""
        return self.settings.rate is None and self.settings.fair_by is None

    @property
    def free(self) -> float:
        limit = self.settings.limit
        return math.inf if limit is None else limit - self.held

    def may_start(self, now: float) -> bool:
        """Whether the rate, if there is one, lets a step start now."""
        rate = self.settings.rate
        return rate is None or rate.ready(self.due_ns, nanoseconds(now)) > 0

    def start(self, now: float) -> None:
        """Count a start by the rate."""
        rate = self.settings.rate
        if rate is not None:
            self.due_ns = rate.due_after_start(self.due_ns, nanoseconds(now))

    def count(self, now: float) -> None:
        """Count the use until now, before it changes."""
        now = min(now, self.window[1])
        if now <= self.since:
            return
        span = now - self.since
        self.since = now
        self.used += self.present * span
        if self.settings.limit is None:
            self.unlimited = True
        else:
            self.offered += self.settings.limit * span

    def take(self, slots: int, group: str, now: float) -> bool:
        """Let slots be held; whether they count, as they do in a pool with a limit."""
        self.count(now)
        self.present += slots
        self.most = max(self.most, self.present)
        if self.settings.limit is None:
            return False
        self.held += slots
        if self.settings.fair_by is not None:
            self.held_by[group] += slots
        return True

    def give_back(self, slots: int, group: str, now: float, *, counts: bool) -> None:
        """Let slots be held no more."""
        self.count(now)
        self.present -= slots
        if counts:
            self.held -= slots
            if self.settings.fair_by is not None:
                self.held_by[group] -= slots

    def stand(self, waiter: QueuedTicket) -> None:
        if waiter.slots <= most_slots(self.name, self.settings.limit, self.settings.limit):
            self.line.add(waiter)
        else:
            self.too_large[waiter.number] = waiter

    def leave(self, waiter: QueuedTicket) -> None:
        if self.too_large.pop(waiter.number, None) is None:
            self.line.remove(waiter)

    def is_behind_impatient(
        self, waiter: QueuedTicket, now: float, patience_seconds: float
    ) -> bool:
        """Whether the waiter cannot reserve slots yet, as far as this pool alone shows it.

        It cannot if the slots of all holders would not be enough, because impatient waiters ahead
        take them first; nor behind more waiters than a decision sees.
        """
        limit = self.settings.limit
        if limit is None or self.settings.fair_by is not None or waiter.number in self.too_large:
            return False
        left = limit - waiter.slots
        for ahead in self.line.front(WAITERS_SEEN_MAX):
            if (-ahead.priority, ahead.number) >= (-waiter.priority, waiter.number):
                return False
            if now - ahead.since > patience_seconds:
                left -= ahead.slots
                if left < 0:
                    return True
        return True  # It is out of sight.

    def view(self) -> PoolView:
        """What a decision sees of it: the front of its queue."""
        limit = self.settings.limit
        if self.settings.fair_by is not None:
            return self._fair_view()
        queue = self.line.front(WAITERS_SEEN_MAX)
        return PoolView(
            pool=self.name,
            settings=self.settings,
            taken=_first_slots(self.held),
            queue=queue,
            whole=len(queue) == len(self.line),
            fence=self.fence,
            limit_known=limit,
            due_ns=self.due_ns,
        )

    def _fair_view(self) -> PoolView:
        found = PoolView(
            pool=self.name,
            settings=self.settings,
            taken=_first_slots(self.held),
            fence=self.fence,
            limit_known=self.settings.limit,
            due_ns=self.due_ns,
            holders=self._holders(),
            turn=self.turn,
        )
        turns = turns_in_force(found, self.turns.items())
        queue = self.line.front(WAITERS_SEEN_MAX, self.held_by, turns, self.turn)
        return replace(found, turns=turns, queue=queue, whole=len(queue) == len(self.line))

    def _holders(self) -> dict[int, str]:
        # Which slot a group holds is all the same to the rules; how many it holds is not.
        groups = (group for group, slots in self.held_by.items() for _ in range(slots))
        return dict(enumerate(groups, start=1))


_SLOTS: list[frozenset[int]] = [frozenset()]


def _first_slots(count: int) -> frozenset[int]:
    while len(_SLOTS) <= count:
        _SLOTS.append(_SLOTS[-1] | {len(_SLOTS)})
    return _SLOTS[count]
