"""The oracle of a world: what the engine promises, by the rows and by what processes were told.

Its arithmetic is its own. It reads the rows of the store, the world's notes of what each run asks
for, and the time; of the engine's decisions it knows nothing.

====  =============================================================  ================================
      What is checked                                                When
====  =============================================================  ================================
S1    Slots held are within the limit, or were before it fell; each  each commit: the pools that it
      slot belongs to one holding, and each holding has its slots    locked; now and then: all pools
S2    The fence of a grant is larger than all before in its pool     each row of the ledger
S3    Grants and ends in the ledger add up to the holdings; each     each row; each commit: the pools
      holding is owned by a session that exists                      that it locked; now and then: all
L1    The first live waiter of all its pools does not stay beside    at rest, in pools without a rate
      free slots that are enough for it
L2    A waiter out of patience that is first is not passed by one    each grant in a pool that is not
      of its priority that came later                                fair, by waiters for one pool
L3    Nothing is held for longer than the lease and one look after   at rest, in pools where somebody
      its last owner fell silent                                     waits
L4    No process believes in a grant that another may have by now    at rest
R1    In no span do more steps start than burst and rate allow       each start
F1    The ticket of the smallest share goes first, if the free       each grant in a fair pool
      slots are enough for it
F2    A ticket whose group holds nothing is passed by few that came  each grant in a fair pool
      later; the pool's turn does not go back                        (``PASSES_MAX``)
F2    No slot is kept free beside tickets of the smallest share      at rest
====  =============================================================  ================================

*At rest* is after all processes that can have done what they had to do. L1 and F2 allow one look
more after a trouble, in which a wake-up may have been lost. What is held up by a session whose lease
is over is not judged at that commit: it depends on the moment at which it is looked at. L1 and L3
are not judged where a pool of the waiter has tickets of dead processes.
"""

from __future__ import annotations

from collections import Counter, defaultdict, deque

from steps import SETTINGS

from dagster_lifeguard.engine.rules.model import EntryKind, TicketKey

LEASE, LOOK_AGAIN, PATIENCE = 10.0, 5.0, 8.0
ALL_EVERY = 50
"""After so many commits all pools are checked, not only those that were locked."""
PASSES_MAX = 40
"""How many later tickets may pass one whose group holds nothing."""

GRANTED, RELEASED, EXPIRED = EntryKind.GRANTED, EntryKind.RELEASED, EntryKind.EXPIRED


