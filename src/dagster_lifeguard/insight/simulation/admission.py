"""Which tickets of a world start: they ask at its pools, wait, hold and release.

Each decision is that of ``engine.rules`` and ``engine.bookkeeping``, on a view of the front of the
queues. Most decisions follow from the rules without a view: a ticket that no ticket is ahead of
starts if its slots are free and rates let it start; a ticket that has to be patient waits where too
few slots are free; and a ticket that asks for one pool waits there while its rate lets none start.

A wake-up takes no time. A ticket whose patience has run out looks again at that moment, and then
once per patience, not every few seconds as in the engine.
"""

from __future__ import annotations

import math
from collections import Counter
from itertools import islice
from typing import TYPE_CHECKING

from dagster_lifeguard.engine import bookkeeping
from dagster_lifeguard.engine.rules.model import Granted, QueuedTicket, View
from dagster_lifeguard.engine.rules.pool_settings import NOTHING_SET
from dagster_lifeguard.engine.rules.rate import nanoseconds, seconds
from dagster_lifeguard.insight.simulation.asking import SESSION, Asking
from dagster_lifeguard.insight.simulation.events import END, LOOK, LOOK_AT_POOL
from dagster_lifeguard.insight.simulation.line import Line
from dagster_lifeguard.insight.simulation.outcome import Use
from dagster_lifeguard.insight.simulation.pool import Pool

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from dagster_lifeguard.engine.rules.pool_settings import PoolSettings
    from dagster_lifeguard.insight.simulation.arrivals import Arrival, Change, Start
    from dagster_lifeguard.insight.simulation.events import Events
    from dagster_lifeguard.insight.simulation.outcome import Play

_NOBODY: frozenset[int] = frozenset()


