"""The world: pools, a simulated clock, and arrivals that the engine's rules decide about.

A heap of events moves the clock from one event to the next. Nothing sleeps and nothing is random,
so the same arrivals always give the same result.

Each decision is that of ``engine.rules`` and ``engine.bookkeeping``, on a view of the front of the
queues. Most decisions follow from the rules without a view, where the order is not fair: a ticket
with no ticket ahead starts if its slots are free and rates let it start, and waits where too few
slots are free.

The world differs from the engine in three ways. A wake-up takes no time. A ticket whose patience
has run out looks again at that moment, and then once per patience, not every few seconds. No
process dies.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING, NamedTuple

from dagster_lifeguard.engine import bookkeeping
from dagster_lifeguard.engine.rules.admission import PATIENCE_SECONDS, next_in_line
from dagster_lifeguard.engine.rules.model import (
    Granted,
    QueuedTicket,
    Ticket,
    View,
)
from dagster_lifeguard.engine.rules.pool_settings import NOTHING_SET
from dagster_lifeguard.engine.rules.rate import nanoseconds, seconds
from dagster_lifeguard.insight.simulation.line import Line
from dagster_lifeguard.insight.simulation.pool import Pool

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from dagster_lifeguard.engine.rules.model import Demand, TicketKey
    from dagster_lifeguard.engine.rules.pool_settings import PoolSettings
    from dagster_lifeguard.engine.store.contract import Changes

_SESSION = "simulation"
_NO_TAGS: Mapping[str, str] = {}
_NOBODY: frozenset[QueuedTicket] = frozenset()


class Arrival(NamedTuple):
    """An execution that asks for slots, holds them and gives them back.

    Attributes:
        key: The step of the run.
        at: When it asks, in seconds since the epoch; with ``after``, in seconds after that end.
        demand: What it asks for.
        seconds: How long it holds.
        priority: The higher goes first.
        tags: Of its run: the groups of fair orders.
        after: The place, among the arrivals, of an earlier arrival that has to end before.
    """

    key: TicketKey
    at: float
    demand: Demand
    seconds: float
    priority: int = 0
    tags: Mapping[str, str] = _NO_TAGS
    after: int | None = None


class Change(NamedTuple):
    """Settings of a pool from a moment on; the limit is the one in force."""

    at: float
    pool: str
    settings: PoolSettings


@dataclass(frozen=True, slots=True)
class Use:
    """How a pool was used within the window.

    Attributes:
        held: Slots held, in slot-seconds; for an unlimited pool, slots asked for.
        offered: Slots that the limit offered, in slot-seconds; None if it was ever unlimited.
        most: The most slots held at once, within the window or outside of it.
    """

    held: float
    offered: float | None
    most: int

    @property
    def share(self) -> float | None:
        """The part of what was offered that was held; None if that is not known."""
        return self.held / self.offered if self.offered else None


@dataclass(slots=True)
class Play:
    """The result of a simulation.

    Attributes:
        asked: When each asked; None if it never did.
        granted: When each went in; None if it never did.
        order: The places of the arrivals in the order in which they went in.
        fences: The fence of each; 0 where all its pools are unlimited.
        use: By pool.
        stood: For how many seconds an arrival stood in the queue of a pool, by its place and the
            pool; without those that never waited. Until the window ended, if it never started.
    """

    asked: list[float | None]
    granted: list[float | None]
    order: list[int] = field(default_factory=list)
    fences: list[int] = field(default_factory=list)
    use: dict[str, Use] = field(default_factory=dict)
    stood: dict[int, dict[str, float]] = field(default_factory=dict)

    def waited(self, place: int) -> float | None:
        """How long an arrival waited; None if it never started."""
        asked, granted = self.asked[place], self.granted[place]
        return None if asked is None or granted is None else granted - asked


def play(
    arrivals: Sequence[Arrival],
    settings: Mapping[str, PoolSettings],
    changes: Iterable[Change] = (),
    *,
    window: tuple[float, float],
    patience_seconds: float = PATIENCE_SECONDS,
) -> Play:
    """Let arrivals ask, wait, hold and release, until no event is left.

    Args:
        arrivals: The arrivals. If several ask at the same moment, the first in the sequence asks
            first.
        settings: The settings of each pool at the beginning, with the limit in force. A pool that
            is missing is unlimited.
        changes: Changes of these settings.
        window: The beginning and end of the time in which the use of pools is counted.
        patience_seconds: How long a ticket lets later ones pass.
    """
    world = _World(arrivals, settings, window, patience_seconds)
    world.run(changes)
    return world.finished()


class _Asking:
    """A ticket that waits or holds."""

    __slots__ = (
        *("arrival", "entered", "groups", "number", "place", "places", "since", "taken", "terms"),
    )

    def __init__(self, place: int, arrival: Arrival, terms: tuple[tuple[Pool, int], ...]) -> None:
        self.place = place
        self.arrival = arrival
        self.terms = terms
        self.number = 0
        self.since: float | None = None
        self.taken: tuple[Pool, ...] = ()
        self.groups = self._groups()
        self.places: dict[str, QueuedTicket] = {}
        self.entered: dict[str, float] = {}

    def _groups(self) -> dict[str, str]:
        return {
            pool.name: self.arrival.tags.get(pool.settings.fair_by, "")
            for pool, _ in self.terms
            if pool.settings.fair_by is not None
        }

    def regroup(self) -> None:
        """Ask by the orders that pools have now."""
        self.groups = self._groups()

    def ticket(self) -> Ticket:
        arrival = self.arrival
        if self.since is None:
            return Ticket(arrival.key, arrival.demand, arrival.priority)
        return Ticket(
            arrival.key,
            arrival.demand,
            arrival.priority,
            self.number,
            self.since,
            tuple(self.places),
            _SESSION,
            self.groups,
        )


# What happens at one moment happens in this order.
_END, _CHANGE, _ARRIVE, _LOOK, _LOOK_AT_POOL = range(5)


class _World:
    def __init__(
        self,
        arrivals: Sequence[Arrival],
        settings: Mapping[str, PoolSettings],
        window: tuple[float, float],
        patience_seconds: float,
    ) -> None:
        self._arrivals = arrivals
        self._window = window
        self._patience = patience_seconds
        self._settings = settings
        self._pools: dict[str, Pool] = {}
        self._terms: dict[Demand, tuple[tuple[Pool, int], ...]] = {}
        self._asking: dict[int, _Asking] = {}
        self._holding: dict[int, _Asking] = {}
        self._followers: dict[int, list[int]] = {}
        self._events: list[tuple[float, int, int, object]] = []
        self._last_event = len(arrivals)
        self._last_number = 0
        self._looks = 0
        count = len(arrivals)
        self._play = Play([None] * count, [None] * count, fences=[0] * count)

    # ---- the clock -----------------------------------------------------------------------------

    def run(self, changes: Iterable[Change]) -> None:
        for place, arrival in enumerate(self._arrivals):
            if arrival.after is None:
                self._events.append((arrival.at, _ARRIVE, place, place))
            else:
                assert arrival.after < place, f"{arrival.key} follows a later arrival"
                self._followers.setdefault(arrival.after, []).append(place)
        for number, change in enumerate(changes):
            self._events.append((change.at, _CHANGE, number, change))
        events = self._events
        heapify(events)
        while events:
            now, kind, _, what = heappop(events)
            if kind == _ARRIVE:
                self._arrive(what, now)  # type: ignore[arg-type]
            elif kind == _END:
                self._end(what, now)  # type: ignore[arg-type]
            elif kind == _LOOK:
                self._look_patiently(what, now)  # type: ignore[arg-type]
            elif kind == _LOOK_AT_POOL:
                assert isinstance(what, Pool)
                if what.look_at == now:
                    what.look_at = math.inf
                    self._settle({what: _NOBODY}, now)
            else:
                self._change(what, now)  # type: ignore[arg-type]

    def _at(self, moment: float, kind: int, what: object) -> None:
        self._last_event += 1
        heappush(self._events, (moment, kind, self._last_event, what))

    def finished(self) -> Play:
        """The play, once nothing happens any more."""
        for name, pool in self._pools.items():
            pool.count(math.inf)
            offered = None if pool.unlimited else pool.offered
            self._play.use[name] = Use(pool.used, offered, pool.most)
        for asking in self._asking.values():
            for name in asking.places:
                self._leave_queue(asking, name, self._window[1])
        return self._play

    # ---- what happens --------------------------------------------------------------------------

    def _arrive(self, place: int, now: float) -> None:
        arrival = self._arrivals[place]
        terms = self._terms.get(arrival.demand)
        if terms is None:
            terms = tuple((self._pool(t.name), t.slots) for t in arrival.demand.terms)
            self._terms[arrival.demand] = terms
        self._play.asked[place] = now
        asking = _Asking(place, arrival, terms)
        left = self._decide(asking, now)
        if left:
            self._settle(dict.fromkeys(left, _NOBODY), now)

    def _end(self, asking: _Asking, now: float) -> None:
        freed: dict[Pool, frozenset[QueuedTicket] | None] = {}
        for pool, slots in asking.terms:
            counts = pool in asking.taken
            if counts and pool.line:
                freed[pool] = self._told(pool, now)
            pool.give_back(slots, asking.groups.get(pool.name, ""), now, counts=counts)
        del self._holding[asking.place]
        for place in self._followers.get(asking.place, ()):
            self._at(now + self._arrivals[place].at, _ARRIVE, place)
        if freed:
            self._settle(freed, now)

    def _look_patiently(self, asking: _Asking, now: float) -> None:
        self._looks -= 1
        if asking.number not in self._asking:
            return
        if len(asking.places) == len(asking.terms):
            return  # It stands at all its pools, so each of them wakes it.
        if len(self._events) > self._looks:  # Else nothing happens any more that could help.
            self._at_patience(asking, now + max(self._patience, 1.0))
        if any(
            self._pools[name].is_behind_impatient(waiter, now, self._patience)
            for name, waiter in asking.places.items()
        ):
            return  # Nobody insists from there.
        left = self._decide(asking, now)
        if left:
            self._settle(dict.fromkeys(left, _NOBODY), now)

    def _at_patience(self, asking: _Asking, moment: float) -> None:
        self._looks += 1
        self._at(moment, _LOOK, asking)

    def _change(self, change: Change, now: float) -> None:
        pool = self._pool(change.pool)
        pool.count(now)
        before, pool.settings = pool.settings, change.settings
        rate = pool.settings.rate
        if rate is not None and rate != before.rate:
            pool.due_ns = rate.taken_over(before.rate, pool.due_ns, nanoseconds(now))
        if pool.settings.fair_by != before.fair_by:
            self._reorder(pool)
        waiting = [*pool.line, *pool.too_large.values()]
        pool.line, pool.too_large = Line(), {}
        for waiter in waiting:
            asking = self._asking[waiter.number]
            waiter = waiter._replace(group=asking.groups.get(pool.name, ""))  # noqa: PLW2901
            asking.places[pool.name] = waiter
            pool.stand(waiter)
        self._settle({pool: _NOBODY}, now)

    def _reorder(self, pool: Pool) -> None:
        pool.turns = {}
        pool.held_by = Counter()
        for asking in (*self._asking.values(), *self._holding.values()):
            if any(term is pool for term, _ in asking.terms):
                asking.regroup()
        if pool.settings.fair_by is not None:
            for asking in self._holding.values():
                for term, slots in asking.terms:
                    if term is pool and pool in asking.taken:
                        pool.held_by[asking.groups[pool.name]] += slots

    # ---- decisions -----------------------------------------------------------------------------

    def _settle(self, pools: Mapping[Pool, frozenset[QueuedTicket] | None], now: float) -> None:
        """Start the tickets that can start after slots of these pools were released.

        All woken tickets look in the order of their ranks, and then the tickets that they wake.

        Args:
            pools: With each pool, the waiters that fitted before. In a pool with a rate these know
                their start time, and are woken only if it is now. None: all waiters know it.
            now: The time.
        """
        while pools:
            woken = {w.number: w for pool in pools for w in self._next_in(pool, pools[pool], now)}
            pools = {}
            for waiter in sorted(woken.values(), key=lambda w: (-w.priority, w.number)):
                asking = self._asking[waiter.number]
                left = self._decide(asking, now)
                if left:
                    told = None if asking.place in self._holding else _NOBODY
                    pools.update(dict.fromkeys(left, told))

    def _next_in(
        self, pool: Pool, told: frozenset[QueuedTicket] | None, now: float
    ) -> Sequence[QueuedTicket]:
        if not pool.line or pool.free <= 0:
            return ()
        if pool.is_plain:
            first = pool.line.first()
            if first.slots == pool.free:
                return (first,)
        found = next_in_line([pool.view()], now, patience_seconds=self._patience)
        rate = pool.settings.rate
        if rate is None or not found:
            return found
        now_ns = nanoseconds(now)
        ready = max(rate.ready(pool.due_ns, now_ns), 0)
        if ready < len(found):
            self._look_at_pool(pool, seconds(rate.start_at(pool.due_ns, now_ns, ready + 1)))
        if told is None:
            return found[:ready]
        return [w for place, w in enumerate(found) if place < ready or w not in told]

    def _told(self, pool: Pool, now: float) -> frozenset[QueuedTicket] | None:
        """The waiters that fit as it is; of interest only where there is a rate."""
        if pool.settings.rate is None or pool.free <= 0:
            return _NOBODY
        return frozenset(next_in_line([pool.view()], now, patience_seconds=self._patience))

    def _look_at_pool(self, pool: Pool, at: float) -> None:
        if at < pool.look_at:
            pool.look_at = at
            self._at(at, _LOOK_AT_POOL, pool)

    def _decide(self, asking: _Asking, now: float) -> list[Pool] | None:
        """Look again, or for the first time.

        Returns:
            None if the ticket waits where it stood. Else where something changed, for others to
            look at: the pools whose queue it left.
        """
        full = self._full_at(asking, now)
        left: list[Pool] | None
        if full is not None:
            if full:
                return self._stand(asking, (_worst(full),), now)
            left = [self._pools[name] for name in asking.places]
            for pool, _ in asking.terms:
                pool.start(now)
            self._let_in(asking, now)
            return left
        ticket = asking.ticket()
        view = View(
            now=now,
            session_alive=True,
            lease_ends=None,
            pools={pool.name: pool.view() for pool, _ in asking.terms},
            tickets=() if asking.since is None else (ticket,),
        )
        verdict, changes = bookkeeping.claimed(
            view, ticket, asking.groups, _SESSION, self._patience
        )
        if isinstance(verdict, Granted):
            left = [self._pools[name] for name in asking.places]
            self._let_in(asking, now, verdict.fence)
        else:
            left = self._stand(asking, verdict.queue_at, now)
        if changes is not None:
            self._write(changes)
        if not verdict.granted and verdict.ready_at is not None:
            self._look_at_pool(self._pools[verdict.pool], verdict.ready_at)
        return left

    def _full_at(self, asking: _Asking, now: float) -> list[tuple[Pool, int]] | None:
        """The pools that have too few free slots, if nothing else holds the ticket up.

        None if that takes a view: others are ahead where there are slots, or the ticket may insist.
        """
        if len(asking.terms) > 1 and self._is_impatient(asking, now):
            return None
        rank = (-asking.arrival.priority, asking.number or math.inf)
        full = []
        for pool, slots in asking.terms:
            if pool.settings.fair_by is not None:
                return None
            if slots > pool.free:
                full.append((pool, slots))
            elif not (pool.line.is_first(rank) and pool.may_start(now)):
                return None
        return full

    def _is_impatient(self, asking: _Asking, now: float) -> bool:
        return asking.since is not None and now - asking.since > self._patience

    def _write(self, changes: Changes) -> None:
        for name, due_ns in changes.due:
            self._pools[name].due_ns = due_ns
        for name, group, begins, turn in changes.turns:
            pool = self._pools[name]
            pool.turns[group] = begins
            pool.turn = turn
            in_line = pool.line.groups | {waiter.group for waiter in pool.too_large.values()}
            pool.turns = {g: at for g, at in pool.turns.items() if at > turn or g in in_line}

    def _stand(self, asking: _Asking, queue_at: Sequence[str], now: float) -> list[Pool] | None:
        if asking.since is None:
            self._last_number += 1
            asking.number, asking.since = self._last_number, now
            self._asking[asking.number] = asking
            if len(asking.terms) > 1:
                # Out of patience is more than that long.
                self._at_patience(asking, math.nextafter(now + self._patience, math.inf))
        elif asking.places.keys() == set(queue_at):
            return None
        left = [self._pools[name] for name in asking.places if name not in queue_at]
        for pool in left:
            pool.leave(asking.places.pop(pool.name))
            self._leave_queue(asking, pool.name, now)
        for pool, slots in asking.terms:
            if pool.name in queue_at and pool.name not in asking.places:
                asking.entered[pool.name] = now
                arrival = asking.arrival
                waiter = QueuedTicket(
                    asking.number,
                    arrival.priority,
                    slots,
                    asking.since,
                    arrival.key,
                    _SESSION,
                    asking.groups.get(pool.name, ""),
                )
                asking.places[pool.name] = waiter
                pool.stand(waiter)
        return left

    def _leave_queue(self, asking: _Asking, pool: str, now: float) -> None:
        stood = self._play.stood.setdefault(asking.place, {})
        stood[pool] = stood.get(pool, 0.0) + max(0.0, now - asking.entered[pool])

    def _let_in(self, asking: _Asking, now: float, fence: int | None = None) -> None:
        limited = [pool for pool, _ in asking.terms if pool.settings.limit is not None]
        if fence is None:
            fence = 1 + max(pool.fence for pool in limited) if limited else 0
        for pool in limited:
            pool.fence = fence
        taken = []
        for pool, slots in asking.terms:
            if pool.take(slots, asking.groups.get(pool.name, ""), now):
                taken.append(pool)
            waiter = asking.places.pop(pool.name, None)
            if waiter is not None:
                pool.leave(waiter)
                self._leave_queue(asking, pool.name, now)
        asking.taken = tuple(taken)
        self._asking.pop(asking.number, None)
        place = asking.place
        self._holding[place] = asking
        self._play.granted[place] = now
        self._play.order.append(place)
        self._play.fences[place] = fence
        self._at(now + asking.arrival.seconds, _END, asking)

    def _pool(self, name: str) -> Pool:
        found = self._pools.get(name)
        if found is None:
            settings = self._settings.get(name, NOTHING_SET)
            found = self._pools[name] = Pool(name, settings, self._window)
        return found


def _worst(full: Sequence[tuple[Pool, int]]) -> str:
    """Of the pools with too few free slots the one that admission lets a ticket wait at."""

    def badness(term: tuple[Pool, int]) -> tuple[int, str]:
        pool, slots = term
        limit = pool.settings.limit
        if limit == 0:
            return 1, pool.name
        return (0 if limit is not None and slots > limit else 2), pool.name

    pool, _ = min(full, key=badness)
    return pool.name
