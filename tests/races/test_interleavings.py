"""Two verbs in exactly one order: one is stopped at a point, the other runs, no sleeps.

Whatever the order, the outcome is one that some order of whole verbs has: no slot too many, and
nobody left waiting beside a free slot without having been woken.
"""

from __future__ import annotations

import threading
import time

import pytest

from dagster_lifeguard.engine.engine import Engine
from dagster_lifeguard.engine.engine_options import EngineOptions
from dagster_lifeguard.engine.rules.model import Demand, TicketKey
from dagster_lifeguard.engine.store.postgres.connection import Statement
from places import age_session, new_postgres

ONE = Demand.of({"orders": 1})
POINTS = ("begin", "viewed", "decided", "committed")
PATIENT_SECONDS = 60.0


class Gate:
    """Stops the first verb that comes to a point, until it is opened."""

    def __init__(self, point=None):
        self.point = point
        self.reached = threading.Event()
        self.opened = threading.Event()
        self.begun = threading.Event()

    def __call__(self, point):
        if point == "begin":
            self.begun.set()
        if point == self.point and not self.reached.is_set():
            self.reached.set()
            assert self.opened.wait(PATIENT_SECONDS)


class Doing(threading.Thread):
    """A verb in a thread, whose answer or error is kept."""

    def __init__(self, verb):
        super().__init__(daemon=True)
        self.verb = verb
        self.answer = None
        self.error = None
        self.start()

    def run(self):
        try:
            self.answer = self.verb()
        except BaseException as error:  # noqa: BLE001 - raised by the test
            self.error = error

    def result(self):
        self.join(PATIENT_SECONDS)
        assert not self.is_alive()
        if self.error:
            raise self.error
        return self.answer


@pytest.fixture
def scene(shared_place):
    """Engines on one database, of which the first stops at a gate once there is one."""
    shared_place.store().migrate()
    made = []

    class Scene:
        place = shared_place

        def engine(self, gate=lambda point: None):
            # Nobody looks again on its own: a wake-up that is lost is seen to be lost.
            options = EngineOptions(look_again_seconds=3600.0, lease_seconds=7200.0)
            made.append(Engine(shared_place.store(), options, gate))
            return made[-1]

        def play(self, point, stopped, gate, other, other_gate):
            """Stop one verb at a point, start the other, let the first go on."""
            first = Doing(stopped)
            assert gate.reached.wait(PATIENT_SECONDS)
            second = Doing(other)
            if point == "begin":
                second.join(PATIENT_SECONDS)  # Nothing is locked: it runs through.
                assert not second.is_alive()
            else:
                assert other_gate.begun.wait(PATIENT_SECONDS)
            gate.opened.set()
            return first.result(), second.result()

    yield Scene()
    for engine in made:
        engine.close()


def ask(engine, run_id):
    return engine.claim(run_id, "step", ONE)


def is_let_in(engine, run_id, verdict):
    """Granted now, or woken and granted."""
    if verdict.granted:
        return True
    return engine.wait(run_id, "step", PATIENT_SECONDS) and ask(engine, run_id).granted


@pytest.mark.parametrize("point", POINTS)
def test_claim_and_claim(scene, point):
    gate, other_gate = Gate(), Gate()
    one, two = scene.engine(gate), scene.engine(other_gate)
    one.change_pool("orders", limit=1)
    for engine in (one, two):  # Sessions first: the gate is for the claim.
        engine.claim("warm", engine.session or "up", Demand.of({"elsewhere": 1}))
    gate.point = point
    gate.reached.clear()
    other_gate.begun.clear()

    first, second = scene.play(
        point, lambda: ask(one, "a"), gate, lambda: ask(two, "b"), other_gate
    )

    assert [first.granted, second.granted] == [point != "begin", point == "begin"]
    assert len(one.snapshot("orders").holdings) == 1
    assert len(one.snapshot("orders").waiting) == 1


@pytest.mark.parametrize("point", ["viewed", "decided"])
def test_a_claim_that_looked_and_one_that_presumes(postgres_url, point):
    place = new_postgres(postgres_url)
    place.store().migrate()
    gate = Gate(point)
    looks, presumes = Engine(place.store(), passing=gate), Engine(place.store())
    presumes.change_pool("orders", limit=1)
    presumes.settings()
    first = Doing(lambda: ask(looks, "a"))
    assert gate.reached.wait(PATIENT_SECONDS)
    second = Doing(lambda: ask(presumes, "b"))
    # It has presumed and written, were it not for the lock.
    deadline = time.monotonic() + PATIENT_SECONDS
    while second.is_alive() and not place.sql("SELECT 1 FROM pg_locks WHERE NOT granted"):
        assert time.monotonic() < deadline
    gate.opened.set()

    assert first.result().granted
    assert not second.result().granted
    for engine in (looks, presumes):
        engine.close()


