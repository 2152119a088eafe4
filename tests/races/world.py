"""A world without threads of its own and without time of its own: processes on one store.

Engines, sessions, leases and heartbeats are the real ones, on the real store in memory with its
locks. Only clocks and threads are not, so the same steps always end in the same way.
"""

from __future__ import annotations

import gc
import math
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from types import SimpleNamespace
from unittest.mock import patch

from baton import Baton, SharedLock, Task
from process import Process
from promises import LEASE, LOOK_AGAIN, Oracle
from steps import AT_ONCE, DEMANDS, FAIR_DEMANDS, PROCESSES, SETTINGS

from dagster_lifeguard.engine.heartbeat import Heartbeat
from dagster_lifeguard.engine.rules.model import TicketKey
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
        if gc.isenabled():  # A world is short, and makes next to nothing that refers to itself.
            gc.disable()
            stack.callback(gc.enable)
        for module in (
            "engine",
            "session_member",
            "transactions",
            "store.retry",
            "store.locked_view",
        ):
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
        self.oracle.forget_who_waits()

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
            self.oracle.forget_who_waits()

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
