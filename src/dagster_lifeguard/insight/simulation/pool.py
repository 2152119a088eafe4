"""One pool of the world: its row, its queue, and how its slots were used."""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING

from dagster_lifeguard.engine.rules.admission import fitting
from dagster_lifeguard.engine.rules.model import WAITERS_SEEN_MAX, PoolView
from dagster_lifeguard.engine.rules.order import earliest_turn, turns_after
from dagster_lifeguard.engine.rules.pool_settings import most_slots
from dagster_lifeguard.engine.rules.rate import nanoseconds, seconds
from dagster_lifeguard.insight.simulation.line import Line

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from dagster_lifeguard.engine.rules.model import QueuedTicket
    from dagster_lifeguard.engine.rules.order import Rank
    from dagster_lifeguard.engine.rules.pool_settings import PoolSettings


class Pool:
    """The row of one pool.

    Attributes:
        grantable: The most slots that it can grant at once.
        held: Held slots that count against the limit.
        present: All held slots, also of holders that started while there was no limit.
        waiting: How many tickets wait that ask for it, wherever they stand.
        several: How many tickets stand in its queue that ask for other pools too.
        line: The queue, without tickets that ask for more slots than the limit.
        look_at: When the next waiter has to look whether the rate lets it start.
        since: The time up to which the use was counted.
        used: The use in the window so far, in slot-seconds; the same unit as ``offered``.
    """

    __slots__ = (
        "due_ns",
        "fence",
        "grantable",
        "held",
        "held_by",
        "line",
        "look_at",
        "most",
        "name",
        "offered",
        "present",
        "settings",
        "several",
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
        self.change(settings)
        self.line = Line()
        self.too_large: dict[int, QueuedTicket] = {}
        self.held = 0
        self.present = 0
        self.waiting = 0
        self.several = 0
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

    def change(self, settings: PoolSettings) -> None:
        """Set other settings."""
        self.settings = settings
        self.grantable = most_slots(self.name, settings.limit, settings.limit)

    @property
    def is_open(self) -> bool:
        """Whether it holds nobody up: it has neither a limit nor a rate."""
        return self.settings.limit is None and self.settings.rate is None

    @property
    def free(self) -> float:
        limit = self.settings.limit
        return math.inf if limit is None else limit - self.held

    def start_at(self, now: float) -> float | None:
        """When the rate lets the next step start; None: at once."""
        rate = self.settings.rate
        if rate is None:
            return None
        now_ns = nanoseconds(now)
        at_ns = rate.start_at(self.due_ns, now_ns)
        return seconds(at_ns) if at_ns > now_ns else None

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

    def take(self, slots: int, group: str, now: float) -> None:
        """Let slots be held; they count if the pool has a limit."""
        self.count(now)
        self.present += slots
        self.most = max(self.most, self.present)
        if self.settings.limit is not None:
            self.held += slots
            if self.settings.fair_by is not None:
                self.held_by[group] += slots

    def give_back(self, slots: int, group: str, now: float, *, counts: bool) -> None:
        """Let slots be held no more."""
        self.count(now)
        self.present -= slots
        if counts:
            self.held -= slots
            if self.settings.fair_by is not None:
                self.held_by[group] -= slots

    def stand(self, waiter: QueuedTicket) -> None:
        if waiter.slots <= self.grantable:
            self.line.add(waiter)
        else:
            self.too_large[waiter.number] = waiter

    def leave(self, waiter: QueuedTicket) -> None:
        if self.too_large.pop(waiter.number, None) is None:
            self.line.remove(waiter)

    def first(self) -> QueuedTicket:
        """The best-ranked waiter in line; there is one."""
        heads = self.line.heads
        if self.settings.fair_by is None:
            return next(heads)
        return min(heads, key=lambda head: self._rank(head.priority, head.number, head.group))

    def is_first(self, priority: int, number: float, group: str) -> bool:
        """Whether no waiter is ahead of a ticket, which may be in line itself."""
        if not self.line:
            return True
        first = self.first()
        if first.number == number:
            return True
        mine = self._rank(priority, number, group)
        if mine > self._rank(first.priority, first.number, first.group):
            return False
        own = self.line.head(group)
        return own is None or (-priority, number) <= (-own.priority, own.number)

    def _rank(self, priority: int, number: float, group: str) -> Rank:
        """The rank of a ticket that no ticket of its group is ahead of; see ``order``."""
        if self.settings.fair_by is None:
            return -priority, 0, 0, number
        begins = max(self.turns.get(group, self.turn), earliest_turn(self.turn, self.grantable))
        return -priority, self.held_by[group], begins, number

    def turns_after(self, group: str, priority: int, slots: int) -> tuple[int, int]:
        """See ``order``: the turns after a ticket that no waiter is ahead of is granted slots."""
        is_in_sight = len(self.line) <= WAITERS_SEEN_MAX
        view = self._fair_view(tuple(self.line.heads) if is_in_sight else None)
        return turns_after(group, priority, slots, view)

    def begin_turn(self, group: str | None) -> None:
        """Note where the turn of a group begins that a ticket in the queue is the first of."""
        if group is not None and group not in self.turns:
            self.write_turns(group, self.turn, self.turn)

    def write_turns(self, group: str, begins: int, turn: int) -> None:
        """Note where the next turn of a group begins, and the pool's turn."""
        self.turns[group] = begins
        self.turn = turn
        in_line = self.line.groups | {waiter.group for waiter in self.too_large.values()}
        self.turns = {g: at for g, at in self.turns.items() if at > turn or g in in_line}

    def correct_due(self, now: float) -> None:
        """Note what is due by the rate if the clock was set back; see ``rate``."""
        rate = self.settings.rate
        if rate is not None:
            self.due_ns = rate.corrected(self.due_ns, nanoseconds(now))

    def fitting(self, now: float, patience_seconds: float) -> Iterator[QueuedTicket]:
        """The waiters to wake; see ``next_in_line``."""
        if not self.line:
            return iter(())
        first = self.first()
        if first.slots == self.free:
            return iter((first,))
        queue: Iterable[QueuedTicket]
        if self.settings.fair_by is None:
            queue = self.line.in_order(WAITERS_SEEN_MAX)
        else:
            queue = self._fair_view().queue
        return fitting(queue, self.free, self.settings.limit, now, patience_seconds)

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

    def _fair_view(self, queue: tuple[QueuedTicket, ...] | None = None) -> PoolView:
        """The view of a fair pool.

        Args:
            queue: The waiters to see; None: the front of the queue.
        """
        earliest = earliest_turn(self.turn, self.grantable)
        turns = {group: max(begins, earliest) for group, begins in self.turns.items()}
        if queue is None:
            queue = self.line.front(WAITERS_SEEN_MAX, self.held_by, turns, self.turn)
        return PoolView(
            pool=self.name,
            settings=self.settings,
            taken=_first_slots(self.held),
            queue=queue,
            whole=len(queue) == len(self.line),
            fence=self.fence,
            limit_known=self.settings.limit,
            due_ns=self.due_ns,
            holders=self._holders(),
            turn=self.turn,
            turns=turns,
        )

    def _holders(self) -> dict[int, str]:
        # Which slot a group holds is all the same to the rules; how many it holds is not.
        groups = (group for group, slots in self.held_by.items() for _ in range(slots))
        return dict(enumerate(groups, start=1))


_SLOTS: list[frozenset[int]] = [frozenset()]


def _first_slots(count: int) -> frozenset[int]:
    while len(_SLOTS) <= count:
        _SLOTS.append(_SLOTS[-1] | {len(_SLOTS)})
    return _SLOTS[count]
