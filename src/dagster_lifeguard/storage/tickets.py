"""Which ticket a step's slots are held by: its own, or one for all steps of its graph asset."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dagster_lifeguard.engine.rules.model import Holding, TicketKey
from dagster_lifeguard.engine.rules.pool_expressions import graph_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from dagster_lifeguard.engine.engine import Engine
    from dagster_lifeguard.storage.demands import RunPlan
    from dagster_lifeguard.storage.progress import StepProgress


_LOOK_PART = 20
"""After a look at the events of a run comes a pause of this many times its duration."""


@dataclass
class _PutOff:
    """What a shared ticket needs of the rest of its run, and when to look again."""

    needs: frozenset[str]
    look_at: float = 0.0


class Tickets:
    """Knows the tickets that steps share, as far as this process has met them.

    A ticket that is shared bears the name of the graph asset in place of a step's. It holds from
    the claim of the first of its steps until none of them will execute any more, between two
    steps and between two tries of one as well. It does not ask before all has ended that one of
    its steps needs of the rest of the run, which may need the same pool: or a run would wait for
    itself.

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
        progress: Callable[[str], StepProgress],
    ) -> None:
        self._engine = engine
        self._plan = plan
        self._members = members
        self._progress = progress
        self._shared: dict[TicketKey, TicketKey] = {}
        self._put_off: dict[TicketKey, _PutOff] = {}

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
        # One whose lease has run out can still be adopted; one that was taken back tells that the
        # step comes too late.
        is_held = isinstance(self._engine.ticket(*ticket), Holding)
        if is_held or self._engine.has_expired(*ticket):
            self.note(step, ticket)
        return self.of(step)

    def may_ask(self, ticket: TicketKey) -> bool:
        """Whether all has ended that the steps of a shared ticket need of the rest of the run."""
        if ticket not in self._shared.values():
            return True
        if ticket not in self._put_off:
            steps, members = self._plan(ticket.run_id).steps, self._members(ticket)
            needs = frozenset[str]().union(*(steps[key].after for key in members)) - members
            self._put_off[ticket] = _PutOff(needs)
        found = self._put_off[ticket]
        if found.needs and time.monotonic() >= found.look_at:
            begin = time.monotonic()
            over = self._progress(ticket.run_id).over(self._plan(ticket.run_id).steps)
            found.needs -= over
            end = time.monotonic()
            found.look_at = end + _LOOK_PART * (end - begin)
        return not found.needs

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
        for known in (self._shared, self._put_off):
            for key in [key for key in known if key.run_id == run_id]:
                del known[key]
