"""The whole engine in one thread, by seed: processes, one store, and a clock that a seed moves.

A seed is a list of steps. Each says what a process does, or what happens to it: it claims, releases,
adopts, beats, pauses, dies, hears no wake-ups, or reaches no database; a limit changes, for good or
until a time, the clock is set. Engines, sessions, leases and heartbeats are the real ones; only threads and clocks are not. So
the same steps always end in the same way, and nothing sleeps.

After each step the ``Oracle`` checks what must always be true, by the rows of the store and by what
the processes were told, with arithmetic of its own. Where that fails, ``shorten`` leaves out steps
as long as it fails still.

    python tests/races/seeded.py --seed 17 --steps 20000
"""

from __future__ import annotations

import logging
import math
import random
import sys
from collections import Counter, defaultdict, deque
from contextlib import ExitStack, contextmanager
from functools import partial
from types import SimpleNamespace
from unittest.mock import patch

import click

from dagster_lifeguard.engine.engine import Engine
from dagster_lifeguard.engine.engine_options import EngineOptions
from dagster_lifeguard.engine.heartbeat import Heartbeat
from dagster_lifeguard.engine.rules.model import Demand, EntryKind, TicketKey
from dagster_lifeguard.engine.rules.pool_settings import PoolSettings
from dagster_lifeguard.engine.rules.rate import Rate
from dagster_lifeguard.engine.store.contract import TryAgainError
from dagster_lifeguard.engine.store.memory.store import MemoryStore

PROCESSES = 4
TICKETS_MAX = 4
"""So many tickets a process has at once."""
LEASE, LOOK_AGAIN, PATIENCE = 10.0, 5.0, 8.0
EPOCH = 1_700_000_000.0

SETTINGS = {
    "one": PoolSettings(1),
    "two": PoolSettings(2),
    "three": PoolSettings(3),
    "rated": PoolSettings(2, Rate(1, 1, 2)),
    "fair": PoolSettings(2, None, "team"),
}
DEMANDS = tuple(
    Demand.of(slots)
    for slots in (
        *({"one": 1}, {"two": 1}, {"two": 2}, {"three": 1}, {"three": 2}, {"three": 3}),
        *({"one": 1, "three": 2}, {"two": 1, "three": 1}, {"rated": 1}, {"fair": 1}, {"fair": 2}),
    )
)

WEIGHTS = {
    "time": 40,
    "ask": 160,
    "release": 160,
    "amid": 10,
    "pause": 1,
    "resume": 6,
    "crash": 1,
    "cut": 1,
    "mend": 6,
    "deaf": 2,
    "falter": 2,
    "adopt": 3,
    "leave": 1,
    "limit": 1,
    "clock": 1,
}
"""The kinds of steps, and how often each comes."""


def steps_of(seed, count):
    """The steps of a seed: kind, process, and a number that each kind takes as it needs."""
    draws = random.Random(seed)
    kinds = draws.choices(list(WEIGHTS), weights=list(WEIGHTS.values()), k=count)
    return [(kind, draws.randrange(PROCESSES), draws.randrange(1_000_000)) for kind in kinds]


class BrokenPromiseError(AssertionError):
    """A promise was broken, at this step."""

    def __init__(self, place, step, why):
        super().__init__(f"step {place}, {step}: {why!r}")
        self.place = place


def play(steps, *, seed=0):
    """Play steps from the beginning.

    Returns:
        The world.

    Raises:
        BrokenPromiseError: What must always be true was not.
    """
    with _one_thread() as clock:
        world = World(clock, seed)
        for place, step in enumerate(steps):
            try:
                world.step(*step)
            except Exception as why:
                raise BrokenPromiseError(place, step, why) from why
        return world


def shorten(steps, fails, tries_max=2000):
    """The fewest steps that still fail, as far as leaving out parts of them finds.

    Args:
        steps: They fail.
        fails: Whether steps fail.
        tries_max: How often that is tried.
    """
    size = len(steps) // 2
    while size:
        start = 0
        while start < len(steps) and tries_max:
            tries_max -= 1
            fewer = steps[:start] + steps[start + size :]
            if fails(fewer):
                steps = fewer
            else:
                start += size
        size //= 2
    return steps


def broken(steps, seed=0):
    """What steps break; None if they break nothing."""
    try:
        play(steps, seed=seed)
    except BrokenPromiseError as found:
        return found
    return None


def shortest(steps, seed=0):
    """The fewest steps found that break something as these do, and what."""
    found = broken(steps, seed)
    assert found is not None
    steps = shorten(steps[: found.place + 1], lambda fewer: broken(fewer, seed) is not None)
    return steps, broken(steps, seed)


