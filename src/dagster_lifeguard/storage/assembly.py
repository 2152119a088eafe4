"""What a process needs to answer for pools."""

from __future__ import annotations

import logging
from functools import lru_cache
from typing import TYPE_CHECKING, Any, cast

from dagster_lifeguard.compat import storages
from dagster_lifeguard.engine.engine import Engine
from dagster_lifeguard.engine.store.contract import TryAgainError
from dagster_lifeguard.errors import StoreUnavailableError, first_line
from dagster_lifeguard.storage.claims import Claims
from dagster_lifeguard.storage.demands import Demands, plan_by_id
from dagster_lifeguard.storage.planned_pools import PlannedPools
from dagster_lifeguard.storage.step_events import StepEvents
from dagster_lifeguard.storage.steps import Steps
from dagster_lifeguard.storage.stock_slots import StockSlots, ended_runs
from dagster_lifeguard.storage.tickets import Tickets

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from dagster_lifeguard.engine.session import Session
    from dagster_lifeguard.storage.config import StorageOptions
    from dagster_lifeguard.storage.progress import StepProgress

logger = logging.getLogger(__name__)

_RUNS_KNOWN_MAX = 1000
"""The most runs whose tags are remembered."""


class Assembly:
    """The parts that a process needs to decide about pools; made at the first call.

    Args:
        event_log: The storage that Dagster calls.
        step_progress: The progress of the steps of runs.
        session: The process's session.
        options: Options of the engine.
    """

    def __init__(
        self,
        event_log: storages.SqlEventLogStorage,
        step_progress: Callable[[str], StepProgress],
        session: Session,
        options: StorageOptions,
    ) -> None:
        self.stock_slots = StockSlots(
            event_log,
            lambda run_ids: ended_runs(storages.instance_of(event_log), run_ids),
        )
        cast("Any", event_log).require_same_database(session.store)
        session.store.migrate()
        self.stock_slots.require()
        self.steps = Steps(lambda: self.engine, options.on_lease_lost)
        self.engine: Engine = Engine(
            session.store,
            options.engine_options(
                default_limit=storages.default_pool_limit(event_log),
                on_session_joined=lambda: self.stock_slots.close(self.engine),
                on_lease_lost=self.steps.lost,
            ),
            session=session,
        )
        self.tags = lru_cache(_RUNS_KNOWN_MAX)(lambda run_id: _tags(event_log, run_id))
        self.claims = Claims(self.engine, self._look, self.tags)
        self.demands = Demands(lambda run_id: plan_by_id(storages.instance_of(event_log), run_id))
        self.planned = PlannedPools(lambda: storages.instance_of(event_log))
        self.tickets = Tickets(self.engine, self.demands.plan, self.demands.members, step_progress)
        self.events = StepEvents(self.engine, self.claims, self.steps, self.tickets)

    def respect_stock_slots(self) -> None:
        """Compare with the slots of the stock storage, while some are left; once a second."""
        if self.stock_slots.some_left:
            try:
                self.stock_slots.look(self.engine)
            except StoreUnavailableError as error:
                logger.info("Cannot see who frees a stock slot: %s", error)  # The claim says more.

    def _look(self, run_id: str) -> None:
        self.respect_stock_slots()
        try:
            self.events.release_what_is_over(run_id)
        except StoreUnavailableError as error:
            logger.info("Cannot see what a graph asset holds still: %s", error)


def _tags(event_log: storages.SqlEventLogStorage, run_id: str) -> Mapping[str, str]:
    try:
        run = storages.instance_of(event_log).get_run_by_id(run_id)
    except storages.database_errors() as error:
        raise TryAgainError(first_line(error)) from error
    return run.tags if run is not None else {}
