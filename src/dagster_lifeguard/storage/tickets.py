"""Which ticket a step's slots are held by: its own, or one for all steps of its graph asset."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dagster import DagsterEventType

from dagster_lifeguard.model import Holding, TicketKey
from dagster_lifeguard.names import graph_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from dagster_lifeguard.engine import Engine

_ENDS = frozenset(
    {
        DagsterEventType.STEP_SUCCESS,
        DagsterEventType.STEP_FAILURE,
        DagsterEventType.STEP_SKIPPED,
    }
)
_BEGINS = frozenset({DagsterEventType.STEP_START, DagsterEventType.STEP_RESTARTED})
STEP_MOMENTS = _ENDS | _BEGINS | {DagsterEventType.STEP_UP_FOR_RETRY}
"""The events that tell whether a step goes on."""


class Tickets:
    """Knows the tickets that steps share, as far as this process has met them.

    A ticket that is shared bears the name of the graph asset in place of a step's. It holds from
    the claim of the first of its steps until all of them have ended for good, between two steps
    and between two tries of one as well.

    Args:
        engine: Where slots are held.
        members: The steps that a run plans to execute on a shared ticket.
        last_events: For each step of a run, the last of its ``STEP_MOMENTS``.
    """

    def __init__(
        self,
        engine: Engine,
        members: Callable[[TicketKey], frozenset[str]],
        last_events: Callable[[str], Mapping[str, DagsterEventType]],
    ) -> None:
        self._engine = engine
        self._members = members
        self._last_events = last_events
        self._shared: dict[TicketKey, TicketKey] = {}

    def note(self, step: TicketKey, ticket: TicketKey) -> None:
        """A step asks by this ticket."""
        if step != ticket:
            self._shared[step] = ticket

    def of(self, step: TicketKey) -> TicketKey:
        """The ticket of a step, as far as it was noted."""
        return self._shared.get(step, step)

    def find(self, step: TicketKey) -> TicketKey:
        """The ticket of a step that begins here, which another process may have claimed for it."""
        ticket = TicketKey(step.run_id, graph_of(step.step_key))
        if ticket == step or step in self._shared:
            return self.of(step)
        if isinstance(self._engine.ticket(*ticket), Holding):
            self.note(step, ticket)
        return self.of(step)

    def is_over(self, ticket: TicketKey, *, run_ended: bool = False) -> bool:
        """Whether a ticket is shared, and all its steps have ended for good.

        Args:
            ticket: The ticket.
            run_ended: The run has ended: a step that did not begin will not.
        """
        if ticket not in self._shared.values():
            return False
        last = self._last_events(ticket.run_id)
        if run_ended:
            return not any(
                kind in _BEGINS for key, kind in last.items() if graph_of(key) == ticket.step_key
            )
        return all(last.get(key) in _ENDS for key in self._members(ticket))

    def forget(self, run_id: str) -> None:
        """The run has ended."""
        for step in [step for step in self._shared if step.run_id == run_id]:
            del self._shared[step]
