"""A world without threads of its own and without time of its own: processes on one store.

Engines, sessions, leases and heartbeats are the real ones, on the real store in memory with its
locks. Only clocks and threads are not, so the same steps always end in the same way.
"""

from __future__ import annotations

import math
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from types import SimpleNamespace
from unittest.mock import patch

from baton import Baton, SharedLock, Task
from promises import LEASE, LOOK_AGAIN, PATIENCE, Oracle
from steps import AT_ONCE, DEMANDS, FAIR_DEMANDS, PROCESSES, SETTINGS

from dagster_lifeguard.engine.engine import Engine
from dagster_lifeguard.engine.engine_options import EngineOptions
from dagster_lifeguard.engine.heartbeat import Heartbeat
from dagster_lifeguard.engine.rules.model import TicketKey
from dagster_lifeguard.engine.session import Session
from dagster_lifeguard.engine.store.contract import TryAgainError
from dagster_lifeguard.engine.store.memory.store import MemoryStore
from dagster_lifeguard.errors import ConfigError

EPOCH = 1_700_000_000.0
TOGETHER_MAX = 4
"""The most steps that are done at once."""


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

    def start(self):
        """Its process looks for it."""


@contextmanager
def one_world():
    """A clock and a baton in place of all clocks and threads of the engine."""
    clock, baton = Clock(), Baton()
    ids = iter(range(10**9))
    threads = SimpleNamespace(Thread=InlineThread, Event=lambda: SimpleNamespace(set=lambda: None))
    engine = "dagster_lifeguard.engine."
    with ExitStack() as stack:
        stack.callback(baton.close)
        for module in ("engine", "session_member", "transactions", "store.retry", "store.viewed"):
            stack.enter_context(patch(f"{engine}{module}.time", clock))
        for module in ("session", "heartbeat", "lease"):
            stack.enter_context(patch(f"{engine}{module}.process_clock", clock.monotonic))
        for module in ("engine", "heartbeat"):
            stack.enter_context(patch(f"{engine}{module}.threading", threads))
        new_id = SimpleNamespace(uuid4=lambda: SimpleNamespace(hex=f"session{next(ids)}"))
        stack.enter_context(patch(f"{engine}session.uuid", new_id))
        stack.enter_context(patch(f"{engine}session.Heartbeat", DrivenHeartbeat))
        stack.enter_context(patch(f"{engine}forks.ProcessLock", partial(SharedLock, baton)))
        yield World(clock, baton)


class WatchedStore(MemoryStore):
    """The store of a world: each commit is checked."""

    def __init__(self, clock, baton):
        super().__init__(clock, baton)
        self.oracle = None

    def write(self, scope, view, changes):
        super().write(scope, view, changes)
        self.oracle.committed(scope, view)

    def woken(self, session):
        return frozenset(self._woken.pop(session, ()))