@pytest.mark.parametrize(
    ("point", "stops", "by"),
    [
        *((point, "claim", by) for point in POINTS for by in ("holder", "another")),
        *((point, "release", "another") for point in POINTS),
        # Who knows what it holds looks and writes in one: there is nothing in between.
        *((point, "release", "holder") for point in ("begin", "committed")),
    ],
)
def test_release_and_first_claim(scene, point, stops, by):
    """The order in which the stock storage loses the wake-up for ever."""
    gate, other_gate = Gate(), Gate()
    releaser = scene.engine(gate if stops == "release" else other_gate)
    newcomer = scene.engine(other_gate if stops == "release" else gate)
    holder = releaser if by == "holder" else scene.engine()
    holder.change_pool("orders", limit=1)
    ask(holder, "a")
    newcomer.claim("warm", "up", Demand.of({"elsewhere": 1}))
    gate.point = point
    gate.reached.clear()
    other_gate.begun.clear()

    def release():
        return releaser.release("a", "step")

    def claim():
        return ask(newcomer, "b")

    if stops == "release":
        released, verdict = scene.play(point, release, gate, claim, other_gate)
    else:
        verdict, released = scene.play(point, claim, gate, release, other_gate)

    assert released
    assert is_let_in(newcomer, "b", verdict)
    assert [h.key.run_id for h in holder.snapshot("orders").holdings] == ["b"]
    assert holder.snapshot("orders").waiting == ()


@pytest.mark.parametrize("point", POINTS)
def test_raising_the_limit_and_first_claim(scene, point):
    gate, other_gate = Gate(), Gate()
    raiser, newcomer = scene.engine(gate), scene.engine(other_gate)
    newcomer.change_pool("orders", limit=0)
    newcomer.claim("warm", "up", Demand.of({"elsewhere": 1}))
    gate.point = point
    other_gate.begun.clear()

    _, verdict = scene.play(
        point,
        lambda: raiser.change_pool("orders", limit=1),
        gate,
        lambda: ask(newcomer, "b"),
        other_gate,
    )

    assert is_let_in(newcomer, "b", verdict)


@pytest.mark.parametrize("point", POINTS)
def test_reaping_and_reaping(scene, point):
    """Both see the same dead sessions: each is ended once, nothing is left, the waiter is let in."""
    gate, other_gate = Gate(), Gate()
    one, two, waiting = scene.engine(gate), scene.engine(other_gate), scene.engine()
    parent, step = scene.engine(), scene.engine()
    one.change_pool("orders", limit=1)
    ask(parent, "a")
    step.adopt("a", "step")
    verdict = ask(waiting, "b")
    for dead in (parent, step):
        age_session(scene.place, dead.session)
    gate.point = point
    other_gate.begun.clear()

    ended = sum(scene.play(point, one.reap, gate, two.reap, other_gate))

    # What one skipped because the other had it under lock is left to the next: one more look.
    assert ended + one.reap() == 2
    assert is_let_in(waiting, "b", verdict)
    kinds = [e.kind for e in one.store.ledger(pool="orders") if e.run_id == "a"]
    assert kinds == ["expired", "granted"]


@pytest.mark.parametrize("point", POINTS)
def test_reaping_and_the_claim_of_the_same_session(scene, point):
    """A late process claims while it is being reaped: it holds, or it was told; never neither."""
    lost = []
    gate, other_gate = Gate(), Gate()
    reaper = scene.engine(gate)
    late = Engine(
        scene.place.store(),
        EngineOptions(on_lease_lost=lost.extend),
        other_gate,
    )
    late.change_pool("orders", limit=2)
    ask(late, "a")
    age_session(scene.place, late.session)
    gate.point = point
    other_gate.begun.clear()

    ended, verdict = scene.play(point, reaper.reap, gate, lambda: ask(late, "b"), other_gate)

    assert verdict.granted
    holding = {h.key.run_id: h.owners for h in reaper.snapshot("orders").holdings}
    assert holding["b"] == {late.session}
    assert ("a" in holding) == (lost == []) == (ended == 0)
    assert late.heartbeat()
    late.close()
    assert reaper.snapshot("orders").holdings == ()


@pytest.mark.parametrize("point", POINTS)
def test_adopting_and_reaping_the_parent(scene, point):
    gate, other_gate = Gate(), Gate()
    reaper, step, parent = scene.engine(gate), scene.engine(other_gate), scene.engine()
    parent.change_pool("orders", limit=1)
    ask(parent, "a")
    step.claim("warm", "up", Demand.of({"elsewhere": 1}))
    age_session(scene.place, parent.session)
    gate.point = point
    other_gate.begun.clear()

    _, fence = scene.play(point, reaper.reap, gate, lambda: step.adopt("a", "step"), other_gate)
    reaper.reap()

    holdings = reaper.snapshot("orders").holdings
    assert [h.owners for h in holdings] == ([{step.session}] if fence else [])