# ---- one thread, one clock -----------------------------------------------------------------------


class Clock:
    """The time of all processes, and by how much the database's clock differs."""

    def __init__(self):
        self.now = 1000.0
        self.ahead = EPOCH

    def monotonic(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds

    def database(self):
        return round(self.now + self.ahead, 6)


class InlineThread:
    """A thread that does all it does when it is started."""

    def __init__(self, target, args=(), **_):
        self.start = lambda: target(*args)

    def join(self, timeout=None):
        """It is over."""


class DrivenHeartbeat(Heartbeat):
    """A heartbeat that looks when the world says so."""

    started: list = []  # noqa: RUF012 - emptied by each world

    def start(self):
        self.started.append(self)


@contextmanager
def _one_thread():
    clock = Clock()
    ids = iter(range(10**9))
    threads = SimpleNamespace(Thread=InlineThread, Event=lambda: SimpleNamespace(set=lambda: None))
    engine = "dagster_lifeguard.engine."
    with ExitStack() as stack:
        for module in ("engine", "session_member", "transactions", "store.retry", "store.viewed"):
            stack.enter_context(patch(f"{engine}{module}.time", clock))
        for module in ("session", "heartbeat", "lease"):
            stack.enter_context(patch(f"{engine}{module}.process_clock", clock.monotonic))
        for module in ("engine", "heartbeat"):
            stack.enter_context(patch(f"{engine}{module}.threading", threads))
        new_id = SimpleNamespace(uuid4=lambda: SimpleNamespace(hex=f"session{next(ids)}"))
        stack.enter_context(patch(f"{engine}session.uuid", new_id))
        stack.enter_context(patch(f"{engine}session.Heartbeat", DrivenHeartbeat))
        yield clock


class Wire:
    """The store as one process reaches it."""

    def __init__(self, store, clock):
        self._store = store
        self._clock = clock
        self.is_cut = self.is_deaf = False
        self.falters = 0
        self.answered_at = self.asking_since = None

    def heard(self, verb, *args, **named):
        """Remember when the database last answered a heartbeat, and since when it does not."""
        now = self._clock.now
        try:
            found = self.ask(verb, *args, **named)
        except TryAgainError:
            self.asking_since = now if self.asking_since is None else self.asking_since
            raise
        self.answered_at, self.asking_since = now, None
        return found

    def heartbeat(self, *args):
        return self.heard("heartbeat", *args)

    def open_session(self, *args, **named):
        return self.heard("open_session", *args, **named)

    def may_believe(self):
        """Whether its process may still believe in what it was granted, as nobody answers it."""
        if self.asking_since is None:
            return False
        return self._clock.now < max(self.answered_at + LEASE, self.asking_since + 1.0)

    def __getattr__(self, name):
        found = getattr(self._store, name)
        return partial(self.ask, name) if callable(found) else found

    def ask(self, name, *args, **named):
        if self.is_cut:
            raise TryAgainError("cut")
        if self.falters:
            self.falters -= 1
            if self.falters % 2 and name != "begin":  # It is done, and only the answer is lost.
                getattr(self._store, name)(*args, **named)
            raise TryAgainError("faltered")
        return getattr(self._store, name)(*args, **named)

    def poll(self, session, timeout_seconds, *, is_next=False):
        del timeout_seconds, is_next
        woken = self._store._woken.pop(session, ())
        return frozenset() if self.is_deaf else frozenset(woken)

    def close(self):
        """Nothing."""


# ---- the world -----------------------------------------------------------------------------------


class Process:
    """A process: its engine, what it was granted, and what it waits for."""

    def __init__(self, world, number):
        self.world = world
        self.number = number
        self.wire = Wire(world.store, world.clock)
        options = EngineOptions(
            lease_seconds=LEASE,
            look_again_seconds=LOOK_AGAIN,
            patience_seconds=PATIENCE,
            on_lease_lost=self.lost,
        )
        self.engine = Engine(self.wire, options, self.passing)
        self.hearts = []
        self.is_paused = False
        self.granted = {}
        self.waiting = {}
        self.amid = None

    def passing(self, point):
        if point == "committed":
            try:
                self.world.oracle.check()
            except AssertionError as error:  # A heartbeat would only log it.
                self.world.broken = self.world.broken or error
                raise
        if point == "begin" and self.amid is not None:
            step, self.amid = self.amid, None
            self.world.do(*step)

    def lost(self, keys):
        for key in keys:
            self.granted.pop(key.run_id, None)

    @contextmanager
    def running(self):
        """Its heartbeats are told from those of others by who made them."""
        before = len(DrivenHeartbeat.started)
        try:
            yield
        finally:
            self.hearts += DrivenHeartbeat.started[before:]
            del DrivenHeartbeat.started[before:]

    @property
    def is_awake(self):
        return not self.is_paused

    def claim(self, run):
        demand, priority, team = self.waiting[run]
        self.world.claims += 1
        try:
            with self.running():
                verdict = self.engine.claim(run, "s", demand, priority, tags=lambda: {"team": team})
        except TryAgainError:
            return
        if verdict.granted:
            del self.waiting[run]
            self.granted[run] = verdict.fence
            self.world.granted += 1

    def look(self):
        """Beat if it is time, hear wake-ups, and claim again what is woken or due."""
        with self.running():
            self.hearts = [heart for heart in self.hearts if heart.look() is not None]
        if self.wire.is_cut:
            return False
        own, now, did = self.engine._own, self.world.clock.now, False
        if self.engine.session is not None:
            own.woke(self.wire.poll(self.engine.session, 0))
        for run in tuple(self.waiting):
            key = self.world.key(run)
            is_due = own.look_again_at(key, now) <= now or not own.waits(key)
            if run in self.waiting and (own.takes_wake(key) or is_due):
                self.claim(run)
                did = True
        return did


class World:
    """Some processes on one store; counts claims."""

    def __init__(self, clock, seed):
        DrivenHeartbeat.started.clear()
        self.clock = clock
        self.store = MemoryStore(clock.database)
        self.has_clock_steps = seed % 3 == 0
        self.has_deafness = seed % 2 == 0
        self.processes = [Process(self, number) for number in range(PROCESSES)]
        self.claims = self.granted = self.last_run = 0
        self.priorities = {}
        self.troubled_until = -math.inf
        self.broken = None
        self.oracle = Oracle(self)
        self.processes[0].engine.set_pools(SETTINGS)

    @property
    def limits(self):
        """The limits in force: one that is being changed is the old one until the commit."""
        now = self.clock.database()
        return {pool: found.at(now).limit for pool, found in self.store.rows.settings.items()}

    @staticmethod
    def key(run):
        return TicketKey(run, "s")

    def step(self, kind, number, value):
        self.do(kind, number, value)
        if self.broken is not None:
            raise self.broken
        self.oracle.check()

    def trouble(self, seconds=0.0):
        """From now on, and for so long, a wake-up may be lost, or meet a ticket of a dead process.

        Then the next ticket looks again by itself, but not at once.
        """
        self.troubled_until = max(self.troubled_until, self.clock.now + seconds + LOOK_AGAIN)

    def do(self, kind, number, value):
        process = self.processes[number]
        can_ask = process.is_awake and not process.wire.is_cut
        if kind in ("ask", "release", "adopt", "leave") and not can_ask:
            return
        getattr(self, f"_{kind}")(process, value)

    def _time(self, process, value):
        del process
        self.clock.now += (0.001, 0.01, 0.1, 0.3, 1.0)[value % 5]
        if any(p.is_paused or p.wire.is_cut or p.wire.is_deaf for p in self.processes):
            self.trouble(LEASE)
        for _ in range(20):  # Until nobody has anything to do.
            if not sum(p.look() for p in self.processes if p.is_awake):
                break
        self.oracle.check_at_rest()

    def _ask(self, process, value):
        if len(process.waiting) + len(process.granted) >= TICKETS_MAX:
            return
        self.last_run += 1
        run = f"r{self.last_run}"
        demand = DEMANDS[value % len(DEMANDS)]
        self.priorities[run] = value // 100 % 2
        process.waiting[run] = demand, value // 100 % 2, "ab"[value // 1000 % 2]
        process.claim(run)

    def _release(self, process, value):
        runs = [*process.granted] if value % 10 else [*process.waiting]
        if not runs:
            return
        run = runs[value % len(runs)]
        fence = process.granted.pop(run, None)
        process.waiting.pop(run, None)
        with process.running():
            process.engine.release(run, "s", fence)

    def _amid(self, process, value):
        """The next transaction of this process meets one of another within it."""
        other = (process.number + 1 + value % (PROCESSES - 1)) % PROCESSES
        process.amid = ("ask", "release")[value // 10 % 2], other, value // 100

    def _pause(self, process, value):
        del value
        process.is_paused = True

    def _resume(self, process, value):
        for _ in range(15 if process.is_paused and value % 2 else 0):  # Beyond its lease.
            self._time(process, 4)
        process.is_paused = False

    def _crash(self, process, value):
        del value
        self.trouble(LEASE)
        self.processes[process.number] = Process(self, process.number)

    def _cut(self, process, value):
        del value
        self.trouble()
        process.wire.is_cut = True

    def _mend(self, process, value):
        del value
        self.trouble()
        process.wire.is_cut = False

    def _deaf(self, process, value):
        self.trouble()
        process.wire.is_deaf = self.has_deafness and value % 8 == 0

    def _falter(self, process, value):
        self.trouble()
        process.wire.falters = 1 + value % 2

    def _adopt(self, process, value):
        """As a step's own process does; the first owner goes on."""
        runs = [(p, run) for p in self.processes for run in p.granted if p is not process]
        if runs:
            owner, run = runs[value % len(runs)]
            with process.running():
                fence = process.engine.adopt(run, "s")
            if fence is not None and fence == owner.granted.get(run):
                process.granted[run] = fence
                owner.granted.pop(run)
                owner.engine.leave([self.key(run)])

    def _leave(self, process, value):
        del value
        process.granted.clear()
        process.waiting.clear()
        process.engine.close()

    def _limit(self, process, value):
        pool = sorted(SETTINGS)[value % len(SETTINGS)]
        limit = (0, 1, 2, 3, 2, 3)[value // 10 % 6]
        seconds = (None, 2.0, 4.0, 15.0)[value // 100 % 4]
        if not process.wire.is_cut:
            if seconds is None:
                process.engine.change_pool(pool, limit=limit)
            else:
                process.engine.limit_until(pool, limit, self.clock.database() + seconds)
            assert self.limits[pool] == limit, f"the limit of {pool} was not set"

    def _clock(self, process, value):
        del process
        if self.has_clock_steps:
            if any(found.fall_back for found in self.store.rows.settings.values()):
                self.trouble()  # An end that comes earlier is found by the next look.
            self.clock.ahead += (-30.0, -1.0, 1.0, 30.0)[value % 4]
            self.oracle.clock_was_set()


# ---- what must always be true --------------------------------------------------------------------


class Oracle:
    """Checks the rows of the store, the ledger, and what processes believe."""

    def __init__(self, world):
        self.world = world
        self.held = {}
        self.over = Counter()
        self.fences = Counter()
        self.starts = defaultdict(lambda: deque(maxlen=8))
        self.set_at = -1e9
        self.numbers = {}
        self.idle_since = {}
        self.told = []
        self.checked = None

    def clock_was_set(self):
        self.starts.clear()
        self.set_at = self.world.clock.now

    def check(self):
        """S1, S2, S3, L2 and R1: after every transaction."""
        rows = self.world.store.rows
        if rows is self.checked:
            return  # Nothing was committed since.
        self.checked = rows
        for entry in rows.ledger:
            self.told.append((entry.kind.value, entry.pool, entry.run_id, entry.fence, entry.at))
            key = entry.pool, entry.run_id
            if entry.kind is EntryKind.GRANTED:
                assert entry.fence > self.fences[entry.pool], f"S2: fence of {key}"
                self.fences[entry.pool] = entry.fence
                assert key not in self.held, f"S3: {key} is granted twice"
                self.held[key] = entry.slots, entry.fence
                self._check_rate(entry)
                self._check_patience(entry)
            elif entry.kind in (EntryKind.RELEASED, EntryKind.EXPIRED):
                assert self.held.pop(key, None) == (entry.slots, entry.fence), f"S3: end of {key}"
        rows.ledger.clear()
        self.numbers.update((t.key.run_id, t.number) for t in rows.tickets.values())
        now = {
            (pool, key.run_id): (len(numbers), holding.fence)
            for key, holding in rows.holdings.items()
            for pool, numbers in holding.slots.items()
        }
        assert now == self.held, "S3: the ledger tells of other holders than there are"
        taken = Counter(pool for pool, _ in rows.slots)
        granted = Counter()
        for (pool, _), (slots, _) in now.items():
            granted[pool] += slots
        assert taken == granted, "S1: slots are held by nobody, or by two"
        for pool, limit in self.world.limits.items():
            held = granted[pool]
            assert held <= max(limit, self.over[pool]), f"S1: {held} of {limit} held in {pool}"
            self.over[pool] = held

    def _check_rate(self, entry):
        if entry.pool != "rated":
            return
        rate, starts = SETTINGS["rated"].rate, self.starts["rated"]
        for number, at in enumerate(reversed(starts), start=1):
            least = (number + 1 - rate.burst) * rate.seconds / rate.starts
            assert entry.at - at >= least - 1e-5, f"R1: {number + 1} starts in {entry.at - at} s"
        starts.append(entry.at)

    def _check_patience(self, entry):
        """L2, of the first waiter that asks for this pool alone, where that is plain."""
        if entry.pool not in ("one", "two", "three"):
            return
        holding = self.world.store.rows.holdings.get(self.world.key(entry.run_id))
        if holding is None or len(holding.slots) > 1:
            return
        tickets = [t for t in self.world.store.rows.tickets.values() if self._is_live(t)]
        tickets = [t for t in tickets if entry.pool in t.demand.pools]
        if not tickets:
            return
        priority = self.world.priorities[entry.run_id]
        number = self.numbers.get(entry.run_id, math.inf)
        first = min(tickets, key=lambda t: (-t.priority, t.number))
        slots = {term.name: term.slots for term in first.demand.terms}
        if len(slots) > 1 or slots[entry.pool] > self.world.limits[entry.pool]:
            return
        is_passed = first.priority == priority and first.number < number
        held = sum(pool == entry.pool for pool, _ in self.world.store.rows.slots)
        is_passed = is_passed and slots[entry.pool] > self.world.limits[entry.pool] - held
        waited = entry.at - first.since
        assert not (is_passed and waited > PATIENCE), f"L2: {first.key.run_id} is passed"

    def check_at_rest(self):
        """L1, L3 and L4: once all processes that can have done what they had to do."""
        self.check()
        world, rows = self.world, self.world.store.rows
        now = world.clock.database()
        for process in world.processes:
            if process.is_paused:
                continue
            for run, fence in process.granted.items():
                holding = rows.holdings.get(world.key(run))
                if holding is None or holding.fence != fence:
                    # A clock that was set ahead ends leases early: the next heartbeat tells.
                    is_told_soon = world.clock.now - self.set_at < LEASE
                    assert is_told_soon or process.wire.may_believe(), (
                        f"L4: process {process.number} believes that it holds {run}"
                    )
        idle, before = {}, self.idle_since
        for pool in ("one", "two", "three"):
            tickets = [t for t in rows.tickets.values() if pool in t.demand.pools]
            live = [t for t in tickets if self._is_live(t)]
            if not live or len(live) != len(tickets):
                continue
            first = min(live, key=lambda t: (-t.priority, t.number))
            if len(first.demand.terms) > 1 or not self._can_look(first):
                continue
            (term,) = first.demand.terms
            over = [
                h for key, h in rows.holdings.items() if pool in h.slots and self._is_over(key, now)
            ]
            assert not over, f"L3: {[h.key.run_id for h in over]} hold {pool} beyond their lease"
            free = world.limits[pool] - self.over[pool]
            if term.slots <= free:
                idle[pool, first.key] = before.get((pool, first.key), world.clock.now)
        self.idle_since = idle
        if world.clock.now <= world.troubled_until or any(p.wire.falters for p in world.processes):
            least = world.clock.now - LOOK_AGAIN - 1.0
            idle = {what: since for what, since in idle.items() if since < least}
        assert not idle, f"L1: {idle} wait with free slots"

    def _is_live(self, ticket):
        rows = self.world.store.rows
        return rows.lease_until.get(ticket.session, 0.0) > self.world.clock.database()

    def _can_look(self, ticket):
        """Whether its process could have looked by now."""
        return any(
            process.engine.session == ticket.session
            and process.is_awake
            and not process.wire.is_cut
            for process in self.world.processes
        )

    def _is_over(self, key, now):
        """Whether all its owners have been silent for longer than their lease, and a look ago."""
        rows = self.world.store.rows
        ends = [rows.lease_until.get(session, 0.0) for session in rows.owners[key]]
        return max(ends, default=0.0) + LOOK_AGAIN + 1.0 < now


if __name__ == "__main__":
    import argparse

    options = argparse.ArgumentParser()
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--steps", type=int, default=20_000)
    asked = options.parse_args()
    logging.disable(logging.CRITICAL)
    whole = steps_of(asked.seed, asked.steps)
    if broken(whole, asked.seed) is None:
        click.echo(f"seed {asked.seed}: {asked.steps:,} steps, nothing broken")
    else:
        fewest, why = shortest(whole, asked.seed)
        click.echo(f"seed {asked.seed}, {len(fewest)} of {asked.steps:,} steps: {why}\n{fewest}")
        sys.exit(1)
