"""The pools of a deployment, those under most pressure first."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import ceil, inf
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from dagster_lifeguard.engine.rules.shown_names import pool_text
from dagster_lifeguard.insight.pools import Overview, overview
from dagster_lifeguard.insight.slot_use import slots_over_time
from dagster_lifeguard.insight.waits import read_held_back

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from dagster_lifeguard.deployment.contract import Deployment
    from dagster_lifeguard.insight.durations import Durations
    from dagster_lifeguard.insight.pools import PoolSummary

ROWS = 50
"""Pools on one page."""

HOUR = 3600.0
PARTS = 60
"""Into how many parts the last hour is divided in a sparkline."""

FILTERS: Mapping[str, Callable[[PoolSummary], bool]] = {
    "all": lambda _pool: True,
    "busy": lambda pool: not pool.is_idle,
    "waiting": lambda pool: pool.waiting > 0,
    "full": lambda pool: bool(pool.limit) and pool.held >= (pool.limit or 0),
    "paused": lambda pool: pool.limit == 0,
    "unlimited": lambda pool: pool.limit is None,
}
"""Which pools can be asked for."""

ORDERS: Mapping[str, Callable[[PoolSummary], Any] | None] = {
    "pressure": None,
    "name": lambda pool: pool.pool,
    "held": lambda pool: (-pool.held, pool.pool),
    "limit": lambda pool: (-(inf if pool.limit is None else pool.limit), pool.pool),
    "waiting": lambda pool: (-pool.waiting, pool.pool),
    "oldest": lambda pool: (-(pool.oldest_wait or 0.0), pool.pool),
}
"""By what they can be sorted; None: as ``insight`` sorts them."""


@dataclass(frozen=True, slots=True)
class Choice:
    """Which pools a person wants to see.

    Attributes:
        search: Only those whose name holds this text.
        show: One of ``FILTERS``.
        sort: One of ``ORDERS``.
        page: 1 for the first.
    """

    search: str = ""
    show: str = "all"
    sort: str = "pressure"
    page: int = 1

    @classmethod
    def of(cls, query: Mapping[str, str]) -> Choice:
        """What the query of an address asks for; what it cannot ask for is passed over."""
        show, sort = query.get("show", ""), query.get("sort", "")
        page = query.get("page", "")
        return cls(
            search=query.get("search", "").strip(),
            show=show if show in FILTERS else "all",
            sort=sort if sort in ORDERS else "pressure",
            page=max(1, int(page)) if page.isascii() and page.isdecimal() else 1,
        )

    def on_page(self, page: int) -> str:
        """The address of the same choice on another page."""
        usual, wanted = Choice(), replace(self, page=page)
        query = {
            name: getattr(wanted, name)
            for name in ("search", "show", "sort", "page")
            if getattr(wanted, name) != getattr(usual, name)
        }
        return "/" + ("?" + urlencode(query, errors="replace") if query else "")


@dataclass(frozen=True, slots=True)
class OverviewPage:
    """Pools in outline.

    Attributes:
        overview: What was found; of its pools, those of this page.
        choice: Which were asked for; its page is one that there is.
        count: How many pools there are in all.
        busy: How many of them are in use.
        matching: How many were asked for, on all pages.
        pages: How many pages they make.
        last_hour: Slots held in each minute of the last hour, by pool; the mean of the minute.
    """

    overview: Overview
    choice: Choice
    count: int
    busy: int
    matching: int
    pages: int
    last_hour: Mapping[str, tuple[float, ...]]


def overview_page(
    deployment: Deployment, past: Durations, choice: Choice, now: float
) -> OverviewPage:
    """The pools that were asked for, in outline."""
    settings = deployment.settings()
    states = deployment.pools()
    held_back = read_held_back(deployment, settings, states, now)
    found = overview(states, held_back, settings, past, now)
    text, is_wanted, order = choice.search.lower(), FILTERS[choice.show], ORDERS[choice.sort]
    wanted = [
        pool
        for pool in found.pools
        if text in f"{pool.pool} {pool_text(pool.pool)}".lower() and is_wanted(pool)
    ]
    if order is not None:
        wanted.sort(key=order)
    pages = max(1, ceil(len(wanted) / ROWS))
    page = min(choice.page, pages)
    shown = tuple(wanted[(page - 1) * ROWS : page * ROWS])
    return OverviewPage(
        overview=replace(found, pools=shown),
        choice=replace(choice, page=page),
        count=len(found.pools),
        busy=len(found.busy),
        matching=len(wanted),
        pages=pages,
        last_hour=slots_over_time(
            deployment,
            settings,
            [pool.pool for pool in shown],
            since=now - HOUR,
            until=now,
            count=PARTS,
        ),
    )
