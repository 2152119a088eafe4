"""Which ticket a step's slots are held by: its own, or one for all steps of its graph asset."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dagster_lifeguard.model import Holding, TicketKey
from dagster_lifeguard.names import graph_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from dagster_lifeguard.engine import Engine
    from dagster_lifeguard.storage.demands import RunPlan
    from dagster_lifeguard.storage.progress import Progress


class Tickets:
    """Knows the tickets that steps share, as far as this process has met them.

    A ticket that is shared bears the name of the graph asset in place of a step's. It holds from
    the claim of the first of its steps until none of them will execute any more, between two
    steps and between two tries of one as well.

    Args:
        engine: Where slots are held.
        plan: What a run plans.
        members: The steps that it plans to execute on a shared ticket.
        progress: What its steps did.
    """

    def __init__(
        self,
        engine: Engine,
        plan: Callable[[str], RunPlan],
        members: Callable[[TicketKey], frozenset[str]],
        progress: Callable[[str], Progress],
    ) -> None:
        self._engine = engine
        self._plan = plan
        self._members = members
        self._progress = progress
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
        # One whose lease has run out tells that the step comes too late.
        is_held = isinstance(self._engine.ticket(*ticket), Holding)
        if is_held or self._engine.has_expired(*ticket):
            self.note(step, ticket)
        return self.of(step)

    def is_over(self, ticket: TicketKey, *, run_ended: bool = False) -> bool:
        """Whether a ticket is shared, and none of its steps will execute any more.

        Args:
            ticket: The ticket.
            run_ended: The run has ended: a step that did not begin will not.
        """
        if ticket not in self._shared.values():
            return False
        progress = self._progress(ticket.run_id)
        if run_ended:
            return not any(graph_of(key) == ticket.step_key for key in progress.executing())
        return self._members(ticket) <= progress.over(self._plan(ticket.run_id).steps)

    def forget(self, run_id: str) -> None:
        """The run has ended."""
        for step in [step for step in self._shared if step.run_id == run_id]:
            del self._shared[step]
