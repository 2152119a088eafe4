"""The pools of a deployment, those under most pressure first."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import ceil, inf
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from dagster_lifeguard.engine.rules.shown_names import pool_text
from dagster_lifeguard.insight.pools import Overview, overview
from dagster_lifeguard.insight.run_queue import count_in_queue, count_queued
from dagster_lifeguard.insight.slot_use import slots_over_time

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

FILTERS: Mapping[str, Callable[[PoolSummary, int], bool]] = {
    "all": lambda _pool, _queued: True,
    "busy": lambda pool, queued: not pool.is_idle or queued > 0,
    "waiting": lambda pool, queued: pool.waiting + queued > 0,
    "full": lambda pool, _queued: bool(pool.limit) and pool.held >= (pool.limit or 0),
    "paused": lambda pool, _queued: pool.limit == 0,
    "unlimited": lambda pool, _queued: pool.limit is None,
}
"""Which pools can be asked for, by what is in them and how many runs are queued for them."""

ORDERS: Mapping[str, Callable[[PoolSummary, int], Any] | None] = {
    "pressure": None,
    "name": lambda pool, _queued: pool.pool,
    "held": lambda pool, _queued: (-pool.held, pool.pool),
    "limit": lambda pool, _queued: (-(inf if pool.limit is None else pool.limit), pool.pool),
    "waiting": lambda pool, queued: (-pool.waiting - queued, pool.pool),
    "oldest": lambda pool, _queued: (-(pool.oldest_wait or 0.0), pool.pool),
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
        queued: How many runs in the run queue will ask for a pool, by pool.
        in_queue: How many runs are in the run queue in all. Under granularity ``run`` this is 0 and
            ``queued`` is empty: there they wait at the pool.
        last_hour: Slots held in each minute of the last hour, by pool; the mean of the minute.
    """

    overview: Overview
    choice: Choice
    count: int
    busy: int
    matching: int
    pages: int
    queued: Mapping[str, int]
    in_queue: int
    last_hour: Mapping[str, tuple[float, ...]]


def overview_page(
    deployment: Deployment, past: Durations, choice: Choice, now: float
) -> OverviewPage:
    """The pools that were asked for, in outline."""
    settings = deployment.settings()
    found = overview(deployment.pools(), settings, past, now)
    text, is_wanted, order = choice.search.lower(), FILTERS[choice.show], ORDERS[choice.sort]
    by_run = settings.granularity == "run"
    unfinished = () if by_run else deployment.unfinished_runs(["QUEUED"])
    queued = count_queued(unfinished, settings)
    wanted = [
        pool
        for pool in found.pools
        if text in f"{pool.pool} {pool_text(pool.pool)}".lower()
        and is_wanted(pool, queued[pool.pool])
    ]
    if order is not None:
        wanted.sort(key=lambda pool: order(pool, queued[pool.pool]))
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
        queued={pool.pool: queued[pool.pool] for pool in shown if queued[pool.pool]},
        in_queue=count_in_queue(unfinished, settings),
        last_hour=slots_over_time(
            deployment,
            settings,
            [pool.pool for pool in shown],
            since=now - HOUR,
            until=now,
            count=PARTS,
        ),
    )