class Wire:
    """The store as one process reaches it.

    Attributes:
        is_cut: Whether no message arrives.
        is_deaf: Whether no wake-up arrives.
        falters: How many of the next messages fail; the answer of each other one is lost.
        loses: Whether the next commit is done and its answer lost.
    """

    grant_unseen = None

    def __init__(self, store, world):
        self._store = store
        self._world = world
        self.is_cut = self.is_deaf = self.loses = False
        self.falters = 0
        self.answered_at = self.asking_since = None
        for verb in (
            *("pools_of", "expired_sessions", "bury", "holders_over", "revoked_sessions"),
            *("settings", "snapshots", "ticket", "now", "trim_ledger", "run_ids", "busy_pools"),
        ):
            setattr(self, verb, partial(self._ask, getattr(store, verb)))

    def _ask(self, verb, *args, **named):
        self._world.baton.point()
        if self.is_cut:
            raise TryAgainError("cut")
        if self.falters:
            self.falters -= 1
            self._world.trouble()
            if self.falters % 2:
                verb(*args, **named)
            raise TryAgainError("faltered")
        return verb(*args, **named)

    def begin(self, scope):
        if self.is_cut or self.falters:
            self.falters = max(0, self.falters - 1)
            raise TryAgainError("no transaction")
        transaction = self._store.begin(scope)
        if self.loses:
            self.loses = False
            transaction.commit = partial(self._lose, transaction.commit)
        return transaction

    def release(self, key, grant, session, next_up):
        return MemoryStore.release(self, key, grant, session, next_up)

    def _lose(self, commit, changes):
        commit(changes)
        self._world.trouble()
        raise TryAgainError("the answer is lost")

    def heartbeat(self, *args):
        return self._heard(self._store.heartbeat, *args)

    def open_session(self, *args, **named):
        return self._heard(self._store.open_session, *args, **named)

    def _heard(self, verb, *args, **named):
        """Remember when the database last answered a heartbeat, and since when it does not."""
        now = self._world.clock.now
        try:
            found = self._ask(verb, *args, **named)
        except TryAgainError:
            self.asking_since = now if self.asking_since is None else self.asking_since
            raise
        self.answered_at, self.asking_since = now, None
        return found

    def may_believe(self):
        """Whether its process may still believe in what it was granted, as nobody answers it."""
        if self.asking_since is None:
            return False
        return self._world.clock.now < max(self.answered_at + LEASE, self.asking_since + 1.0)

    def poll(self, session, timeout_seconds, *, is_next=False):
        del timeout_seconds, is_next
        woken = self._store.woken(session)
        return frozenset() if self.is_deaf else woken

    def close(self):
        """Nothing."""


class Process:
    """A process: its engine, what it was granted, and what it waits for.

    Attributes:
        granted: The runs that hold, as it believes, with their fences.
        waiting: The runs that wait.
        claiming: The runs that one of its threads claims at this moment.
    """

    def __init__(self, world, number):
        self.world = world
        self.number = number
        self.wire = Wire(world.store, world)
        options = EngineOptions(
            lease_seconds=LEASE,
            look_again_seconds=LOOK_AGAIN,
            patience_seconds=PATIENCE,
            on_lease_lost=self.lost,
        )
        self.session = Session(self.wire, LEASE)
        self.engine = Engine(self.wire, options, self.passing, self.session)
        self.is_paused = False
        self.granted = {}
        self.waiting = {}
        self.claiming = set()

    def passing(self, point):
        del point
        self.world.baton.point()

    def lost(self, keys):
        for key in keys:
            self.granted.pop(key.run_id, None)

    @property
    def can_ask(self):
        return not (self.is_paused or self.wire.is_cut)

    def claim(self, run):
        if run in self.claiming:
            return
        demand, priority, team = self.world.asked[run]
        self.world.claims += 1
        self.claiming.add(run)
        try:
            verdict = self.engine.claim(run, "s", demand, priority, tags=lambda: {"team": team})
        except TryAgainError:
            return
        finally:
            self.claiming.discard(run)
        self.world.granted += verdict.granted
        if run not in self.waiting:  # Another thread gave it up meanwhile.
            self.engine.release(run, "s")
        elif verdict.granted:
            del self.waiting[run]
            self.granted[run] = verdict.fence

    def look(self):
        """Beat if it is time, hear wake-ups, and claim again what is woken or due.

        Returns:
            Whether it claimed.
        """
        heart = self.session._heartbeat
        if heart is not None:
            heart.look()
        if self.wire.is_cut or not self.waiting:
            return False
        own, now, did = self.engine._own, self.world.clock.now, False
        if self.session.id is not None:
            own.woke(self.wire.poll(self.session.id, 0))
        for run in tuple(self.waiting):
            key = TicketKey(run, "s")
            # The database's clock counts in microseconds, and ours in less.
            is_due = own.look_again_at(key, now) <= now + 1e-6 or not own.waits(key)
            if run in self.waiting and (own.takes_wake(key) or is_due):
                self.claim(run)
                did = True
        return did


