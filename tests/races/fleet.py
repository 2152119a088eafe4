"""Spawned processes that do one thing at one instant, and an oracle outside the database.

The same jobs run over the engine and over Dagster's stock storage, so that the harness is seen
to find what it looks for.
"""

from __future__ import annotations

import multiprocessing as mp
import random
import signal
import time
import traceback
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dagster_lifeguard.engine.engine import Engine
from dagster_lifeguard.engine.engine_options import EngineOptions
from dagster_lifeguard.engine.rules.model import Demand
from dagster_lifeguard.storage.stock_slots import StockSlots

if TYPE_CHECKING:
    from collections.abc import Iterator

    from places import SharedPlace

SIZES = (2, 4, 8)
POOL = "orders"
STEP = "step"
ONE = Demand.of({POOL: 1})
PATIENT_SECONDS = 300.0
TRIES = 300
ROUNDS_MAX = 1000
INSIDE_SECONDS = 0.005
OUTSIDE_SECONDS = 0.05
"""Inside long enough that somebody who is let in beside is seen, outside that others get in."""


class Oracle:
    """Counts holders in shared memory; knows nothing of any database."""

    def __init__(self, context) -> None:
        self.inside = context.Value("i", 0)
        self.worst = context.Value("i", 0)
        self.turns = context.Value("i", 0)
        self._kind = context.Value("i", 0)

    def reset(self) -> None:
        for value in (self.inside, self.worst, self.turns, self._kind):
            value.value = 0

    def enter(self, kind: int = 0) -> int:
        """One more is inside: how many are now. Counts the turns between kinds, too."""
        with self.inside.get_lock():
            self.turns.value += kind != self._kind.value
            self._kind.value = kind
            self.inside.value += 1
            self.worst.value = max(self.worst.value, self.inside.value)
            return self.inside.value

    def leave(self) -> None:
        with self.inside.get_lock():
            self.inside.value -= 1


class Lifeguard:
    """Contends through the engine."""

    def __init__(self, place: SharedPlace) -> None:
        # A lost wake-up must show, so nothing is looked at again without one.
        options = EngineOptions(look_again_seconds=3600.0, lease_seconds=7200.0)
        self.engine = Engine(place.store(), options)

    def claim(self, run_id: str) -> bool:
        return self.engine.claim(run_id, STEP, ONE).granted

    def release(self, run_id: str) -> None:
        self.engine.release(run_id, STEP)

    def claim_when_woken(self, run_id: str) -> bool:
        while self.engine.wait(run_id, STEP, PATIENT_SECONDS):
            if self.claim(run_id):
                return True
        return False

    def close(self) -> None:
        self.engine.close()


class Stock:
    """Contends through the storage that Dagster comes with."""

    def __init__(self, place: SharedPlace) -> None:
        self.storage = stock_storage(place)

    def claim(self, run_id: str) -> bool:
        return self.storage.claim_concurrency_slot(POOL, run_id, STEP).is_claimed

    def release(self, run_id: str) -> None:
        self.storage.free_concurrency_slot_for_step(run_id, STEP)

    def claim_when_woken(self, run_id: str) -> bool:
        return any(self.claim(run_id) for _ in range(3))

    def close(self) -> None:
        self.storage.dispose()


class BesideStock(Lifeguard):
    """Contends through the engine, on a database where others use the stock storage."""

    def __init__(self, place: SharedPlace) -> None:
        self.slots = StockSlots(stock_storage(place), has_ended=lambda run_ids: set())
        options = EngineOptions(on_session_joined=lambda: self.slots.close(self.engine))
        self.engine = Engine(place.store(), options)

    def claim(self, run_id: str) -> bool:
        if self.engine.session is not None:
            self.slots.close(self.engine)  # Who has freed a stock slot wakes nobody.
        return super().claim(run_id)

    def release(self, run_id: str) -> None:
        super().release(run_id)
        self.engine.close()  # Its session, which keeps the others out.


def stock_storage(place: SharedPlace) -> Any:
    if place.kind == "sqlite":
        from pathlib import Path

        from dagster._core.storage.event_log import SqliteEventLogStorage

        return SqliteEventLogStorage(str(Path(place.path).parent))
    import sqlalchemy as db
    from dagster_postgres.event_log import PostgresEventLogStorage

    url = db.make_url(place.url).set(drivername="postgresql+psycopg2")
    return PostgresEventLogStorage(
        url.render_as_string(hide_password=False), should_autocreate_tables=False
    )


CONTENDERS = {"lifeguard": Lifeguard, "stock": Stock, "beside stock": BesideStock}


