"""What the events that Dagster stores of steps and runs mean for their slots."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from dagster import DagsterEventType

from dagster_lifeguard.errors import LifeguardError

if TYPE_CHECKING:
    from dagster_lifeguard.engine.engine import Engine
    from dagster_lifeguard.engine.rules.model import TicketKey
    from dagster_lifeguard.storage.claims import Claims
    from dagster_lifeguard.storage.steps import Steps
    from dagster_lifeguard.storage.tickets import Tickets

logger = logging.getLogger(__name__)

STEP_BEGINS = frozenset(
    {
        DagsterEventType.STEP_WORKER_STARTED,
        DagsterEventType.STEP_START,
        DagsterEventType.STEP_RESTARTED,
    }
)
STEP_FAILS = frozenset({DagsterEventType.STEP_FAILURE, DagsterEventType.STEP_UP_FOR_RETRY})
_STEP_ENDS = STEP_FAILS | {DagsterEventType.STEP_SUCCESS}
_STEP_STOPS = frozenset({DagsterEventType.STEP_FAILURE, DagsterEventType.STEP_SKIPPED})
"""What follows such a step may never begin."""
_RUN_ENDS = frozenset(
    {
        DagsterEventType.RUN_SUCCESS,
        DagsterEventType.RUN_FAILURE,
        DagsterEventType.RUN_CANCELED,
    }
)


class StepEvents:
    """Makes a step's process an owner of its slots, and gives back what an end leaves held.

    Args:
        engine: Where slots are held.
        claims: What this process claimed.
        steps: The steps that execute in this process.
        tickets: Which ticket a step's slots are held by.
    """

    def __init__(self, engine: Engine, claims: Claims, steps: Steps, tickets: Tickets) -> None:
        self._engine = engine
        self._claims = claims
        self._steps = steps
        self._tickets = tickets

    def begins(self, step: TicketKey) -> None:
        """A step begins to execute in this process; before that is stored.

        Raises:
            LeaseLostError: Its slots are another's by now.
        """
        ticket = self._tickets.find(step)
        self._steps.started(ticket, self._claims.fence(ticket), is_shared=ticket != step)

    def stored(self, kind: DagsterEventType | None, step: TicketKey) -> None:
        """An event was stored by this process, which need not be the one that executes the step."""
        ticket = self._tickets.of(step)
        if kind in STEP_FAILS and not self._steps.runs_here(ticket):
            self._clear_after(step)
        if kind in _STEP_ENDS:
            self._ended(ticket)
        if kind in _STEP_STOPS:
            self.release_what_is_over(step.run_id)
        elif kind in _RUN_ENDS and self._claims.holds_for(step.run_id):
            self._run_ended(step.run_id)

    def _ended(self, ticket: TicketKey) -> None:
        """A step ended. The process that claimed its slots will release them in a moment.

        If that process is dead, this process must not keep the slots: it may live on and execute
        other steps, as a Celery worker does.
        """
        is_adopted = self._steps.runs_here(ticket) and self._claims.fence(ticket) is None
        self._steps.ended(ticket)
        if is_adopted:
            self._engine.leave([ticket], at_once=False)

    def _clear_after(self, step: TicketKey) -> None:
        """A step failed whose process may have died before it gave back what was inside it."""
        try:
            self._claims.release_inside(step)
        except LifeguardError as error:
            logger.info("What is left of %s is left to its lease: %s", step.step_key, error)

    def release_what_is_over(self, run_id: str) -> None:
        """Release the slots of a run's graph assets, once none of their steps will execute again.

        Skipped steps, and steps behind a failed one, never report an end that would release these
        slots. A failure in another process is not reported here, so this process checks when a
        step of the run waits.
        """
        for ticket in self._claims.held_keys(run_id):
            if self._tickets.is_over(ticket):
                self._claims.release(ticket)

    def _run_ended(self, run_id: str) -> None:
        """The run ended in the process that claimed for it, and something was not given back.

        What a step held that executed in this process is free, for it executes no more. Any other
        step may still go on in its own process; if that owns its slots, they are held while it
        lives, and if not, they are free when the lease has run out.
        """
        left = []
        for key in self._claims.held_keys(run_id):
            if self._steps.runs_here(key) or self._tickets.is_over(key, run_ended=True):
                self._steps.ended(key)
                self._claims.release(key)
            else:
                self._claims.forget(key)
                left.append(key)
        if left:
            self._engine.leave(left)
        self._tickets.forget(run_id)