class Admission:
    """The pools of a world, and the tickets at them.

    Args:
        settings: The settings of each pool at the beginning. A pool that is missing is unlimited.
        window: The time in which the use of pools is counted.
        patience_seconds: How long a ticket lets later ones pass.
        events: The clock.
        play: Where it is written down what happens.

    Attributes:
        fair_by: For each pool with a fair order now, the tag whose values are its groups.
    """

    def __init__(
        self,
        settings: Mapping[str, PoolSettings],
        window: tuple[float, float],
        patience_seconds: float,
        events: Events,
        play: Play,
    ) -> None:
        self._window = window
        self._patience = patience_seconds
        self._settings = settings
        self.fair_by = {p: s.fair_by for p, s in settings.items() if s.fair_by is not None}
        self._pools: dict[str, Pool] = {}
        # By the id of the demand, which lives as long as its arrival: many arrivals share one.
        self._terms: dict[int, tuple[tuple[Pool, int], ...]] = {}
        self._asking: dict[int, Asking] = {}
        self._holding: dict[int, Asking] = {}
        self._events = events
        self._last_number = 0
        self._looks = 0
        self._play = play

    def finish(self) -> None:
        """Write down how the pools were used, once nothing happens any more."""
        for name, pool in self._pools.items():
            pool.count(math.inf)
            offered = None if pool.unlimited else pool.offered
            self._play.use[name] = Use(pool.used, offered, pool.most)
        for asking in self._asking.values():
            for name in asking.places:
                self._leave_queue(asking, self._pools[name], self._window[1])

    def resume(self, start: Start, arrivals: Sequence[Arrival]) -> None:
        """Let tickets hold and wait that do so at the start, whatever the rules say of holders.

        The waiters look in the order of their ranks, so those that can start do.
        """
        for name, due_ns in start.due_ns.items():
            self.pool(name).due_ns = due_ns
        for place in start.holding:
            self._let_in(self._asking_of(place, arrivals[place]), start.at)
        waiting = []
        for place, since in start.waiting:
            asking = self._asking_of(place, arrivals[place])
            self._play.asked[place] = since
            self._enter(asking, since, start.at)
            waiting.append(asking)
        for asking in sorted(waiting, key=lambda a: (-a.arrival.priority, a.number)):
            left = self._decide(asking, start.at)
            if left:
                self._settle(dict.fromkeys(left, _NOBODY), start.at)

    def ask(self, place: int, arrival: Arrival, now: float) -> None:
        """Let an arrival ask for its slots."""
        self._play.asked[place] = now
        left = self._decide(self._asking_of(place, arrival), now)
        if left:
            self._settle(dict.fromkeys(left, _NOBODY), now)

    def _asking_of(self, place: int, arrival: Arrival) -> Asking:
        terms = self._terms.get(id(arrival.demand))
        if terms is None:
            terms = tuple((self.pool(t.name), t.slots) for t in arrival.demand.terms)
            self._terms[id(arrival.demand)] = terms
        return Asking(place, arrival, terms)

    def release(self, asking: Asking, now: float) -> None:
        """Let a ticket give back its slots."""
        freed: dict[Pool, frozenset[int] | None] = {}
        for pool, slots in asking.terms:
            counts = pool in asking.taken
            if counts and pool.line:
                freed[pool] = self._told(pool, now)
            pool.give_back(slots, asking.groups.get(pool.name, ""), now, counts=counts)
        del self._holding[asking.place]
        if freed:
            self._settle(freed, now)

    def look_at_pool(self, pool: Pool, now: float) -> None:
        """Let the next waiter of a pool start, if its rate was to let it start now."""
        if pool.look_at == now:
            pool.look_at = math.inf
            self._settle({pool: _NOBODY}, now)

    def look_patiently(self, asking: Asking, now: float) -> None:
        """Let a ticket whose patience is over look again."""
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

    def _at_patience(self, asking: Asking, moment: float) -> None:
        self._looks += 1
        self._events.at(moment, LOOK, asking)

    def change(self, change: Change, now: float) -> None:
        """Change the settings of a pool."""
        pool = self.pool(change.pool)
        pool.count(now)
        before = pool.settings
        pool.change(change.settings)
        rate = pool.settings.rate
        if rate is not None and rate != before.rate:
            pool.due_ns = rate.taken_over(before.rate, pool.due_ns, nanoseconds(now))
        if pool.settings.fair_by != before.fair_by:
            self._reorder(pool)
            self.fair_by.pop(pool.name, None)
            if pool.settings.fair_by is not None:
                self.fair_by[pool.name] = pool.settings.fair_by
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

    def _settle(self, pools: Mapping[Pool, frozenset[int] | None], now: float) -> None:
        """Start the tickets that can start after slots of these pools were released.

        All woken tickets look in the order of their ranks, and then the tickets that they wake.

        Args:
            pools: With each pool, the numbers of the waiters that fitted before. In a pool with a
                rate these know their start time, and are woken only if it is now. None: all waiters
                know it.
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
        self, pool: Pool, told: frozenset[int] | None, now: float
    ) -> Sequence[QueuedTicket]:
        if not pool.line or pool.free <= 0:
            return ()
        fitting = pool.fitting(now, self._patience)
        rate = pool.settings.rate
        if rate is None:
            return tuple(fitting)
        now_ns = nanoseconds(now)
        ready = max(rate.ready(pool.due_ns, now_ns), 0)
        if self._is_simple(pool):
            told, fitting = None, islice(fitting, ready + 1)
        found = tuple(fitting)
        if ready < len(found):
            self._look_at_pool(pool, seconds(rate.start_at(pool.due_ns, now_ns, ready + 1)))
        if told is None:
            return found[:ready]
        return [w for place, w in enumerate(found) if place < ready or w.number not in told]

    def _told(self, pool: Pool, now: float) -> frozenset[int]:
        """The waiters that fit as it is; of interest only where there is a rate."""
        if pool.settings.rate is None or pool.free <= 0 or self._is_simple(pool):
            return _NOBODY
        return frozenset(waiter.number for waiter in pool.fitting(now, self._patience))

    @staticmethod
    def _is_simple(pool: Pool) -> bool:
        """Whether waiters that the rate lets not start yet need not look: all would stay there."""
        return not pool.several and pool.settings.fair_by is None

    def _look_at_pool(self, pool: Pool, at: float) -> None:
        if at < pool.look_at:
            pool.look_at = at
            self._events.at(at, LOOK_AT_POOL, pool)

    def _decide(self, asking: Asking, now: float) -> list[Pool] | None:
        """Look again, or for the first time.

        Returns:
            None if the ticket waits where it stood. Else where something changed, for others to
            look at: the pools whose queue it left.
        """
        queue_at = self._without_view(asking, now)
        if queue_at is None:
            return self._with_view(asking, now)
        if queue_at:
            left = self._stand(asking, queue_at, now)
            for pool, _ in asking.terms:
                pool.correct_due(now)
            for name in queue_at if asking.groups else ():
                self._pools[name].begin_turn(asking.groups.get(name))
            return left
        left = [self._pools[name] for name in asking.places]
        turns = [
            (pool, group, pool.turns_after(group, asking.arrival.priority, slots))
            for pool, slots in asking.terms
            for group in (asking.groups.get(pool.name),)
            if group is not None and pool.settings.limit is not None
        ]
        for pool, _ in asking.terms:
            pool.start(now)
        self._let_in(asking, now)
        for pool, group, (begins, turn) in turns:
            pool.write_turns(group, begins, turn)
        return left

    def _without_view(self, asking: Asking, now: float) -> tuple[str, ...] | None:
        """The pool that the ticket waits at; empty: it starts; None: only a view can tell."""
        full = [(pool, slots) for pool, slots in asking.terms if slots > pool.free]
        is_alone = len(asking.terms) == 1
        if full:
            return (_worst(full),) if is_alone or not self._is_impatient(asking, now) else None
        priority, number = asking.arrival.priority, asking.number or math.inf
        for pool, _ in asking.terms:
            if pool.is_open:
                continue
            start_at = pool.start_at(now)
            is_known = start_at is not None and is_alone and pool.look_at <= start_at
            if is_known:
                return (pool.name,)
            if not pool.is_first(priority, number, asking.groups.get(pool.name, "")):
                return None
            if start_at is not None:
                if not is_alone:
                    return None
                self._look_at_pool(pool, start_at)
                return (pool.name,)
        return ()

    def _is_impatient(self, asking: Asking, now: float) -> bool:
        return asking.since is not None and now - asking.since > self._patience

    def _with_view(self, asking: Asking, now: float) -> list[Pool] | None:
        ticket = asking.ticket()
        view = View(
            now=now,
            session_alive=True,
            lease_ends=None,
            pools={pool.name: pool.view() for pool, _ in asking.terms},
            tickets=() if asking.since is None else (ticket,),
        )
        verdict, changes = bookkeeping.claimed(view, ticket, asking.groups, SESSION, self._patience)
        left: list[Pool] | None
        if isinstance(verdict, Granted):
            left = [self._pools[name] for name in asking.places]
            self._let_in(asking, now, verdict.fence)
        else:
            left = self._stand(asking, verdict.queue_at, now)
        if changes is not None:
            for name, due_ns in changes.due:
                self._pools[name].due_ns = due_ns
            for name, group, begins, turn in changes.turns:
                self._pools[name].write_turns(group, begins, turn)
        if not verdict.granted and verdict.ready_at is not None:
            self._look_at_pool(self._pools[verdict.pool], verdict.ready_at)
        return left

    def _stand(self, asking: Asking, queue_at: Sequence[str], now: float) -> list[Pool] | None:
        if asking.since is None:
            self._enter(asking, now, now)
        elif asking.places.keys() == set(queue_at):
            return None
        assert asking.since is not None
        left = [self._pools[name] for name in asking.places if name not in queue_at]
        for pool in left:
            pool.leave(asking.places.pop(pool.name))
            self._leave_queue(asking, pool, now)
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
                    SESSION,
                    asking.groups.get(pool.name, ""),
                )
                asking.places[pool.name] = waiter
                pool.stand(waiter)
                pool.several += len(asking.terms) > 1
        return left

    def _enter(self, asking: Asking, since: float, now: float) -> None:
        """Give a ticket its number: it waits since then, and stands nowhere yet."""
        self._last_number += 1
        asking.number, asking.since = self._last_number, since
        self._asking[asking.number] = asking
        asking.places, asking.entered = {}, {}
        for pool, _ in asking.terms:
            pool.waiting += 1
        if len(asking.terms) > 1:
            # Out of patience is more than that long.
            moment = max(now, math.nextafter(since + self._patience, math.inf))
            self._at_patience(asking, moment)

    def _leave_queue(self, asking: Asking, pool: Pool, now: float) -> None:
        pool.several -= len(asking.terms) > 1
        stood = self._play.stood.setdefault(asking.place, {})
        stood[pool.name] = stood.get(pool.name, 0.0) + max(0.0, now - asking.entered[pool.name])

    def _let_in(self, asking: Asking, now: float, fence: int | None = None) -> None:
        place, terms = asking.place, asking.terms
        for pool, slots in terms:
            pool.take(slots, asking.groups.get(pool.name, ""), now)
        taken = asking.taken = tuple([pool for pool, _ in terms if pool.settings.limit is not None])
        if fence is None:
            fence = 1 + max([pool.fence for pool in taken]) if taken else 0
        for pool in taken:
            pool.fence = fence
        if asking.number:
            del self._asking[asking.number]
            for pool, _ in terms:
                pool.waiting -= 1
                waiter = asking.places.pop(pool.name, None)
                if waiter is not None:
                    pool.leave(waiter)
                    self._leave_queue(asking, pool, now)
        self._holding[place] = asking
        self._play.granted[place] = now
        self._play.awaited.discard(place)
        self._play.order.append(place)
        self._play.fences[place] = fence
        self._events.at(now + asking.arrival.seconds, END, asking)

    def limit_of(self, name: str) -> int | None:
        """The limit of a pool as it is now; None if it is unlimited."""
        return self.pool(name).settings.limit

    def pool(self, name: str) -> Pool:
        """The pool of this name."""
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
