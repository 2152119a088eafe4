"""A PostgreSQL server that is restarted while processes claim and release on it."""

from __future__ import annotations

import os
import signal
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from itertools import pairwise

from fleet import ONE, POOL, STEP

from dagster_lifeguard.engine.engine import Engine
from dagster_lifeguard.engine.engine_options import EngineOptions
from dagster_lifeguard.engine.store.postgres.connection import connector
from places import new_postgres
from servers import own_server

PROCESSES = 4
ROUNDS = 10
"""How often each process has to be granted the slot between two restarts."""


def test_restarts_under_load_lose_nothing_and_double_nothing(fleet):
    with own_server() as server:
        place = new_postgres(server.url)
        place.store().migrate()
        engine = Engine(place.store(), EngineOptions(lease_seconds=600.0))
        engine.change_pool(POOL, limit=2)
        # One slot is held over all restarts, the other one changes hands all the time.
        kept = engine.claim("kept", STEP, ONE)
        assert kept.granted
        fleet.begin("go_on", PROCESSES, place)
        try:
            fleet.oracle.enter()
            fleet.wait_for_progress(PROCESSES, ROUNDS)
            for how in ("fast", "immediate", "immediate"):
                server.restart(how)
                fleet.wait_for_progress(PROCESSES, ROUNDS)
            assert engine.claim("kept", STEP, ONE) == kept
            fleet.oracle.leave()
            assert engine.release("kept", STEP)
        finally:
            answers = fleet.answers(PROCESSES)

        assert fleet.oracle.worst.value == 2
        told = Counter(grant for answer in answers for grant in map(tuple, answer["told"]))
        told["kept", kept.fence] += 1
        ledger = [e for e in reversed(engine.store.ledger(pool=POOL, count_max=10**6)) if e.run_id]
        assert _by_kind(ledger) == {"granted": told, "released": told}
        assert set(told.values()) == {1}
        fences = [entry.fence for entry in ledger if entry.kind == "granted"]
        assert all(one < other for one, other in pairwise(fences))
        snapshot = engine.snapshot(POOL)
        assert snapshot.holdings == snapshot.waiting == ()
        engine.close()


def _by_kind(ledger) -> dict[str, Counter]:
    found: dict[str, Counter] = {}
    for entry in ledger:
        assert entry.slots == 1
        found.setdefault(entry.kind.value, Counter())[entry.run_id, entry.fence] += 1
    return found


def test_a_server_process_that_dies_over_a_claim_costs_nothing():
    """Killed, it says nothing: there is no error code to go by."""
    with own_server() as server, ThreadPoolExecutor() as threads:
        place = new_postgres(server.url)
        place.store().migrate()
        engine = Engine(place.store(), EngineOptions(lease_seconds=600.0))
        engine.change_pool(POOL, limit=1)
        ((backend,),) = place.sql(
            "SELECT pid FROM pg_stat_activity WHERE application_name = 'dagster-lifeguard'"
        )
        with closing(connector(place.url)()) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT 1 FROM lifeguard_pools FOR UPDATE")
            claim = threads.submit(engine.claim, "a", STEP, ONE)
            while not place.sql(f"SELECT 1 FROM pg_locks WHERE pid = {backend} AND NOT granted"):
                assert not claim.done()
            os.kill(backend, signal.SIGKILL)
            # The server starts all its processes anew, so the lock is gone too.
            assert claim.result(60).granted
        assert engine.release("a", STEP)
        engine.close()
