"""Random sequences of everything that can happen, on each database and in memory at once.

The memory store is the measure: each step must be answered alike. What must always be true is
checked on the tables and the ledger, by arithmetic that shares no code with the engine.
"""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from pathlib import Path

import hypothesis.strategies as st
from hypothesis import HealthCheck, settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from dagster_lifeguard.engine.engine import Engine
from dagster_lifeguard.engine.engine_options import EngineOptions
from dagster_lifeguard.engine.rules.model import Demand, Granted, WaitReason
from dagster_lifeguard.engine.rules.rate import Rate
from places import (
    MemoryPlace,
    age_rate,
    age_session,
    new_postgres,
    new_sqlite,
    set_clock_back,
)

POOLS = ("x", "y")
PROCESSES = (0, 1, 2)
LIMIT_MAX = 3
DAY = 86400

runs = st.sampled_from([f"run{number}" for number in range(6)])
processes = st.sampled_from(PROCESSES)
demands = st.dictionaries(st.sampled_from(POOLS), st.integers(1, 2), min_size=1)


def told(verdict):
    """What two stores must agree on: all but the time."""
    if isinstance(verdict, Granted):
        return ("granted", dict(verdict.slots), verdict.fence)
    return ("waiting", verdict.pool, verdict.reason, verdict.ahead, set(verdict.queue_at))