@dataclass
class Tools:
    index: int
    count: int
    barrier: Any
    oracle: Oracle
    progress: Any
    stop: Any


@contextmanager
def contending(kind: str, place: SharedPlace) -> Iterator[Any]:
    contender = CONTENDERS[kind](place)
    try:
        yield contender
    finally:
        contender.close()


def make_gate(place: SharedPlace) -> None:
    """Use the engine once: until then nothing keeps the stock storage from letting in too many."""
    with contending("beside stock", place) as first:
        assert first.claim("first")
        first.release("first")


def claim_together(tools: Tools, kind: str, place: SharedPlace, limit: int, rounds: int) -> dict:
    """All claim at one instant, then all let go: rounds over the limit, and rounds short of it."""
    over, short, claims, granted, worst = 0, 0, 0, 0, 0
    with contending(kind, place) as contender:
        for number in range(rounds):
            run_id = f"{number}-{tools.index}"
            tools.barrier.wait(PATIENT_SECONDS)
            claimed = contender.claim(run_id)
            claims += 1
            granted += claimed
            if claimed:
                tools.oracle.enter()
            tools.barrier.wait(PATIENT_SECONDS)
            seen = tools.oracle.inside.value
            worst = max(worst, seen)
            over += seen > limit
            short += seen < min(limit, tools.count)
            tools.barrier.wait(PATIENT_SECONDS)
            if claimed:
                tools.oracle.leave()
            contender.release(run_id)
    return {"over": over, "short": short, "claims": claims, "granted": granted, "worst": worst}


def hammer(tools: Tools, kind: str, place: SharedPlace, limit: int, rounds: int) -> dict:
    """Each claims, waits to be woken, works inside, releases: nobody stuck, nobody too many."""
    over, stuck = 0, 0
    with contending(kind, place) as contender:
        tools.barrier.wait(PATIENT_SECONDS)
        for number in range(rounds):
            run_id = f"{number}-{tools.index}"
            if not contender.claim(run_id) and not contender.claim_when_woken(run_id):
                stuck += 1
                contender.release(run_id)
                continue
            over += tools.oracle.enter() > limit
            tools.oracle.leave()
            contender.release(run_id)
    return {"over": over, "stuck": stuck, "claims": rounds, "granted": rounds - stuck}


def take_turns(
    tools: Tools, kinds: tuple[str, ...], place: SharedPlace, limit: int, turns: int, seed: int
) -> dict:
    """Different kinds on one database, until one kind has followed upon another so many times."""
    dice = random.Random(seed + tools.index)
    over, gave_up, rounds = 0, 0, 0
    kind = tools.index % len(kinds)
    with contending(kinds[kind], place) as contender:
        tools.barrier.wait(PATIENT_SECONDS)
        while tools.oracle.turns.value < turns and rounds < ROUNDS_MAX:
            rounds += 1
            run_id = f"{rounds}-{tools.index}"
            if any(contender.claim(run_id) for _ in range(TRIES)):
                over += tools.oracle.enter(kind) > limit
                time.sleep(INSIDE_SECONDS)
                tools.oracle.leave()
            else:
                gave_up += 1
            contender.release(run_id)
            time.sleep(dice.uniform(0, OUTSIDE_SECONDS))
    granted = {kinds[kind]: rounds - gave_up}
    return {"over": over, "gave_up": gave_up, "claims": rounds, "granted": granted}


def release_meets_first_claim(
    tools: Tools, kind: str, place: SharedPlace, spread_seconds: float, rounds: int, seed: int
) -> dict:
    """One releases, one makes its first claim, both within a moment: who is never let in?"""
    dice = random.Random(seed + tools.index)
    over, stuck, granted = 0, 0, 0
    with contending(kind, place) as contender:

        def inside() -> None:
            nonlocal over, granted
            over += tools.oracle.enter() > 1
            granted += 1

        for number in range(rounds):
            holder, newcomer = f"{number}-holder", f"{number}-newcomer"
            if tools.index == 0:
                assert contender.claim(holder) or contender.claim_when_woken(holder)
                inside()
            tools.barrier.wait(PATIENT_SECONDS)
            _spin(dice.uniform(0, spread_seconds))
            let_in = False
            if tools.index == 0:
                tools.oracle.leave()
                contender.release(holder)
            else:
                let_in = contender.claim(newcomer)
                if let_in:
                    inside()
            tools.barrier.wait(PATIENT_SECONDS)
            if tools.index == 1:
                if not let_in and contender.claim_when_woken(newcomer):
                    let_in = True
                    inside()
                stuck += not let_in
                if let_in:
                    tools.oracle.leave()
                contender.release(newcomer)
            tools.barrier.wait(PATIENT_SECONDS)
    return {"over": over, "stuck": stuck, "claims": rounds, "granted": granted}


