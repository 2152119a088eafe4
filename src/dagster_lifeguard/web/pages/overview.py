"""The pools of a deployment, those under most pressure first."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from dagster_lifeguard.insight.pools import Overview, overview

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dagster_lifeguard.deployment.contract import Deployment
    from dagster_lifeguard.insight.past import Past

ROWS_MAX = 200


@dataclass(frozen=True, slots=True)
class Choice:
    """Which pools a person wants to see."""

    search: str = ""

    @classmethod
    def of(cls, query: Mapping[str, str]) -> Choice:
        """What the query of an address asks for."""
        return cls(search=query.get("search", ""))


@dataclass(frozen=True, slots=True)
class OverviewPage:
    """Pools in outline.

    Attributes:
        overview: What was found; its pools are those that were chosen, at most ``ROWS_MAX``.
        choice: Which were.
        count: How many pools there are in all.
    """

    overview: Overview
    choice: Choice
    count: int


def overview_page(deployment: Deployment, past: Past, choice: Choice, now: float) -> OverviewPage:
    """All pools in outline."""
    found = overview(deployment.pools(), deployment.settings(), past, now)
    chosen = [pool for pool in found.pools if choice.search.lower() in pool.pool.lower()]
    return OverviewPage(replace(found, pools=tuple(chosen[:ROWS_MAX])), choice, len(found.pools))