class Machine(RuleBasedStateMachine):
    """Some processes, some pools, and whatever may happen to them."""

    new_place = staticmethod(MemoryPlace)

    def __init__(self):
        super().__init__()
        self.places = (MemoryPlace(), self.new_place())
        for place in self.places:
            place.store().migrate()
        self.readers = tuple(place.store() for place in self.places)
        self.engines = {process: self.start() for process in PROCESSES}
        self.asked = {}
        self.over = Counter()
        self.limits = {}
        self.rates = dict.fromkeys(POOLS)
        self.fair = set()
        for pool in POOLS:
            self.resize(pool, 1)

    def start(self):
        # No wake-ups are waited for here, and nothing may happen at a time of its own choosing.
        options = EngineOptions(lease_seconds=3600.0)
        return tuple(Engine(place.store(), options) for place in self.places)

    def both(self, process, verb):
        first, second = (verb(engine) for engine in self.engines[process])
        return first, second

    @rule(process=processes, run=runs, slots=demands, priority=st.integers(0, 1))
    def claim(self, process, run, slots, priority):
        # A step asks for the same each time.
        asked = self.asked.setdefault(run, (process, Demand.of(slots), priority))
        self.look(run, process, asked)

    @rule(run=runs)
    def look_again(self, run):
        if run in self.asked:
            self.look(run, self.asked[run][0], self.asked[run])

    def look(self, run, process, asked):
        _, demand, priority = asked
        tags = {"team": str(int(run[-1]) % 3)}
        first, second = self.both(
            process, lambda e: e.claim(run, "s", demand, priority, tags=lambda: tags)
        )
        assert told(first) == told(second)
        return first

    @rule(process=processes, run=runs)
    def release(self, process, run):
        first, second = self.both(process, lambda e: e.release(run, "s"))
        assert first == second
        self.asked.pop(run, None)

    @rule(process=processes, run=runs)
    def adopt(self, process, run):
        first, second = self.both(process, lambda e: e.adopt(run, "s"))
        assert first == second

    @rule(process=processes)
    def leave(self, process):
        self.both(process, lambda e: e.close())
        self.forget_what_is_gone()

    @rule(process=processes)
    def crash(self, process):
        """Its lease runs out, and another process takes its place."""
        for engine, place in zip(self.engines[process], self.places, strict=True):
            if engine.session is not None:
                age_session(place, engine.session)
            engine.store.close()  # As the system does for a process that died.
        self.engines[process] = self.start()

    @rule(process=processes)
    def pause_beyond_lease(self, process):
        """Stopped for longer than its lease; whether anybody noticed depends on what follows."""
        for engine, place in zip(self.engines[process], self.places, strict=True):
            if engine.session is not None and engine.session not in engine.store.expired_sessions(
                9
            ):
                age_session(place, engine.session)

    @rule(process=processes)
    def reap(self, process):
        first, second = self.both(process, lambda e: e.reap())
        assert first == second
        self.forget_what_is_gone()

    @rule(process=processes)
    def beat(self, process):
        first, second = self.both(process, lambda e: e.heartbeat())
        assert first == second

    @rule(pool=st.sampled_from(POOLS), limit=st.integers(0, LIMIT_MAX))
    def resize(self, pool, limit):
        self.both(0, lambda e: e.change_pool(pool, limit=limit))
        self.limits[pool] = limit

    @rule(pool=st.sampled_from(POOLS))
    def unlimit(self, pool):
        self.both(0, lambda e: e.change_pool(pool, limit=None))
        self.limits[pool] = None

    @rule(pool=st.sampled_from(POOLS), starts=st.integers(1, 2), burst=st.integers(1, 2))
    def rate(self, pool, starts, burst):
        """By the day, so that the time a test takes is none."""
        self.rates[pool] = Rate(starts, DAY, burst)
        self.both(0, lambda e: e.change_pool(pool, rate=self.rates[pool]))

    @rule(pool=st.sampled_from(POOLS), fair=st.booleans())
    def order(self, pool, fair):
        self.both(0, lambda e: e.change_pool(pool, fair_by="team" if fair else None))
        (self.fair.add if fair else self.fair.discard)(pool)

    @rule(pool=st.sampled_from(POOLS))
    def unrate(self, pool):
        self.rates[pool] = None
        self.both(0, lambda e: e.change_pool(pool, rate=None))

    @precondition(lambda self: any(self.rates.values()))
    @rule(pool=st.sampled_from(POOLS))
    def let_a_day_go_by(self, pool):
        if self.rates[pool] is not None:
            for place in self.places:
                age_rate(place, pool, DAY)

    @rule(pool=st.sampled_from(POOLS), days=st.sampled_from([1, 1000]))
    def set_clock_back(self, pool, days):
        """As far as its rate can tell; noticed by whoever looks first."""
        if self.rates[pool] is not None:
            for place in self.places:
                set_clock_back(place, pool, days * DAY)

    @precondition(lambda self: self.asked)
    @rule()
    def settle(self):
        """All that wait look until nothing changes: then no free slot is beside its waiter (L1)."""
        engine = self.engines[0][0]
        engine.reap(), self.engines[0][1].reap()
        changed = True
        while changed:
            changed = False
            for run in sorted(self.asked):
                before = engine.ticket(run, "s")
                self.look(run, self.asked[run][0], self.asked[run])
                after = engine.ticket(run, "s")
                changed |= self.shape(before) != self.shape(after)
        waiting = {
            ticket.key.run_id: ticket for pool in POOLS for ticket in engine.snapshot(pool).waiting
        }
        satisfiable = [
            ticket
            for ticket in waiting.values()
            if all(
                self.limits[t.name] is None or t.slots <= self.limits[t.name]
                for t in ticket.demand.terms
            )
        ]
        if satisfiable and not self.fair:
            first = min(satisfiable, key=lambda t: (-t.priority, t.number))
            verdict = self.look(
                first.key.run_id, self.asked[first.key.run_id][0], self.asked[first.key.run_id]
            )
            if verdict.reason is WaitReason.RATE:
                assert self.rates[verdict.pool] is not None
            else:
                assert any(self.free(term.name) < term.slots for term in first.demand.terms)

    @staticmethod
    def shape(ticket):
        return (type(ticket), getattr(ticket, "queue_at", None), getattr(ticket, "fence", None))

    def free(self, pool):
        if self.limits[pool] is None:
            return 10**6
        held = sum(len(h.slots[pool]) for h in self.engines[0][0].snapshot(pool).holdings)
        return self.limits[pool] - held

    def forget_what_is_gone(self):
        alive = self.engines[0][0].store.run_ids()
        self.asked = {run: asked for run, asked in self.asked.items() if run in alive}

    @invariant()
    def slots_held_are_within_the_limit_or_draining(self):
        for reader in self.readers:
            for snapshot in reader.snapshots(POOLS):
                pool = snapshot.pool
                numbers = [n for h in snapshot.granted for n in h.slots[pool]]
                assert len(numbers) == len(set(numbers))
                before = self.over[id(reader), pool]
                limit = snapshot.settings.limit
                if limit is not None:
                    assert len(numbers) <= max(limit, before)
                self.over[id(reader), pool] = len(numbers)

    @invariant()
    def fences_grow_and_the_ledger_adds_up(self):
        for reader in self.readers:
            held = {}
            last = Counter()
            for entry in reversed(reader.ledger(count_max=10**6)):
                key = (entry.pool, entry.run_id)
                if entry.kind == "granted":
                    assert entry.fence > last[entry.pool]
                    last[entry.pool] = entry.fence
                    assert key not in held
                    held[key] = (entry.slots, entry.fence)
                elif entry.kind in {"released", "expired"}:
                    assert held.pop(key) == (entry.slots, entry.fence)
            now = {
                (found.pool, h.key.run_id): (len(h.slots[found.pool]), h.fence)
                for found in reader.snapshots(POOLS)
                for h in found.granted
            }
            assert held == now

    def teardown(self):
        for engines in self.engines.values():
            for engine in engines:
                engine.close()
        for reader in self.readers:
            reader.close()


def test_random_sequences(place, postgres_url, request):
    kind = place.kind
    folder = Path(tempfile.mkdtemp(dir=request.getfixturevalue("tmp_path")))

    class OnDatabase(Machine):
        @staticmethod
        def new_place():
            if kind == "sqlite":
                return new_sqlite(folder)
            if kind == "postgres":
                return new_postgres(postgres_url)
            return MemoryPlace()

    examples = {"memory": 150, "sqlite": 60, "postgres": 40}[kind] * scale()
    run_state_machine_as_test(
        OnDatabase,
        settings=settings(
            max_examples=examples,
            stateful_step_count=30,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


def scale():
    return int(os.environ.get("LIFEGUARD_TORTURE", "1"))