def _spin(seconds: float) -> None:
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        pass


def go_on(tools: Tools, place: SharedPlace) -> dict:
    """Claim, wait, work inside, release, until told to stop; what was told of each grant."""
    engine = Engine(place.store(), EngineOptions(lease_seconds=600.0))
    told = []
    try:
        while not tools.stop.is_set():
            run_id = f"{tools.progress[tools.index]}-{tools.index}"
            verdict = engine.claim(run_id, STEP, ONE)
            while not verdict.granted and not tools.stop.is_set():
                engine.wait(run_id, STEP, PATIENT_SECONDS)
                verdict = engine.claim(run_id, STEP, ONE)
            if verdict.granted:
                told.append((run_id, verdict.fence))
                tools.oracle.enter()
                tools.oracle.leave()
            engine.release(run_id, STEP)
            tools.progress[tools.index] += 1
    finally:
        tools.stop.set()  # Also when one fails: the others wait for nobody.
        engine.close()
    return {"told": told}


def migrate_together(tools: Tools, place: SharedPlace) -> dict:
    store = place.store()
    tools.barrier.wait(PATIENT_SECONDS)
    try:
        return {"version": store.migrate()}
    finally:
        store.close()


JOBS = {
    job.__name__: job
    for job in (
        claim_together,
        hammer,
        take_turns,
        release_meets_first_claim,
        go_on,
        migrate_together,
    )
}


def _serve(pipe, index, barriers, oracle, progress, stop) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Who commands the fleet decides when it ends.
    while True:
        order = pipe.recv()
        if order is None:
            return
        name, count, arguments = order
        tools = Tools(index, count, barriers[count], oracle, progress, stop)
        try:
            answer = JOBS[name](tools, *arguments)
        except BaseException:  # noqa: BLE001 - the test raises it
            barriers[count].abort()
            answer = {"error": traceback.format_exc()}
        pipe.send(answer)


class Fleet:
    """Eight processes, spawned once, for they take seconds to start."""

    def __init__(self) -> None:
        context = mp.get_context("spawn")
        self._barriers = {size: context.Barrier(size) for size in SIZES}
        self.oracle = Oracle(context)
        self.progress = context.Array("i", max(SIZES))
        self.stop = context.Event()
        self._members = []
        for index in range(max(SIZES)):
            ours, theirs = context.Pipe()
            process = context.Process(
                target=_serve,
                args=(theirs, index, self._barriers, self.oracle, self.progress, self.stop),
                daemon=True,
            )
            process.start()
            self._members.append((process, ours))

    def run(self, job: str, count: int, *arguments: object) -> list[dict]:
        self.begin(job, count, *arguments)
        return self.answers(count)

    def begin(self, job: str, count: int, *arguments: object) -> None:
        self.oracle.reset()
        self.progress[:] = [0] * max(SIZES)
        self.stop.clear()
        self._barriers[count].reset()
        for _, pipe in self._members[:count]:
            pipe.send((job, count, arguments))

    def wait_for_progress(self, count: int, rounds: int) -> None:
        """Wait until each has gone so many rounds more from now on."""
        goal = [done + rounds for done in self.progress[:count]]
        deadline = time.monotonic() + PATIENT_SECONDS
        while any(done < there for done, there in zip(self.progress[:count], goal, strict=True)):
            late = time.monotonic() > deadline or self.stop.is_set()
            assert not late, f"{self.progress[:count]} did not get to {goal}"
            time.sleep(0.01)

    def answers(self, count: int) -> list[dict]:
        """What the jobs came to; those that go on are told to stop."""
        self.stop.set()
        answers = [pipe.recv() for _, pipe in self._members[:count]]
        errors = [answer["error"] for answer in answers if "error" in answer]
        # A broken barrier is only the echo of what broke it.
        errors.sort(key=lambda text: "BrokenBarrierError" in text)
        if errors:
            raise AssertionError(errors[0])
        return answers

    def kill(self) -> None:
        """End the processes, whatever they are at."""
        for process, _ in self._members:
            process.kill()

    def close(self) -> None:
        for process, pipe in self._members:
            if process.is_alive():
                pipe.send(None)
            process.join(30)
            if process.is_alive():
                process.kill()
