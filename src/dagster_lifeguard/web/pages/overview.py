"""The pools of a deployment, those under most pressure first."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from math import ceil, inf
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from dagster_lifeguard.engine.rules.shown_names import pool_text
from dagster_lifeguard.insight.standing import Standing, standing_of
from dagster_lifeguard.web.pages.pool_rows import PoolGroup, PoolRow, grouped, rows_of
from dagster_lifeguard.web.pages.window import ALL_ROWS, PARTS, Period
from dagster_lifeguard.web.plots import Plot, plots_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from dagster_lifeguard.insight.load import Load
    from dagster_lifeguard.insight.overview import Overview, PoolSummary
    from dagster_lifeguard.web.changes import PoolChange
    from dagster_lifeguard.web.limit_origins import LimitOrigin
    from dagster_lifeguard.web.look import Look

ROWS = 50
"""Rows on one page."""

ASSETS_SHOWN = 10
"""The most assets that a search shows."""

_ROWS_MAX = 1_000_000

FILTERS: Mapping[str, tuple[str, Callable[[PoolSummary], bool]]] = {
    "all": ("all pools", lambda _pool: True),
    "busy": ("in use", lambda pool: not pool.is_idle),
    "waiting": ("with a backlog", lambda pool: pool.waiting > 0),
    "full": ("full", lambda pool: bool(pool.limit) and pool.held >= (pool.limit or 0)),
    "draining": ("draining", lambda pool: standing_of(pool) is Standing.DRAINING),
    "paused": ("paused", lambda pool: pool.limit == 0),
    "unlimited": ("without limit", lambda pool: pool.limit is None),
    "drift": ("unlike the file", lambda _pool: True),
}
"""The filters of the list, and what they are called. The file decides ``drift``."""

ORDERS: Mapping[str, tuple[str, Callable[[PoolSummary], Any] | None]] = {
    "pressure": ("pressure", None),
    "name": ("name", lambda pool: pool.pool),
    "held": ("slots held", lambda pool: (-pool.held, pool.pool)),
    "limit": ("limit", lambda pool: (-(inf if pool.limit is None else pool.limit), pool.pool)),
    "waiting": ("waiting", lambda pool: (-pool.waiting, pool.pool)),
    "oldest": ("oldest wait", lambda pool: (-(pool.oldest_wait or 0.0), pool.pool)),
}
"""The orders of the list, and what they are called; None: as ``insight`` sorts pools."""

GROUPINGS: Mapping[str, str] = {
    "": "nothing",
    "prefix": "prefix of the name",
    "asset": "asset group",
}
"""The groupings of the list, and what they are called."""


CHOICES: Mapping[str, Mapping[str, str]] = {
    "show": {value: text for value, (text, _) in FILTERS.items()},
    "sort": {value: text for value, (text, _) in ORDERS.items()},
    "group": GROUPINGS,
}
"""All choices, and what they are called."""


@dataclass(frozen=True, slots=True)
class Choice:
    """The pools that a visitor wants to see.

    Attributes:
        search: Only pools with this text in their name.
        show: One of ``FILTERS``.
        sort: One of ``ORDERS``.
        group: One of ``GROUPINGS``.
        fold: Whether pools of partitions are one row: ``yes`` or ``no``.
        page: The page, from 1.
        rows: The rows on a page.
        period: The period of all charts.
    """

    search: str = ""
    show: str = "all"
    sort: str = "pressure"
    group: str = ""
    fold: str = "yes"
    page: int = 1
    rows: int = ROWS
    period: Period = field(default_factory=Period)

    @classmethod
    def of(cls, query: Mapping[str, str]) -> Choice:
        """What the query of an address asks for; a wrong value counts as the usual one."""
        show, sort = query.get("show", ""), query.get("sort", "")
        page, group = query.get("page", ""), query.get("group", "")
        return cls(
            search=query.get("search", "").strip(),
            show=show if show in FILTERS else "all",
            sort=sort if sort in ORDERS else "pressure",
            group=group if group in GROUPINGS else "",
            fold="no" if query.get("fold") == "no" else "yes",
            page=max(1, int(page)) if page.isascii() and page.isdecimal() else 1,
            rows=_ROWS_MAX if query.get("rows") == ALL_ROWS else ROWS,
            period=Period.of(query),
        )

    def on_page(self, page: int) -> str:
        """The address of the same choice on another page."""
        return _address(replace(self, page=page))

    def within(self, stem: str) -> str:
        """The address of the pools of the partitions of one thing."""
        return _address(replace(self, search=f"{stem}[", fold="no", page=1))


def _address(wanted: Choice) -> str:
    usual = Choice()
    query = {
        name: getattr(wanted, name)
        for name in ("search", "show", "sort", "group", "fold", "page")
        if getattr(wanted, name) != getattr(usual, name)
    } | wanted.period.query
    return "/" + ("?" + urlencode(query, errors="replace") if query else "")


@dataclass(frozen=True, slots=True)
class ShownRow:
    """A row of the overview.

    Attributes:
        pool: The pool, or the sums of the pools of the partitions of one thing.
        count: How many pools it stands for.
        standing: The state of the pool; of several, the one that matters most.
        standings: Of several: how many pools are in each state.
        stem: Of pools of partitions, what their names begin with; empty for one pool.
        group: The group; empty where rows are not grouped.
        origin: What set the limit; None for several pools.
        drifts: How many of the pools differ from the file.
        use: Slots held in each part of the period; the mean of the part.
    """

    pool: PoolSummary
    count: int
    standing: Standing
    standings: Mapping[str, int]
    stem: str
    group: str
    origin: LimitOrigin | None
    drifts: int
    use: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class OverviewPage:
    """Pools in outline.

    Attributes:
        overview: The overview without its pools, which are in ``rows``.
        choice: The choice; its page exists.
        count: How many pools there are in all.
        busy: How many of them are in use.
        standings: How many of them are in each state.
        matching: How many rows match, on all pages.
        matching_pools: How many pools match.
        pages: How many pages there are.
        rows: The rows of this page.
        groups: The groups of these rows, by name.
        file: The file that limits are compared with; empty for none.
        file_trouble: Why limits could not be compared with the file; empty if they could.
        drifts: How many pools differ from the file.
        default_drift: How the default limit differs from the file; empty if it does not.
        since: The beginning of the period.
        until: Its end.
        known_since: The beginning of the remembered past, if it is later than ``since``.
        plots: The charts of the whole deployment.
        assets: The assets that the search finds, the first ``ASSETS_SHOWN``.
        asset_count: How many assets it finds.
    """

    overview: Overview
    choice: Choice
    count: int
    busy: int
    standings: Mapping[str, int]
    matching: int
    matching_pools: int
    pages: int
    rows: tuple[ShownRow, ...]
    groups: Mapping[str, PoolGroup]
    file: str
    file_trouble: str
    drifts: int
    default_drift: str
    since: float
    until: float
    known_since: float
    plots: tuple[Plot, ...]
    assets: tuple[str, ...]
    asset_count: int


def overview_page(
    look: Look,
    found: Overview,
    load: Load,
    choice: Choice,
    changes: Mapping[str, PoolChange],
    assets: tuple[str, ...] = (),
) -> OverviewPage:
    """The pools of a choice, out of all pools that were found.

    Args:
        look: The last look of the server's reader.
        found: All pools in outline.
        load: The load of the period.
        choice: The pools to show.
        changes: For each pool the newest change of its limit over this server.
        assets: The assets that the search finds.
    """
    limits = look.limits
    text, (_, is_wanted), (_, order) = (
        choice.search.lower(),
        FILTERS[choice.show],
        ORDERS[choice.sort],
    )
    wanted = [
        pool
        for pool in found.pools
        if (not text or text in f"{pool.pool} {pool_text(pool.pool)}".lower())
        and is_wanted(pool)
        and (choice.show != "drift" or pool.pool in limits.drifts)
    ]
    rows = rows_of(wanted, fold=choice.fold == "yes")
    if order is not None:
        rows.sort(key=lambda row: order(row.pool))
    groups: Mapping[str, PoolGroup] = {}
    if choice.group:
        rows, groups = grouped(rows, look.groups if choice.group == "asset" else None)
    pages = max(1, ceil(len(rows) / choice.rows))
    page = min(choice.page, pages)
    shown = rows[(page - 1) * choice.rows : page * choice.rows]
    standings = dict.fromkeys((s.value for s in Standing), 0)
    for pool in found.pools:
        standings[standing_of(pool).value] += 1
    return OverviewPage(
        overview=replace(found, pools=()),
        choice=replace(choice, page=page),
        count=len(found.pools),
        busy=len(found.busy),
        standings=standings,
        matching=len(rows),
        matching_pools=len(wanted),
        pages=pages,
        rows=tuple(_shown(row, look, load, changes) for row in shown),
        groups={row.group: groups[row.group] for row in shown if row.group},
        file=limits.file,
        file_trouble=limits.trouble,
        drifts=len(limits.drifts),
        default_drift=limits.default_drift,
        since=load.since,
        until=load.until,
        known_since=look.deployment.remembered_since(load.since),
        plots=plots_of(load),
        assets=assets[:ASSETS_SHOWN],
        asset_count=len(assets),
    )


def _shown(row: PoolRow, look: Look, load: Load, changes: Mapping[str, PoolChange]) -> ShownRow:
    row = row.with_waits(look.past)
    origin = None
    if not row.stem:
        origin = look.limits.of(row.pool, changes.get(row.pool.pool))
    known = [load.held[pool] for pool in row.pools if pool in load.held]
    use = tuple(map(sum, zip(*known, strict=True))) if known else (0.0,) * PARTS
    return ShownRow(
        pool=row.pool,
        count=len(row.pools),
        standing=row.standing,
        standings=row.standings,
        stem=row.stem,
        group=row.group,
        origin=origin,
        drifts=sum(pool in look.limits.drifts for pool in row.pools),
        use=use,
    )
