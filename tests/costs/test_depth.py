"""A decision costs the same at any depth: counted with ten and with ten thousand of each thing."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import pytest
from homes import eventually
from work import Work, work_of

from dagster_lifeguard.engine.engine import Engine
from dagster_lifeguard.engine.engine_options import EngineOptions
from dagster_lifeguard.engine.rules.model import Demand
from dagster_lifeguard.engine.rules.pool_settings import PoolSettings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from places import SharedPlace

FEW, SOME, MANY = 10, 100, 10_000
FULL_VIEW = 4.0
"""A decision looks at 32 waiters, and one more: with ten there is less to see."""
SLACK = 0.1
"""What an index that is deeper may cost."""

ORDERS = Demand.of({"orders": 1})
NEVER = 1e6


class Waiting(NamedTuple):
    """A ticket that waits."""

    session: str = "live"
    slots: int = 1
    group: str | None = None


class Shape(NamedTuple):
    """What is there.

    Attributes:
        limit: The pool's.
        tickets: So many tickets at its queue, oldest first.
        fair_by: By which tag it is shared fairly.
    """

    limit: int
    tickets: Callable[[int], Iterable[Waiting]]
    fair_by: str | None = None


SHAPES = {
    "that wait": Shape(1, lambda count: [Waiting()] * count),
    "at a paused pool": Shape(0, lambda count: [Waiting()] * count),
    "that ask for more than the limit": Shape(1, lambda count: [Waiting(slots=2)] * count),
    "groups": Shape(1, lambda count: [Waiting(group=f"g{n}") for n in range(count)], "team"),
    "of one group": Shape(1, lambda count: [Waiting(group="g")] * count, "team"),
    "groups that ask for more than the limit": Shape(
        1, lambda count: [Waiting(slots=2, group=f"g{n}") for n in range(count)], "team"
    ),
    "groups at a paused pool": Shape(
        0, lambda count: [Waiting(group=f"g{n}") for n in range(count)], "team"
    ),
}


def insert(place: SharedPlace, table: str, columns: str, values: Iterable[str]) -> None:
    rows = list(values)
    for start in range(0, len(rows), 500):
        text = ", ".join(rows[start : start + 500])
        place.sql(f"INSERT INTO {table} ({columns}) VALUES {text}")
        if start in (0, 2000):  # Else triggers read all that was inserted, for each row that is.
            analyze(place)


def analyze(place: SharedPlace) -> None:
    """Let the database know how much is in the tables. The server has those of other tests too."""
    if place.kind == "postgres":
        ((tables,),) = place.sql(
            "SELECT string_agg(tablename, ', ') FROM pg_tables WHERE schemaname = current_schema()"
        )
        place.sql(f"ANALYZE {tables}")


def wait_for_older_snapshots(place: SharedPlace) -> None:
    """Wait until nothing sees what was deleted before: only then do indexes forget it.

    Other tests use the same PostgreSQL database, and so does autovacuum.
    """
    if place.kind == "postgres":
        ((xid,),) = place.sql("SELECT pg_current_xact_id()::xid::text")
        older = (
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() "
            f"AND age(backend_xmin) > age('{xid}'::xid)"
        )
        eventually(lambda: place.sql(older) == [(0,)])


def fill(place: SharedPlace, shape: Shape, count: int, lease_seconds: float = NEVER) -> None:
    """Put the shape's tickets into the tables, and their processes with such a lease."""
    now = time.time()
    tickets = list(enumerate(shape.tickets(count), start=-1_000_000))
    insert(
        place,
        "lifeguard_sessions",
        "session, label, started_at, lease_until, package, tables",
        (
            f"('{name}', 'host:1', {now}, {now + lease_seconds}, '', 1)"
            for name in {t.session for _, t in tickets}
        ),
    )
    insert(
        place,
        "lifeguard_tickets",
        "number, run_id, step_key, priority, demand, session, since",
        (
            f"({number}, 'w{number}', 'step', 0, '{{\"orders\": {t.slots}}}', '{t.session}', {now})"
            for number, t in tickets
        ),
    )
    yes = "1" if place.kind == "sqlite" else "TRUE"
    insert(
        place,
        "lifeguard_queue",
        'pool, number, priority, slots, queued, "group"',
        (
            f"('orders', {number}, 0, {t.slots}, {yes}, {repr(t.group) if t.group else 'NULL'})"
            for number, t in tickets
        ),
    )
    groups = {t.group for _, t in tickets if t.group}
    insert(
        place,
        "lifeguard_groups",
        'pool, "group", begins',
        (f"('orders', '{g}', 0)" for g in groups),
    )
    analyze(place)


def engine_on(place: SharedPlace, shape: Shape) -> Engine:
    # With a long lease: a heartbeat would be counted as work.
    options = EngineOptions(lease_seconds=3600.0, look_again_seconds=NEVER)
    engine = Engine(place.store(), options)
    engine.store.migrate()
    orders = PoolSettings(shape.limit, fair_by=shape.fair_by or None)
    engine.set_pools({"orders": orders, "idle": PoolSettings(1)})
    engine.claim("first", "step", Demand.of({"idle": 1}))
    engine.release("first", "step")
    return engine


