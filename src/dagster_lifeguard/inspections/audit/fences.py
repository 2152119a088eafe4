"""Whether the fences of each pool grow with its grants."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dagster_lifeguard.inspections.audit.audit_result import KEPT_MAX, StaleFence

if TYPE_CHECKING:
    from dagster_lifeguard.inspections.audit.audit_result import Occupant


class Fences:
    """Looks at the grants of each pool in the order of their commits."""

    def __init__(self) -> None:
        self.count = 0
        self.found: list[StaleFence] = []
        self._largest: dict[str, tuple[int, Occupant]] = {}

    def grant(self, pool: str, fence: int, occupant: Occupant) -> None:
        """A grant with this fence."""
        largest, first = self._largest.get(pool, (-1, occupant))
        if fence > largest:
            self._largest[pool] = fence, occupant
            return
        self.count += 1
        if len(self.found) < KEPT_MAX:
            self.found.append(StaleFence(pool, fence, largest, first, occupant))
