"""Real forks of a process that uses the engine: parent, child and threads on one database."""

from __future__ import annotations

import ctypes
import gc
import os
import pickle
import select
import signal
import sqlite3
import threading
from contextlib import closing, suppress
from functools import partial
from pathlib import Path

import dagster as dg
import pytest

from dagster_lifeguard.engine import forks
from dagster_lifeguard.engine.engine import Engine
from dagster_lifeguard.engine.engine_options import EngineOptions
from dagster_lifeguard.engine.rules.model import Demand
from dagster_lifeguard.errors import StoreUnavailableError
from places import new_sqlite

ORDERS = Demand.of({"orders": 1})
PATIENT_SECONDS = 120.0
FORKS = 100 if "LIFEGUARD_TORTURE" in os.environ else 30


class Child:
    """A fork that answers one question after another."""

    def __init__(self, *questions) -> None:
        reads, self._go = os.pipe()
        self._answers, writes = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            try:
                os.close(self._go)
                for question in questions:
                    os.read(reads, 1)
                    try:
                        answer = question()
                    except Exception as error:  # noqa: BLE001 - told to the test
                        answer = error
                    os.write(writes, pickle.dumps(answer))
            finally:
                os._exit(0)
        os.close(reads)
        os.close(writes)

    def answer(self):
        """Put the next question; fails when the child hangs."""
        os.write(self._go, b"x")
        ready, _, _ = select.select([self._answers], [], [], PATIENT_SECONDS)
        assert ready, "the child hangs"
        return pickle.loads(os.read(self._answers, 65536))

    def end(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        os.close(self._go)
        os.close(self._answers)


@pytest.fixture
def child():
    made = []

    def make(*questions):
        made.append(Child(*questions))
        return made[-1]

    yield make
    for found in made:
        found.end()


@pytest.fixture
def engine(shared_place):
    shared_place.store().migrate()
    made = Engine(shared_place.store(), EngineOptions(lease_seconds=600.0))
    made.change_pool("orders", limit=1)
    yield made
    made.close()


def fence_of(engine, run_id):
    verdict = engine.claim(run_id, "step", ORDERS)
    return verdict.fence if verdict.granted else None


@pytest.mark.parametrize("closes", ["before", "after", "never"])
def test_a_slot_that_a_fork_holds_is_held_for_everybody(shared_place, engine, child, closes):
    """Whoever closes first: SQLite's journal and locks must be the child's own."""
    fences = []
    for number in range(FORKS // 5):
        fences.append(fence_of(engine, f"parent{number}"))
        engine.release(f"parent{number}", "step")
        forked = child(
            lambda number=number: fence_of(engine, f"child{number}"),
            lambda number=number: engine.release(f"child{number}", "step"),
        )
        if closes == "before":
            engine.close()
        fences.append(forked.answer())
        if closes == "after":
            engine.close()

        assert fence_of(engine, "beside") is None
        assert [h.key.run_id for h in engine.snapshot("orders").holdings] == [f"child{number}"]
        engine.release("beside", "step")
        assert forked.answer() is True
    fences.append(fence_of(engine, "last"))
    assert None not in fences
    assert fences == sorted(set(fences))


def open_files(path):
    """The files of this process that begin with a path."""
    found = []
    for descriptor in Path("/proc/self/fd").iterdir():
        with suppress(OSError):  # The listing's own is gone.
            found.append(str(descriptor.readlink()))
    return [file for file in found if file.startswith(path)]


@pytest.fixture
def no_collection():
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("no_collection")
def test_a_dropped_store_is_closed_at_once(tmp_path):
    """Python keeps a dropped SQLite connection open until the next collection."""
    place = new_sqlite(tmp_path)
    place.store().migrate()
    assert open_files(place.path) == []


@pytest.mark.usefixtures("no_collection")
def test_a_store_that_is_dropped_at_a_bad_moment_is_closed_by_the_next(tmp_path):
    """A collection may drop it in the thread that holds the lock of forks."""
    place, other = new_sqlite(tmp_path), new_sqlite(tmp_path)
    store = place.store()
    store.migrate()
    with forks._forks._changed:
        del store
        assert open_files(place.path) != []
    other.store().migrate()
    assert open_files(place.path) == []


@pytest.mark.usefixtures("no_collection")
@pytest.mark.parametrize("uses", ["engine", "dropped engine", "threads", "instance"])
def test_a_fork_inherits_no_open_file(tmp_path, child, make_home, uses):
    """SQLite's record of the locks of an open file would be the parent's."""
    place = new_sqlite(tmp_path)
    place.store().migrate()
    engine = Engine(place.store())
    engine.change_pool("orders", limit=1)
    done = threading.Event()

    def work(name):
        while not done.is_set():
            fence_of(engine, name)
            engine.release(name, "step")
            engine.heartbeat()

    threads = [threading.Thread(target=work, args=(name,)) for name in "ab"]
    path = place.path
    if uses == "dropped engine":
        engine = None
    elif uses == "threads":
        for thread in threads:
            thread.start()
    elif uses == "instance":
        home = make_home("sqlite")
        path = str(home.path)
        instance = dg.DagsterInstance.from_config(path)  # Never disposed of.
        instance.event_log_storage.set_concurrency_slots("orders", 1)
        instance.get_runs()
    try:
        for _ in range(5):
            forked = child(lambda: open_files(path))
            assert forked.answer() == []
    finally:
        done.set()
    for thread in threads:
        if thread.ident is not None:
            thread.join(PATIENT_SECONDS)


def test_forks_while_threads_are_busy_neither_hang_nor_exceed_the_limit(
    shared_place, engine, child
):
    done = threading.Event()
    fences, failed = [], []

    def work(name):
        try:
            number = 0
            while not done.is_set():
                number += 1
                fence = fence_of(engine, f"{name}{number}")
                if fence is not None:
                    fences.append(fence)
                engine.release(f"{name}{number}", "step")
        except Exception as error:
            failed.append(error)
            raise

    def once(number):
        while (fence := fence_of(engine, f"child{number}")) is None:
            engine.wait(f"child{number}", "step", 0.05)
        engine.release(f"child{number}", "step")
        engine.close()
        return fence

    threads = [threading.Thread(target=work, args=(name,)) for name in "ab"]
    for thread in threads:
        thread.start()
    try:
        for number in range(FORKS):
            forked = child(lambda number=number: once(number))
            found = forked.answer()
            assert isinstance(found, int), found
            fences.append(found)
    finally:
        done.set()
        for thread in threads:
            thread.join(PATIENT_SECONDS)
    assert failed == []
    assert len(fences) == len(set(fences)) > FORKS
    ledger = [e.fence for e in engine.store.ledger(count_max=10**6) if e.kind == "granted"]
    assert set(fences) <= set(ledger)
    assert len(ledger) == len(set(ledger))
    if shared_place.kind == "sqlite":
        with closing(sqlite3.connect(shared_place.path)) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_a_fork_in_the_middle_of_a_transaction_is_refused_and_harms_nobody(shared_place, child):
    """What the child believes about SQLite's locks is the parent's, and cannot be mended."""
    made = []

    def passing(point):
        if point == "viewed" and not made:
            made.append(child(lambda: fence_of(engine, "child"), lambda: fence_of(engine, "b")))

    shared_place.store().migrate()
    engine = Engine(shared_place.store(), EngineOptions(), passing)
    engine.change_pool("orders", limit=1)
    made.clear()
    engine.claim("warm", "up", Demand.of({"elsewhere": 1}))
    fence = fence_of(engine, "parent") if made else None
    assert fence
    (forked,) = made
    for _ in range(2):
        answer = forked.answer()
        if shared_place.kind == "sqlite":
            assert isinstance(answer, StoreUnavailableError)
            assert "forked while its parent used the SQLite database" in answer.message
        else:  # A connection of its own, and the parent's slot is held.
            assert answer is None
    assert [h.fence for h in engine.snapshot("orders").holdings] == [fence]
    engine.close()


def test_a_thread_that_does_not_end_its_transaction_holds_a_fork_up_for_a_while_only(
    tmp_path, child, monkeypatch
):
    monkeypatch.setattr(forks, "_PATIENCE_SECONDS", 0.2)
    place = new_sqlite(tmp_path)
    place.store().migrate()
    inside, go_on = threading.Event(), threading.Event()

    def passing(point):
        if point == "viewed" and not inside.is_set():
            inside.set()
            assert go_on.wait(PATIENT_SECONDS)

    engine = Engine(place.store(), EngineOptions(), passing)
    thread = threading.Thread(target=partial(engine.change_pool, "orders", limit=1))
    thread.start()
    assert inside.wait(PATIENT_SECONDS)
    forked = child(lambda: fence_of(engine, "child"))
    go_on.set()
    thread.join(PATIENT_SECONDS)

    assert isinstance(forked.answer(), StoreUnavailableError)
    assert fence_of(engine, "parent")
    # A fork of this process at a better moment is as good as ever.
    assert child(lambda: fence_of(engine, "later")).answer() is None
    engine.close()


def test_a_fork_does_not_wait_for_a_claim_that_waits_for_another_process(tmp_path, child):
    """SQLite lets one process write at a time: a claim may wait half a minute for its turn."""
    place = new_sqlite(tmp_path)
    place.store().migrate()
    engine = Engine(place.store())
    engine.change_pool("orders", limit=1)
    with closing(sqlite3.connect(place.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        claiming = threading.Thread(target=fence_of, args=(engine, "parent"))
        claiming.start()
        forked = child(os.getpid)
        assert forked.answer() == forked.pid
        other.execute("COMMIT")
    claiming.join(PATIENT_SECONDS)
    assert [h.key.run_id for h in engine.snapshot("orders").holdings] == ["parent"]
    engine.close()


def test_a_child_that_was_forked_behind_pythons_back_is_refused(shared_place, engine):
    assert fence_of(engine, "parent")
    reads, writes = os.pipe()
    pid = ctypes.CDLL(None).fork()
    if pid == 0:
        try:
            engine.claim("child", "step", ORDERS)
        except StoreUnavailableError as error:
            os.write(writes, error.message.encode())
        finally:
            os._exit(0)
    os.close(writes)
    with os.fdopen(reads, "rb") as answer:
        assert b"forked without Python's knowledge" in answer.read()
    os.waitpid(pid, 0)
    assert fence_of(engine, "parent")


def test_a_session_of_many_instances_is_one_in_a_fork_as_well(shared_place, engine, child):
    def sessions():
        fence_of(engine, "child")
        return len(shared_place.sql("SELECT 1 FROM lifeguard_sessions"))

    fence_of(engine, "parent")
    forked = child(sessions, engine.close)
    assert forked.answer() == 2
    forked.answer()
    assert shared_place.sql("SELECT count(*) FROM lifeguard_sessions") == [(1,)]
    assert engine.heartbeat()
