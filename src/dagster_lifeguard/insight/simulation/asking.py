"""A ticket of the world: an arrival that waits or holds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dagster_lifeguard.engine.rules.model import Ticket

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dagster_lifeguard.engine.rules.model import QueuedTicket
    from dagster_lifeguard.insight.simulation.arrivals import Arrival
    from dagster_lifeguard.insight.simulation.pool import Pool

SESSION = "simulation"

_NO_GROUPS: Mapping[str, str] = {}
_NOWHERE: dict[str, QueuedTicket] = {}
_NEVER: dict[str, float] = {}
"""What a ticket has until it waits; most never do."""


class Asking:
    """A ticket that waits or holds."""

    __slots__ = (
        *("arrival", "entered", "groups", "number", "place", "places", "since", "taken", "terms"),
    )

    def __init__(self, place: int, arrival: Arrival, terms: tuple[tuple[Pool, int], ...]) -> None:
        self.place = place
        self.arrival = arrival
        self.terms = terms
        self.number = 0
        self.since: float | None = None
        self.taken: tuple[Pool, ...] = ()
        self.groups = self._groups()
        self.places: dict[str, QueuedTicket] = _NOWHERE
        self.entered: dict[str, float] = _NEVER

    def _groups(self) -> Mapping[str, str]:
        fair = [(p.name, p.settings.fair_by) for p, _ in self.terms if p.settings.fair_by]
        if not fair:
            return _NO_GROUPS
        return {name: self.arrival.tags.get(tag, "") for name, tag in fair}

    def regroup(self) -> None:
        """Ask by the orders that pools have now."""
        self.groups = self._groups()

    def ticket(self) -> Ticket:
        arrival = self.arrival
        if self.since is None:
            return Ticket(arrival.key, arrival.demand, arrival.priority)
        return Ticket(
            arrival.key,
            arrival.demand,
            arrival.priority,
            self.number,
            self.since,
            tuple(self.places),
            SESSION,
            self.groups,
        )
