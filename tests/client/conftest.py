from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from dagster_lifeguard.client.asking import AskingEngine
from dagster_lifeguard.client.slots_held import Desk, Slots
from dagster_lifeguard.engine.engine import Engine
from dagster_lifeguard.engine.engine_options import EngineOptions
from dagster_lifeguard.engine.rules.model import Demand, TicketKey
from dagster_lifeguard.storage.steps import Steps

if TYPE_CHECKING:
    from places import Place


class Parts:
    """What a process has of the engine, over any store."""

    def __init__(self, place: Place, **options) -> None:
        self.ended: list[str] = []
        self.steps = Steps(
            lambda: self.engine,
            "terminate",
            interrupt=lambda: self.ended.append("interrupted"),
            kill=lambda: self.ended.append("killed"),
        )
        # A lost wake-up must show, so nothing is looked at again without one.
        settings = {"look_again_seconds": 3600.0, "lease_seconds": 7200.0, **options}
        store = place.store()
        store.migrate()
        self.engine = Engine(store, EngineOptions(on_lease_lost=self.steps.lost, **settings))

    def respect_stock_slots(self) -> None: ...

    def tags(self, run_id: str) -> dict[str, str]:
        return {"team": run_id}


@dataclass
class EventLog:
    lifeguard: Parts


class Process:
    """A process as far as the database can tell: a session and a desk of its own."""

    def __init__(self, place: Place, **options) -> None:
        self.parts = Parts(place, **options)
        self.engine = self.parts.engine
        self.event_log = EventLog(self.parts)
        self.desk = Desk(AskingEngine(self.event_log))

    def step(self, run_id: str, **slots: int) -> TicketKey:
        """A step that executes here, holding these slots."""
        key = TicketKey(run_id, "step")
        if slots:
            verdict = self.engine.claim(*key, Demand.of(slots))
            assert verdict.granted
            self.parts.steps.started(key, verdict.fence)
        return key

    def end(self, key: TicketKey) -> None:
        self.parts.steps.ended(key)
        self.engine.release(*key)

    def slots(self, base: TicketKey, timeout: float | None = None, priority=0, **slots: int):
        return Slots(self.desk, base, str(Demand.of(slots)), 1, timeout, priority)


@pytest.fixture
def process(place):
    """Makes processes on one store."""
    made = []

    def make(**options) -> Process:
        made.append(Process(place, **options))
        return made[-1]

    yield make
    for one in made:
        one.engine.close()