def costs(engine: Engine) -> dict[str, Work]:
    """What each verb costs once it has been done before."""
    run = iter(range(100))

    def claim() -> None:
        engine.claim(f"new{next(run)}", "step", ORDERS, tags=lambda: {"team": "mine"})

    for _ in range(2):
        claim()
        engine.claim("again", "step", ORDERS, tags=lambda: {"team": "mine"})
    return {
        "claim": work_of(engine, claim),
        "claim again": work_of(
            engine, lambda: engine.claim("again", "step", ORDERS, tags=lambda: {"team": "mine"})
        ),
        "withdraw": work_of(engine, lambda: engine.release("new0", "step")),
        "raise the limit": work_of(engine, lambda: engine.change_pool("orders", limit=3)),
        "claim elsewhere": work_of(
            engine, lambda: engine.claim("elsewhere", "step", Demand.of({"idle": 1}))
        ),
        "release elsewhere": work_of(engine, lambda: engine.release("elsewhere", "step")),
    }


@pytest.mark.parametrize("name", SHAPES)
def test_a_decision_visits_no_more_however_many_there_are(new_place, name):
    shape = SHAPES[name]
    found = {}
    for count in (FEW, SOME, MANY):
        place = new_place()
        engine = engine_on(place, shape)
        fill(place, shape, count)
        found[count] = costs(engine)
        engine.close()
    for verb in found[FEW]:
        few, some, many = (found[count][verb] for count in (FEW, SOME, MANY))
        print(f"{verb}: {few} {some} {many}")  # noqa: T201 - shown where it fails
        assert some.statements <= FULL_VIEW * few.statements, verb
        assert some.visits <= FULL_VIEW * few.visits, verb
        assert many.statements == some.statements, verb
        assert many.visits <= (1 + SLACK) * some.visits + 2, verb


DEAD = {
    "one process": Shape(1, lambda count: [Waiting("dead")] * count),
    "many processes": Shape(1, lambda count: [Waiting(f"dead{n // 10}") for n in range(count)]),
    "of one group": Shape(
        1, lambda count: [Waiting(f"dead{n // 10}", group="g") for n in range(count)], "team"
    ),
}
BURIED_AT_ONCE = 1000
VISITS_OF_A_DEAD = {"postgres": 25, "sqlite": 120}
"""Those of passing it by and of deleting it; see ``Work.visits``."""


@pytest.mark.parametrize("name", DEAD)
def test_the_dead_ahead_hold_up_no_claim_and_cost_something_once(new_place, name):
    shape = DEAD[name]
    place = new_place()
    engine = engine_on(place, shape)
    place.sql("UPDATE lifeguard_sessions SET lease_until = lease_until + 1000000")
    fill(place, shape, MANY, lease_seconds=-60.0)
    before = engine.store.expired_sessions(MANY)
    turns, verdicts = iter(range(100)), []

    def turn() -> None:
        run = f"new{next(turns)}"
        verdicts.append(engine.claim(run, "step", ORDERS, tags=lambda: {"team": "mine"}))
        engine.release(run, "step")

    burials = MANY // BURIED_AT_ONCE + 1
    first = [work_of(engine, turn) for _ in range(burials)]
    wait_for_older_snapshots(place)
    turn()  # It meets the last of the dead in the indexes.
    after = [work_of(engine, turn) for _ in range(3)]
    print(*first, *after, sep="\n")  # noqa: T201 - shown where it fails

    assert before
    assert all(verdict.granted for verdict in verdicts)
    assert max(work.visits for work in first) <= VISITS_OF_A_DEAD[place.kind] * MANY
    assert place.sql("SELECT count(*) FROM lifeguard_tickets") == [(0,)]
    assert engine.store.expired_sessions(MANY) == ()
    assert engine.store.snapshots(["orders"])[0].tickets == ()
    empty = engine_on(new_place(), shape)
    engine, verdicts = empty, []
    turn()
    (alone,) = [work_of(empty, turn)]
    assert {work.visits <= 1.5 * alone.visits + 2 for work in after} == {True}
    empty.close()


def test_a_trim_of_the_ledger_visits_no_more_than_it_deletes(new_place):
    found = {}
    for count in (2 * SOME, MANY):
        place = new_place()
        engine = engine_on(place, SHAPES["that wait"])
        place.sql(
            "INSERT INTO lifeguard_ledger "
            "(at, kind, pool, run_id, step_key, slots, fence, session) "
            "WITH RECURSIVE s(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s "
            f"WHERE n < {count}) SELECT n, 'granted', 'orders', '', '', 1, 1, '' FROM s"
        )
        analyze(place)
        if place.kind == "postgres":
            # Planned as for a long ledger, of which ten thousand rows are still to be seen. The
            # server's own analysis of the table would count them.
            place.sql("ALTER TABLE lifeguard_ledger SET (autovacuum_enabled = false)")
            place.sql(
                "UPDATE pg_class SET reltuples = 5000000 WHERE oid = 'lifeguard_ledger'::regclass"
            )
        place.sql("DELETE FROM lifeguard_ledger WHERE at > 1000000")  # Those of the engine itself.
        trim = partial(engine.store.trim_ledger, 60.0, 50)
        assert trim() == 50
        found[count] = work_of(engine, trim)
        engine.close()
    few, many = found.values()
    assert many.visits <= (1 + SLACK) * few.visits + 2, found
