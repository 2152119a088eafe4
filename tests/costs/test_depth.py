"""A decision costs the same at any depth: counted with ten and with ten thousand of each thing."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple

import pytest
from work import Work, work_of

from dagster_lifeguard.engine import Engine
from dagster_lifeguard.model import Demand
from dagster_lifeguard.options import EngineOptions

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


def fill(place: SharedPlace, shape: Shape, count: int) -> None:
    """Put the shape's tickets into the tables, as if their processes lived."""
    now = time.time()
    tickets = list(enumerate(shape.tickets(count), start=-1_000_000))
    insert(
        place,
        "lifeguard_sessions",
        "session, label, started_at, lease_until",
        (f"('{name}', 'host:1', {now}, {now + NEVER})" for name in {t.session for _, t in tickets}),
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
    if place.kind == "postgres":
        place.sql("ANALYZE")


def engine_on(place: SharedPlace, shape: Shape) -> Engine:
    engine = Engine(place.store(), EngineOptions(look_again_seconds=NEVER))
    engine.store.migrate()
    engine.set_limits(
        {"orders": shape.limit, "idle": 1},
        orders={"orders": shape.fair_by} if shape.fair_by else {},
    )
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
        "raise the limit": work_of(engine, lambda: engine.set_limit("orders", 3)),
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