@pytest.mark.parametrize("point", POINTS)
def test_lowering_the_limit_and_claiming(scene, point):
    gate, other_gate = Gate(), Gate()
    setter, claimer = scene.engine(gate), scene.engine(other_gate)
    claimer.change_pool("orders", limit=1)
    claimer.claim("warm", "up", Demand.of({"elsewhere": 1}))
    gate.point = point
    other_gate.begun.clear()

    _, verdict = scene.play(
        point,
        lambda: setter.change_pool("orders", limit=0),
        gate,
        lambda: ask(claimer, "b"),
        other_gate,
    )

    kinds = [e.kind for e in reversed(setter.store.ledger(pool="orders"))]
    if verdict.granted:
        assert kinds == ["limit", "granted", "limit"]
    else:
        assert kinds == ["limit", "limit"]


def test_a_session_cannot_be_ended_under_a_claim_that_has_seen_it_alive(postgres_url):
    """Else the holding would be owned by nobody, and kept for ever."""
    place = new_postgres(postgres_url)
    place.store().migrate()
    gate = Gate()
    claimer, reaper = Engine(place.store(), passing=gate), Engine(place.store())
    claimer.change_pool("orders", limit=1)
    claimer.claim("warm", "up", Demand.of({"elsewhere": 1}))
    gate.point = "viewed"
    session = claimer.session

    claim = Doing(lambda: ask(claimer, "a"))
    assert gate.reached.wait(PATIENT_SECONDS)
    age_session(place, session)
    assert reaper.reap() == 0
    gate.opened.set()

    assert claim.result().granted
    assert [h.owners for h in reaper.snapshot("orders").granted] == [{session}]
    assert reaper.reap() == 1
    assert reaper.snapshot("orders").holdings == ()
    claimer.close()
    reaper.close()


def test_a_claim_and_a_heartbeat_that_gives_back_do_not_wait_for_each_other(shared_place):
    """One has the connection and takes note of its verdict; the other gives back, and asks."""
    armed = threading.Event()
    # On SQLite a claim looks, and has the connection from then on.
    held_since = "decided" if shared_place.kind == "sqlite" else "committed"

    def passing(point):
        if point == held_since and armed.is_set():
            armed.clear()
            tidying.start()
            while tidying.is_alive() and not engine._own._settling.locked():
                time.sleep(0.001)

    shared_place.store().migrate()
    engine = Engine(shared_place.store(), EngineOptions(), passing)
    tidying = threading.Thread(target=engine.tidy, daemon=True)
    claiming = threading.Thread(target=engine.claim, args=("a", "step", ONE), daemon=True)
    engine.change_pool("orders", limit=2)
    engine.claim("owed", "step", ONE)
    engine._own.owe(TicketKey("owed", "step"), None)  # As after a release that failed.
    armed.set()
    claiming.start()
    for thread in (claiming, tidying):
        thread.join(PATIENT_SECONDS)
        assert not thread.is_alive()
    assert [h.key.run_id for h in engine.snapshot("orders").holdings] == ["a"]
    engine.close()


def test_a_claim_while_an_owed_release_is_made_good_holds_what_it_was_told(shared_place):
    armed = threading.Event()
    told = []

    def passing(point):
        if point == "begin" and armed.is_set():
            armed.clear()
            claiming.start()
            claiming.join(0.3)  # It is not answered before the release has come to its end.

    shared_place.store().migrate()
    engine = Engine(shared_place.store(), EngineOptions(), passing)
    claiming = threading.Thread(target=lambda: told.append(engine.claim("a", "step", ONE)))
    engine.change_pool("orders", limit=1)
    first = engine.claim("a", "step", ONE)
    engine._own.owe(TicketKey("a", "step"), None)
    armed.set()
    engine.tidy()
    claiming.join(PATIENT_SECONDS)
    (verdict,) = told
    assert verdict.fence > first.fence
    assert engine.ticket("a", "step").fence == verdict.fence
    engine.close()


def test_a_release_whose_wake_up_is_lost_says_that_it_released(postgres_url):
    """The connection dies after the commit and before the hint."""
    place = new_postgres(postgres_url)
    place.store().migrate()
    holder, waiting = Engine(place.store()), Engine(place.store())
    holder.change_pool("orders", limit=1)
    ask(holder, "a")
    ask(waiting, "b")
    connection = holder.store.connection
    ((pid,),) = connection.execute([Statement("SELECT pg_backend_pid()")])
    execute = connection.execute

    def killed_before_the_hint(statements):
        if "pg_notify" in statements[0].text:
            assert place.sql(f"SELECT pg_terminate_backend({pid}, 60000)") == [(True,)]
        return execute(statements)

    connection.execute = killed_before_the_hint

    assert holder.release("a", "step")
    assert holder.ticket("a", "step") is None
    assert ask(waiting, "b").granted  # As it would ask by itself when it looks again.
    holder.close()
    waiting.close()
