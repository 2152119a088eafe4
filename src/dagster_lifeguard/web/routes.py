"""The page that an address names."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlencode

from dagster_lifeguard.web.addresses import CSV, JSON
from dagster_lifeguard.web.errors import RequestRefusedError
from dagster_lifeguard.web.pages.asset import asset_page
from dagster_lifeguard.web.pages.audit import SHOWN_MAX, audit_page
from dagster_lifeguard.web.pages.doctor import doctor_page
from dagster_lifeguard.web.pages.overview import Choice, overview_page
from dagster_lifeguard.web.pages.pool import pool_page
from dagster_lifeguard.web.pages.run import run_page
from dagster_lifeguard.web.pages.simulation import SimulationPage, simulation_page
from dagster_lifeguard.web.pages.window import ALL_ROWS, ROWS_MAX, Period, Window

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from dagster_lifeguard.deployment.contract import Deployment
    from dagster_lifeguard.insight.load import Load
    from dagster_lifeguard.insight.trend import Trend
    from dagster_lifeguard.web.asset_names import AssetNames
    from dagster_lifeguard.web.changes import ChangeLog
    from dagster_lifeguard.web.load_cache import LoadCache
    from dagster_lifeguard.web.look import Look
    from dagster_lifeguard.web.recording_cache import RecordingCache

Form = Literal["html", "json", "csv"]

AUDIT_SECONDS = 86400.0
"""How far back an audit looks if the server remembers no past."""

QUERY_VALUE_MAX = 1000
"""Longer values of a query are refused."""


@dataclass(frozen=True, slots=True)
class PageRequest:
    """What a page is made from.

    Attributes:
        look: What the server's reader knows; its deployment is as it was last seen.
        deployment: The deployment itself.
        name: The pool, asset or run that the page is about; empty for other pages.
        query: The query of the address.
        window: The seconds of the past that the server remembers.
        changes: The changes that were made over this server.
        sums: What is computed over all pools, once for all visitors.
        recordings: The past that can be played with other limits.
        assets: The names of the assets, for a search.
    """

    look: Look
    deployment: Deployment
    name: str
    query: Mapping[str, str]
    window: float
    changes: ChangeLog
    sums: LoadCache
    recordings: RecordingCache
    assets: AssetNames

    def load(self, pool: str | None = None) -> Load:
        """The load of the period that the address asks for, of one pool or of all."""
        return self.sums.load(self.look, Period.of(self.query), pool)

    def trend(self, pool: str) -> Trend | None:
        """The trend of a pool in that period; None where the server remembers nothing."""
        return self.sums.trend(self.look, Period.of(self.query), pool) if self.window else None

    @property
    def now(self) -> float:
        """The end of waits and holds: now, or the last look while the deployment is away."""
        return self.look.at if self.look.trouble else time.time()


@dataclass(frozen=True, slots=True)
class Route:
    """A kind of page.

    Attributes:
        template: Its name, without ``.html``.
        make: Makes the page.
        kept_seconds: For how long a page is kept although there is news; 0 for a page that is
            made anew with each news, and that open windows get live.
    """

    template: str
    make: Callable[[PageRequest], object]
    kept_seconds: float = 0.0

    @property
    def is_live(self) -> bool:
        """Whether an open window is kept up to date."""
        return not self.kept_seconds

    @property
    def is_of_pool(self) -> bool:
        """Whether it is about one pool, so that only news of that pool concern it."""
        return self.template == "pool"


def _simulation(asked: PageRequest) -> SimulationPage:
    """The last day, where the address asks for no period."""
    window = Window.of({"period": "24h", **asked.query})
    past = asked.recordings.played(asked.deployment, window.period)
    return simulation_page(past, window, asked.query)


PAGES: Mapping[str, Route] = {
    "": Route(
        "overview",
        lambda asked: overview_page(
            asked.look,
            asked.sums.outline(asked.look),
            asked.load(),
            Choice.of(asked.query),
            asked.changes.last_limits(),
            asked.assets.matching(asked.look.deployment, asked.query.get("search", "")),
        ),
    ),
    "audit": Route(
        "audit",
        lambda asked: audit_page(
            asked.deployment,
            asked.window or AUDIT_SECONDS,
            time.time(),
            ROWS_MAX if asked.query.get("rows") == ALL_ROWS else SHOWN_MAX,
        ),
        kept_seconds=30.0,
    ),
    "doctor": Route(
        "doctor", lambda asked: doctor_page(asked.deployment, time.time()), kept_seconds=10.0
    ),
    "simulate": Route("simulation", _simulation, kept_seconds=10.0),
}
"""Pages about the deployment, by their path."""

PAGES_OF: Mapping[str, Route] = {
    "pools": Route(
        "pool",
        lambda asked: pool_page(
            asked.look.deployment,
            asked.name,
            asked.look.past,
            Window.of(asked.query),
            asked.now,
            load=asked.load(asked.name),
            trend=asked.trend(asked.name),
            changes=asked.changes.newest(asked.name),
            record=asked.look.record,
        ),
    ),
    "assets": Route(
        "asset",
        lambda asked: asset_page(
            asked.look.deployment,
            asked.name,
            asked.look.past,
            Window.of(asked.query),
            asked.now,
            asked.look.record,
        ),
    ),
    "runs": Route(
        "run",
        lambda asked: run_page(asked.look.deployment, asked.name, asked.look.past, asked.now),
    ),
}
"""Pages about one thing each, by the first part of their path; the rest of it is the name."""


@dataclass(frozen=True, slots=True)
class Address:
    """An address that names a page.

    Attributes:
        route: The kind of page.
        name: The pool, asset or run; empty if it is about none.
        query: Its query, sorted.
        text: The address in its one form, the key of the page cache.
    """

    route: Route
    name: str
    query: tuple[tuple[str, str], ...]
    text: str

    @property
    def is_data(self) -> bool:
        """Whether it asks for all rows: they are never HTML, and never cached."""
        return ("rows", ALL_ROWS) in self.query


def refuse_long(query: Mapping[str, str]) -> None:
    """Refuse long values, which would stay in the page cache.

    Raises:
        RequestRefusedError: A value is longer than ``QUERY_VALUE_MAX``.
    """
    if any(len(value) > QUERY_VALUE_MAX for value in query.values()):
        raise RequestRefusedError(414, "The address says too much.", remedy="Say less.")


def find_page(path: str, query: Mapping[str, str]) -> tuple[Address, Form] | None:
    """The page at a path, and its form; None if there is no page.

    Args:
        path: Decoded, with ``/`` at its begin.
        query: Decoded.
    """
    form: Form = "json" if path.endswith(JSON) else "csv" if path.endswith(CSV) else "html"
    first, slash, name = (
        path.removesuffix(JSON)
        .removesuffix(CSV if form == "csv" else "")
        .lstrip("/")
        .partition("/")
    )
    first = "" if first in ("pools", "overview") and not slash and "name" not in query else first
    said = {key: value for key, value in query.items() if key not in ("name", "table")}
    if form == "csv":
        said["rows"] = ALL_ROWS
    elif form == "html" and said.get("rows") == ALL_ROWS:
        del said["rows"]  # A page of all rows is data, and nothing to look at.
    rest = tuple(sorted(said.items()))
    if first in PAGES_OF:
        name = name or query.get("name", "")
        if name:
            shown = urlencode((("name", name), *rest), errors="surrogatepass")
            return Address(PAGES_OF[first], name, rest, f"/{first}?{shown}"), form
    elif first in PAGES and not slash:
        shown = urlencode(rest, errors="surrogatepass")
        return Address(PAGES[first], "", rest, f"/{first}" + (shown and f"?{shown}")), form
    return None
