"""What every page shows beside its own content.

The contract of a page: ``pages/NAME.py`` makes a frozen dataclass, ``templates/NAME.html`` shows
it, and gets it as ``page`` with a ``Site`` as ``site``. A block of the template whose name begins
with ``live`` is sent to open pages when it reads differently: an event of the block's name, with
the block's HTML as data, over the stream at ``site.live``. So is ``trouble``, as JSON.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

from dagster_lifeguard.texts import clock_text
from dagster_lifeguard.web.addresses import address_of, asset_in_dagster, run_in_dagster
from dagster_lifeguard.web.pages.window import Period

WATCH = "/live"

TargetKind = Literal["stock", "engine", "endpoint"]


@dataclass(frozen=True, slots=True)
class Site:
    """The server, as one page of it sees it.

    Attributes:
        deployment: Name of the deployment, without secrets.
        kind: What runs there: the stock storage, the engine, or a webserver whose storage is not
            seen.
        dagster_url: Address of the Dagster UI, without a slash at its end; None if unknown.
        allow_changes: Whether limits can be changed and slots be freed here.
        csrf: To be sent back as ``csrf`` by each form of this session; empty in what is sent
            live.
        version: Of this package.
        now: When the page is made.
        address: Of the page, with its query.
        live: Address of the stream that keeps the page up to date; empty where there is none.
        watch: Address of the stream with nothing but the state of the deployment: whether it
            answers. For pages without ``live``.
        seen: When the deployment was last looked at with success.
        trouble: Why it could not be looked at since; empty if it could.
        needs_login: Whether the visitor has logged in, and can log out.
        period: How addresses ask for the period that is shown, which all links keep; empty for the
            usual one.
    """

    deployment: str
    kind: TargetKind
    dagster_url: str | None
    allow_changes: bool
    csrf: str
    version: str
    now: float
    address: str
    live: str
    watch: str
    seen: float
    trouble: str = ""
    needs_login: bool = False
    period: str = ""

    @property
    def trouble_told(self) -> str:
        """The trouble as a sentence on the page; empty if there is none."""
        return trouble_text(self.trouble, self.seen, self.now)

    @property
    def as_of(self) -> str:
        """When the content was read, if the deployment does not answer since then; else empty."""
        return clock_text(self.seen, self.now) if self.trouble else ""

    def pool(self, name: str) -> str:
        """The address of a pool's page."""
        return self._keep_period(address_of("pools", name))

    def asset(self, name: str) -> str:
        """The address of an asset's page."""
        return self._keep_period(address_of("assets", name))

    def run(self, run_id: str) -> str:
        """The address of a run's page."""
        return address_of("runs", run_id)

    def what_if(self, pool: str, limit: int | None) -> str:
        """The address where other limits of a pool are played."""
        text = urlencode({f"limit.{pool}": limit}, errors="surrogatepass")
        return "/simulate" + ("" if limit is None else f"?{text}")

    @property
    def home(self) -> str:
        """The address of the overview."""
        return self._keep_period("/")

    def in_period(self, name: str) -> str:
        """The address of this page with another period."""
        usual = Period()
        query = dict(self.query_but_period) | (Period(name).query if name != usual.name else {})
        return self.path + ("?" + urlencode(query, errors="surrogatepass") if query else "")

    def exported(self, form: str, table: str = "") -> str:
        """The address of the data of this page, as ``json`` or ``csv``."""
        query = parse_qsl(urlsplit(self.address).query, errors="surrogatepass")
        query += [("table", table)] if table else []
        path = self.path if self.path != "/" else "/pools"
        text = urlencode(query, errors="surrogatepass")
        return f"{path}.{form}" + (f"?{text}" if text else "")

    @property
    def path(self) -> str:
        """The address of this page without its query."""
        return urlsplit(self.address).path

    @property
    def query_but_period(self) -> list[tuple[str, str]]:
        """What the address of this page says besides the period."""
        pairs = parse_qsl(urlsplit(self.address).query, errors="surrogatepass")
        return [pair for pair in pairs if pair[0] not in ("period", "from", "to", "page")]

    def _keep_period(self, address: str) -> str:
        return address + (f"{'&' if '?' in address else '?'}{self.period}" if self.period else "")

    def dagster_run(self, run_id: str) -> str | None:
        """The run in the Dagster UI."""
        return run_in_dagster(self.dagster_url, run_id)

    def dagster_backfill(self, backfill: str) -> str | None:
        """The runs of a backfill in the Dagster UI."""
        return None if self.dagster_url is None else f"{self.dagster_url}/runs/b/{quote(backfill)}"

    def dagster_asset(self, name: str) -> str | None:
        """The asset in the Dagster UI."""
        return asset_in_dagster(self.dagster_url, name)


def trouble_text(trouble: str, seen: float, now: float) -> str:
    """Why the deployment does not answer, and how old the content is; empty if it answers."""
    if not trouble:
        return ""
    since = clock_text(seen, now)
    return f"The deployment does not answer. {trouble} What you see is from {since}."