class Oracle:
    """Checks one world.

    Attributes:
        told: What the ledger told, in its order.
    """

    def __init__(self, world):
        self.world = world
        self.told = []
        self.held = {pool: {} for pool in SETTINGS}
        self.over = Counter()
        self.fences = Counter()
        self.starts = defaultdict(lambda: deque(maxlen=8))
        self.turn = 0
        self.passes = Counter()
        self.set_at = -1e9
        self.idle_since = {}
        self.first_since = {}
        self.commits = 0

    def clock_was_set(self):
        """Spans of time that contain this moment are not judged."""
        self.starts.clear()
        self.set_at = self.world.clock.now

    def forget_who_waits(self):
        """Somebody looked, or should have looked, at another moment than at rest.

        Since when a waiter could go in is counted from rest to rest. The slots that are free at
        both may have been held at this moment.
        """
        self.idle_since = {}

    # ---- each commit ---------------------------------------------------------------------------

    def committed(self, scope, view):
        """S1 to S3, L2, R1, F1 and F2, after a transaction that locked and saw this."""
        try:
            ledger = self.world.store.rows.ledger
            for entry in ledger:
                self._entry(entry, view)
            ledger.clear()
            self.commits += 1
            if self.commits % ALL_EVERY:
                self._check_pools(scope.pools, view.now)
            else:
                self.check_all(view.now)
        except AssertionError as error:  # A heartbeat would only log it.
            self.world.broken = self.world.broken or error
            raise

    def _entry(self, entry, view):
        kind, pool, run = entry.kind, entry.pool, entry.run_id
        self.told.append((kind.value, pool, run, entry.fence, entry.at))
        if kind is GRANTED:
            assert entry.fence > self.fences[pool], f"S2: fence of {run} in {pool}"
            self.fences[pool] = entry.fence
            assert run not in self.held[pool], f"S3: {run} is granted {pool} twice"
            self.held[pool][run] = entry.slots, entry.fence
            if pool == "rated":
                self._check_rate(entry)
            elif not view.expired:
                (self._check_fair if pool == "fair" else self._check_patience)(entry, view)
        elif kind is RELEASED or kind is EXPIRED:
            ended = self.held[pool].pop(run, None)
            assert ended == (entry.slots, entry.fence), f"S3: end of {run} in {pool}"

    def check_all(self, now=None):
        """S1 and S3 in all pools."""
        self._check_pools(SETTINGS, self.world.clock.database() if now is None else now)

    def _check_pools(self, pools, now):
        rows = self.world.store.rows
        leases = rows.lease_until.keys()
        for pool in pools:
            held, limit = {}, self.world.limit(pool, now)
            for key, holding in rows.holdings.items():
                numbers = holding.slots.get(pool)
                if numbers is not None:
                    held[key.run_id] = len(numbers), holding.fence
                    is_owned = not leases.isdisjoint(rows.owners[key])
                    assert is_owned, f"S3: {key.run_id} holds {pool} under no session"
            assert held == self.held[pool], f"S3: the ledger tells of other holders of {pool}"
            taken = {}
            for key in rows.slots.get(pool, {}).values():
                taken[key.run_id] = taken.get(key.run_id, 0) + 1
            assert taken == {run: slots for run, (slots, _) in held.items()}, (
                f"S1: slots of {pool} are held by nobody, or by two"
            )
            count = sum(taken.values())
            assert count <= max(limit, self.over[pool]), f"S1: {count} of {limit} held in {pool}"
            self.over[pool] = count

    def _check_rate(self, entry):
        rate, starts = SETTINGS["rated"].rate, self.starts["rated"]
        for number, at in enumerate(reversed(starts), start=1):
            least = (number + 1 - rate.burst) * rate.seconds / rate.starts
            assert entry.at - at >= least - 1e-5, f"R1: {number + 1} starts in {entry.at - at} s"
        starts.append(entry.at)

    def _check_patience(self, entry, view):
        """L2, of the first waiter that asks for this pool alone, where that is plain."""
        pool, rows = entry.pool, self.world.store.rows
        if len(view.pools) > 1:
            return
        tickets = [t for t in rows.tickets.values() if pool in t.demand.pools]
        if not any(entry.at - ticket.since > PATIENCE for ticket in tickets):
            return
        tickets = [ticket for ticket in tickets if self._is_live(ticket, entry.at)]
        if not tickets:
            return
        first = min(tickets, key=lambda t: (-t.priority, t.number))
        limit = self.world.limit(pool, entry.at)
        if len(first.demand.terms) > 1 or first.demand.terms[0].slots > limit:
            return
        _, priority, _ = self.world.asked[entry.run_id]
        is_later = not view.tickets or first.number < view.tickets[0].number
        is_passed = first.priority == priority and is_later
        free = limit - sum(slots for slots, _ in self.held[pool].values())
        is_passed = is_passed and first.demand.terms[0].slots > free
        waited = entry.at - first.since
        assert not (is_passed and waited > PATIENCE), f"L2: {first.key.run_id} is passed"

    def _check_fair(self, entry, view):
        rows = self.world.store.rows
        turn = rows.turn.get("fair", 0)
        assert turn >= self.turn, "F2: the turn of the pool goes back"
        self.turn = turn
        run, number = entry.run_id, view.tickets[0].number if view.tickets else None
        self.passes.pop(run, None)
        waiters = self._waiters_of_fair(entry.at)
        if not waiters:
            return
        _, priority, team = self.world.asked[run]
        free = self.world.limit("fair", entry.at) - self.over["fair"]
        held = self._held_by_team(but=run)
        ranks = shares(
            [
                *((t.priority, t.number, *self._team(t)) for t in waiters),
                (priority, number, team, entry.slots),
            ],
            held,
        )
        mine = ranks.pop()
        first, *others = sorted(zip(ranks, waiters, strict=True), key=lambda found: found[0])
        rank, ticket = first
        slots = ticket.demand.terms[0].slots
        is_first = not others or rank < others[0][0]
        assert not (is_first and rank < mine and slots <= free < slots + entry.slots), (
            f"F1: {ticket.key.run_id} has rank {rank}, and {run} with rank {mine} is let in"
        )
        for rank, waiter in zip(ranks, waiters, strict=True):
            of_team, slots = self._team(waiter)
            is_later = number is None or number > waiter.number
            is_passed = is_later and waiter.priority >= priority and team != of_team
            # It could have gone in, and its team holds and asks for nothing ahead of it.
            if is_passed and rank[1] == 0 and slots <= free < slots + entry.slots:
                name = waiter.key.run_id
                self.passes[name] += 1
                assert self.passes[name] <= PASSES_MAX, f"F2: {name} is passed again and again"

    # ---- at rest -------------------------------------------------------------------------------

    def check_at_rest(self):
        """L1, L3, L4 and F2: once all processes that can have done what they had to do."""
        self._check_beliefs()
        world, rows = self.world, self.world.store.rows
        idle = {}
        if rows.tickets:
            now = world.clock.database()
            for names in self._entitled(now):
                idle[names] = self.idle_since.get(names, world.clock.now)
        self.idle_since = idle
        late = world.clock.now - LOOK_AGAIN - 1.0
        idle = {
            names: since
            for names, since in idle.items()
            if since < late or not (world.is_troubled or self._may_not_know(names, late))
        }
        promise = "F2 and L1" if any(pool == "fair" for pool, *_ in idle) else "L1"
        assert not idle, f"{promise}: {idle} wait beside free slots"

    def _check_beliefs(self):
        world, holdings = self.world, self.world.store.rows.holdings
        for process in world.processes:
            if process.is_paused:
                continue
            for run, fence in process.granted.items():
                holding = holdings.get(TicketKey(run, "s"))
                if holding is None or holding.fence != fence:
                    # A clock that was set ahead ends leases early: the next heartbeat tells.
                    is_told_soon = world.clock.now - self.set_at < LEASE
                    assert is_told_soon or process.wire.may_believe(), (
                        f"L4: process {process.number} believes that it holds {run}"
                    )

    def _entitled(self, now):
        """The pool and the run of each waiter that could go in."""
        rows, asking = self.world.store.rows, {}
        live = {session for session, until in rows.lease_until.items() if until > now}
        for ticket in rows.tickets.values():
            for pool in ticket.demand.pools:
                asking.setdefault(pool, []).append(ticket)
        first, since = {}, {}
        for pool, tickets in asking.items():
            if pool in ("rated", "fair") or any(ticket.session not in live for ticket in tickets):
                continue
            found = first[pool] = min(tickets, key=lambda t: (-t.priority, t.number))
            since[pool, found.key.run_id] = self.first_since.get(
                (pool, found.key.run_id), self.world.clock.now
            )
            # A clock that was set ahead ends leases that nobody looked at: not before the next look.
            is_seen = self.world.clock.now - self.set_at > LOOK_AGAIN + 1.0
            if is_seen and len(found.demand.terms) == 1 and self._can_look(found):
                self._check_leases(pool, now)
        self.first_since = since
        for pool, ticket in first.items():
            if all(
                first.get(term.name) is ticket
                and term.slots <= self.world.limit(term.name, now) - self.over[term.name]
                for term in ticket.demand.terms
            ) and self._can_look(ticket):
                yield pool, ticket.key.run_id
        waiters = self._waiters_of_fair(now) if "fair" in asking else []
        if waiters and len(waiters) == len(asking["fair"]):
            ranks = shares(
                [(t.priority, t.number, *self._team(t)) for t in waiters], self._held_by_team()
            )
            best = [t for rank, t in zip(ranks, waiters, strict=True) if rank == min(ranks)]
            free = self.world.limit("fair", now) - self.over["fair"]
            if all(t.demand.terms[0].slots <= free and self._can_look(t) for t in best):
                yield "fair", *(ticket.key.run_id for ticket in best)

    def _may_not_know(self, names, late):
        """Whether a temporary limit ended, of which the waiter did not know at its last look.

        It knows if it was near the front by then.
        """
        pool, run = names[0], names[-1]
        fall_back = self.world.store.rows.settings[pool].fall_back
        if fall_back is None or fall_back.at - self.world.clock.ahead < late:
            return False
        return pool == "fair" or self.first_since[pool, run] > late

    def _check_leases(self, pool, now):
        """L3: whether all owners of a holding have been silent for a lease, and a look more."""
        rows = self.world.store.rows
        for key, holding in rows.holdings.items():
            if pool in holding.slots:
                ends = [rows.lease_until.get(session, 0.0) for session in rows.owners[key]]
                over_at = max(ends, default=0.0) + LOOK_AGAIN + 1.0
                assert over_at >= now, f"L3: {key.run_id} holds {pool} beyond its lease"

    # ---- what is asked and held ----------------------------------------------------------------

    def _is_live(self, ticket, now):
        return self.world.store.rows.lease_until.get(ticket.session, 0.0) > now

    def _can_look(self, ticket):
        """Whether its process could have looked by now."""
        return any(
            process.session.id == ticket.session and process.can_ask
            for process in self.world.processes
        )

    def _waiters_of_fair(self, now):
        """The live waiters of the fair pool that are not too large for it."""
        limit = self.world.limit("fair", now)
        return [
            ticket
            for ticket in self.world.store.rows.tickets.values()
            if ticket.demand.terms[0].name == "fair"
            and ticket.demand.terms[0].slots <= limit
            and self._is_live(ticket, now)
        ]

    def _team(self, ticket):
        return self.world.asked[ticket.key.run_id][2], ticket.demand.terms[0].slots

    def _held_by_team(self, but=None):
        held = Counter()
        for run, (slots, _) in self.held["fair"].items():
            if run != but:
                held[self.world.asked[run][2]] += slots
        return held


def shares(tickets, held):
    """For each ticket minus its priority, and what its team has before it is served.

    Args:
        tickets: Priority, number (None is the newest), team and slots of each.
        held: The slots that each team holds.
    """
    found = []
    for priority, number, team, _ in tickets:
        before = sum(
            slots
            for other, other_number, other_team, slots in tickets
            if other_team == team
            and other_number is not None
            and (-other, other_number) < (-priority, float("inf") if number is None else number)
        )
        found.append((-priority, held[team] + before))
    return found