class World:
    """Some processes on one store.

    Attributes:
        claims: How often a slot was asked for.
        granted: How often one was granted.
        asked: What each run asks for: its demand, its priority and its team.
        tickets_max: The most tickets that a process has at once.
        broken: The first promise that was broken.
    """

    def __init__(self, clock, baton):
        self.clock = clock
        self.baton = baton
        self.store = WatchedStore(clock.database, baton)
        self.asked = {}
        self.oracle = self.store.oracle = Oracle(self)
        self.processes = [Process(self, number) for number in range(PROCESSES)]
        self.claims = self.granted = self.last_run = 0
        self.tickets_max = 4
        self.troubled_until = -math.inf
        self.broken = None
        self.processes[0].engine.set_pools(SETTINGS)

    def limit(self, pool, at):
        """The limit in force at a time of the database's clock."""
        found = self.store.rows.settings[pool]
        is_over = found.fall_back is not None and at >= found.fall_back.at
        return found.lasting_limit if is_over else found.limit

    def trouble(self, seconds=0.0):
        """From now on, and for so long, a wake-up may be lost, or meet a ticket of a dead process.

        Then the next ticket looks again by itself, but not at once.
        """
        self.troubled_until = max(self.troubled_until, self.clock.now + seconds + LOOK_AGAIN)

    @property
    def is_troubled(self):
        wires = [process.wire for process in self.processes]
        is_faulty = any(wire.falters or wire.loses for wire in wires)
        return is_faulty or self.clock.now <= self.troubled_until

    def do(self, kind, number, value):
        """Do a step."""
        getattr(self, f"_{kind}")(self.processes[number], value)
        if self.broken is not None:
            raise self.broken

    def do_at_once(self, steps, value):
        """Do some steps at once: each may be interrupted by the others wherever it asks the store.

        Args:
            steps: The steps.
            value: It decides their order.
        """
        if not steps:
            return
        # Whoever leaves has ended its threads: nothing else of that process is under way.
        leaving = {step[1] for step in steps if step[0] == "leave"}
        steps = [step for step in steps if step[0] == "leave" or step[1] not in leaving]
        tasks = [Task(self.processes[step[1]], partial(self.do, *step)) for step in steps]
        self.baton.run(tasks, value)

    # ---- the kinds of steps ------------------------------------------------------------------

    def _time(self, process, value):
        """Time goes by, and everybody looks until nobody has anything to do."""
        del process
        self.clock.now += (0.001, 0.01, 0.1, 0.3, 1.0)[value % 5]
        if any(p.is_paused or p.wire.is_cut or p.wire.is_deaf for p in self.processes):
            self.trouble(LEASE)
        awake = looking = [process for process in self.processes if not process.is_paused]
        for _ in range(20):
            claimed = [process for process in looking if process.look()]
            looking = [p for p in awake if p in claimed or p.session.id in self.store._woken]
            if not looking:
                break
        self.oracle.check_at_rest()

    def _tick(self, process, value):
        """Time goes by while something is under way, perhaps longer than a lease."""
        del process
        self.trouble(LEASE)
        self.clock.now += (0.01, 0.5, 11.0)[value % 3]

    def _crowd(self, process, value):
        """Each process has at most so many tickets at once."""
        del process
        self.tickets_max = value

    def _ask(self, process, value, demands=DEMANDS):
        has = len(process.waiting) + len(process.granted)
        if not process.can_ask or has >= self.tickets_max:
            return
        self.last_run += 1
        run = f"r{self.last_run}"
        # Some are of a group that never was before: most in a large crowd before the fair pool.
        is_new = value // 6000 % 16 < (
            15 if demands is FAIR_DEMANDS and self.tickets_max > 3 else 6
        )
        team = run if is_new else "aaabbc"[value // 1000 % 6]
        priority = value // 100 % 8 == 0 if demands is FAIR_DEMANDS else value // 100 % 2
        self.asked[run] = demands[value % len(demands)], int(priority), team
        process.waiting[run] = None
        process.claim(run)

    def _fair(self, process, value):
        self._ask(process, value, FAIR_DEMANDS)

    def _release(self, process, value):
        runs = [*process.granted] if value % 20 else [*process.waiting]
        if not runs or not process.can_ask:
            return
        run = runs[value % len(runs)]
        fence = process.granted.pop(run, None)
        process.waiting.pop(run, None)
        process.engine.release(run, "s", fence)

    def _look(self, process, value):
        del value
        if not process.is_paused:
            process.look()

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
        self.baton.kill(process)
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
        process.wire.is_deaf = value % 8 == 0

    def _falter(self, process, value):
        self.trouble()
        process.wire.falters = 1 + value % 2

    def _lose(self, process, value):
        del value
        process.wire.loses = True

    def _adopt(self, process, value):
        """As a step's own process does; the first owner goes on."""
        runs = [(p, run) for p in self.processes for run in p.granted if p is not process]
        if runs and process.can_ask:
            owner, run = runs[value % len(runs)]
            fence = process.engine.adopt(run, "s")
            if fence is not None and fence == owner.granted.get(run):
                process.granted[run] = owner.granted.pop(run)
                owner.engine.leave([TicketKey(run, "s")])
            elif fence is not None and run not in process.granted:  # Another took it meanwhile.
                process.engine.leave([TicketKey(run, "s")])

    def _leave(self, process, value):
        del value
        if process.can_ask:
            process.granted.clear()
            process.waiting.clear()
            process.engine.close()

    def _limit(self, process, value):
        pool = sorted(SETTINGS)[value % len(SETTINGS)]
        limit = (0, 1, 2, 3, 2, 3)[value // 10 % 6]
        # One that ends before all have looked is found by the next look: not told of below.
        seconds = (None, 6.0, 9.0, 15.0)[value // 100 % 4]
        if process.wire.is_cut:
            return
        if seconds is None:
            process.engine.change_pool(pool, limit=limit)
        else:
            with suppress(ConfigError):  # By then, a tick has gone beyond its end.
                process.engine.limit_until(pool, limit, self.clock.database() + seconds)
        if self.baton.task is None:  # Nobody else can have set another meanwhile.
            found = self.limit(pool, self.clock.database())
            assert found == limit, f"the limit of {pool} was not set"

    def _clock(self, process, value):
        del process
        if any(found.fall_back for found in self.store.rows.settings.values()):
            self.trouble()  # An end that comes earlier is found by the next look.
        self.clock.ahead += (-30.0, -1.0, 1.0, 30.0)[value % 4]
        self.oracle.clock_was_set()


def play(steps):
    """Play steps from the beginning.

    Returns:
        The world.

    Raises:
        BrokenPromiseError: What must always be true was not.
    """
    with one_world() as world:
        place = 0
        while place < len(steps):
            kind, number, value = steps[place]
            try:
                if kind == "together":
                    group = _at_once(steps, place + 1, 2 + number % (TOGETHER_MAX - 1))
                    world.do_at_once(group, value)
                    place += len(group)
                else:
                    world.do(kind, number, value)
            except Exception as why:
                raise BrokenPromiseError(place, steps[place], why) from why
            place += 1
        world.oracle.check_all()
        return world


def _at_once(steps, start, count):
    """The steps from there on, of those that can be done at once."""
    found = []
    for step in steps[start : start + count]:
        if step[0] not in AT_ONCE:
            break
        found.append(step)
    return found


class BrokenPromiseError(AssertionError):
    """A promise was broken, at this step."""

    def __init__(self, place, step, why):
        super().__init__(f"step {place}, {step}: {why!r}")
        self.place = place
