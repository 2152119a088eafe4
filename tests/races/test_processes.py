"""Real processes against one database, judged by an oracle outside of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from fleet import POOL, STEP, make_gate, stock_storage

from dagster_lifeguard.engine.engine import Engine
from dagster_lifeguard.engine.engine_options import EngineOptions
from dagster_lifeguard.engine.rules.model import Demand, Granted
from dagster_lifeguard.engine.store.sql import newest_version
from places import new_postgres

ONE = Demand.of({POOL: 1})
ROUNDS = 500 if "LIFEGUARD_TORTURE" in os.environ else 100
"""For each number of processes; the slices of ``make torture`` run thousands."""


@pytest.fixture
def engine(shared_place):
    shared_place.store().migrate()
    made = Engine(shared_place.store(), EngineOptions(lease_seconds=600.0))
    yield made
    made.close()


@pytest.mark.parametrize("limit", [1, 3])
@pytest.mark.parametrize("count", [2, 4, 8])
def test_simultaneous_claims_never_exceed_the_limit(fleet, shared_place, engine, count, limit):
    engine.change_pool(POOL, limit=limit)
    answers = fleet.run("claim_together", count, "lifeguard", shared_place, limit, ROUNDS)

    assert sum(answer["over"] for answer in answers) == 0
    assert sum(answer["claims"] for answer in answers) == count * ROUNDS
    # And never fall short of it: with nobody before them, as many go in as may.
    assert sum(answer["short"] for answer in answers) == 0


def test_the_harness_finds_the_stock_storage_over_the_limit(fleet, shared_place):
    shared_place.make_stock_tables()
    storage = stock_storage(shared_place)
    storage.set_concurrency_slots(POOL, 1)
    for _ in range(20):
        answers = fleet.run("claim_together", 4, "stock", shared_place, 1, 15)
        if any(answer["over"] for answer in answers):
            break
    else:
        pytest.fail("300 rounds of four stock processes kept to the limit: is this harness blind?")


@pytest.mark.parametrize("limit", [1, 3])
def test_hammering_keeps_the_limit_and_leaves_nobody_waiting(fleet, shared_place, engine, limit):
    """Everybody is woken, for nobody looks again on its own here."""
    engine.change_pool(POOL, limit=limit)
    answers = fleet.run("hammer", 4, "lifeguard", shared_place, limit, 60)

    assert sum(answer["over"] for answer in answers) == 0
    assert sum(answer["stuck"] for answer in answers) == 0
    assert fleet.oracle.worst.value <= limit
    assert engine.snapshot(POOL).holdings == engine.snapshot(POOL).waiting == ()


@pytest.mark.parametrize("limit", [1, 2])
def test_stock_processes_beside_the_engine_never_exceed_the_limit(fleet, shared_place, limit):
    """Each kind is let in only while the other is out, again and again."""
    shared_place.make_stock_tables()
    shared_place.store().migrate()
    storage = stock_storage(shared_place)
    storage.set_concurrency_slots(POOL, limit)
    make_gate(shared_place)
    kinds = ("beside stock", "stock")
    answers = fleet.run("take_turns", 4, kinds, shared_place, limit, 30, 7)

    assert sum(answer["over"] for answer in answers) == 0
    assert fleet.oracle.turns.value >= 30
    storage.set_concurrency_slots(POOL, 0)
    assert shared_place.sql("SELECT count(*) FROM concurrency_slots") == [(0,)]


def test_a_release_that_meets_a_first_claim_loses_no_wake_up(fleet, shared_place, engine):
    engine.change_pool(POOL, limit=1)
    answers = fleet.run("release_meets_first_claim", 2, "lifeguard", shared_place, 0.002, 300, 7)

    assert sum(answer["stuck"] for answer in answers) == 0


def test_processes_that_start_at_once_make_the_tables_once(fleet, tmp_path, request, shared_place):
    answers = fleet.run("migrate_together", 8, shared_place)

    newest = newest_version(shared_place.kind)
    assert {answer["version"] for answer in answers} == {newest}
    assert shared_place.sql("SELECT version FROM lifeguard_schema") == [(newest,)]


HOLDER = """
import sys
sys.path[:0] = {path!r}
from places import PostgresPlace, SqlitePlace
from dagster_lifeguard.engine.engine import Engine
from dagster_lifeguard.engine.rules.model import Demand
from dagster_lifeguard.engine.engine_options import EngineOptions
engine = Engine({place!r}.store(), EngineOptions(lease_seconds=2.0))
verdict = engine.claim("killed", "step", Demand.of({{"orders": 1}}))
print(verdict.fence, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def holder(shared_place, engine):
    """Another process that holds the one slot."""
    engine.change_pool(POOL, limit=1)
    path = [str(Path(__file__).parents[1])]
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", HOLDER.format(path=path, place=shared_place)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    process.fence = int(process.stdout.readline())
    assert not engine.claim("next", STEP, ONE).granted
    yield process
    process.kill()
    process.wait()
    process.stdin.close()
    process.stdout.close()


def claim_until_granted(engine, run_id):
    """Look until the slot is there; the test's own timeout is the only clock."""
    while True:
        verdict = engine.claim(run_id, STEP, ONE)
        if isinstance(verdict, Granted):
            return verdict
        engine.wait(run_id, STEP, 0.2)


def test_a_killed_process_frees_its_slot_within_its_lease(holder, engine):
    holder.kill()
    holder.wait()

    verdict = claim_until_granted(engine, "next")

    assert verdict.fence > holder.fence
    kinds = [(e.kind, e.run_id) for e in engine.store.ledger(pool=POOL)]
    assert kinds[:2] == [("granted", "next"), ("expired", "killed")]


def test_a_live_process_keeps_its_slot_beyond_its_lease(holder, engine, shared_place):
    began = engine.store.ledger(count_max=1)[0].at
    number = 0
    while engine.store.ledger(count_max=1)[0].at < began + 5.0:
        number += 1
        engine.change_pool("clock", limit=number % 2)
        assert not engine.claim("next", STEP, ONE).granted
        engine.wait("next", STEP, 0.1)
    holder.kill()
    holder.wait()
    assert claim_until_granted(engine, "next").granted


def test_a_stopped_process_loses_its_slot_to_a_higher_fence(holder, engine):
    os.kill(holder.pid, signal.SIGSTOP)
    try:
        verdict = claim_until_granted(engine, "next")
    finally:
        os.kill(holder.pid, signal.SIGCONT)

    assert verdict.fence > holder.fence
    assert engine.ticket("killed", "step") is None


def test_a_fork_gets_a_session_of_its_own_and_leaves_the_parents_alone(shared_place, engine):
    engine.change_pool(POOL, limit=1)
    verdict = engine.claim("parent", STEP, ONE)
    session = engine.session
    reads, writes = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            told = engine.claim("child", STEP, ONE)
            if not told.granted and engine.session not in {None, session}:
                engine.close()
                status = 0
        finally:
            os.write(writes, b"done")
            os._exit(status)
    assert os.read(reads, 4) == b"done"
    _, status = os.waitpid(pid, 0)
    os.close(reads)
    os.close(writes)

    assert os.waitstatus_to_exitcode(status) == 0
    assert engine.session == session
    assert engine.heartbeat()
    assert engine.claim("parent", STEP, ONE) == verdict
    assert engine.snapshot(POOL).waiting == ()
    assert engine.release("parent", STEP)


def test_a_server_that_ends_our_connection_costs_nothing(postgres_url):
    place = new_postgres(postgres_url)
    place.store().migrate()
    engine, other = Engine(place.store()), Engine(place.store())
    engine.change_pool(POOL, limit=1)
    verdict = engine.claim("a", STEP, ONE)
    other.claim("b", STEP, ONE)

    place.sql(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE application_name = 'dagster-lifeguard'"
    )

    assert engine.claim("a", STEP, ONE) == verdict
    # The wake-up reaches it over the new connection: it listens again.
    assert not other.claim("b", STEP, ONE).granted
    assert engine.release("a", STEP)
    assert other.wait("b", STEP, 300)
    assert other.claim("b", STEP, ONE).granted
    engine.close()
    other.close()
