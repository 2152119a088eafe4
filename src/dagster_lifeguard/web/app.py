"""The application: addresses, their pages, and errors."""

from __future__ import annotations

import asyncio
import logging
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from http import HTTPStatus
from importlib import metadata
from typing import TYPE_CHECKING
from urllib.parse import quote, urlencode

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from dagster_lifeguard.deployment.endpoint import EndpointDeployment
from dagster_lifeguard.errors import LifeguardError
from dagster_lifeguard.web.actions import Actions
from dagster_lifeguard.web.addresses import address_of
from dagster_lifeguard.web.changes import ChangeLog
from dagster_lifeguard.web.csv_tables import csv_of
from dagster_lifeguard.web.deployment_reader import LOOPS, Reader
from dagster_lifeguard.web.encoding import encode
from dagster_lifeguard.web.errors import ErrorPage, RequestRefusedError, page_of, page_of_status
from dagster_lifeguard.web.live import Streams
from dagster_lifeguard.web.metrics import CONTENT_TYPE, Metrics
from dagster_lifeguard.web.page_cache import AT_ONCE, PageCache
from dagster_lifeguard.web.pages.window import Period
from dagster_lifeguard.web.rendering import Templates
from dagster_lifeguard.web.routes import Address, find_page, refuse_long
from dagster_lifeguard.web.security import Access, Guard, is_secure, own_address, wants_html
from dagster_lifeguard.web.site import WATCH, Site
from dagster_lifeguard.web.visitors import (
    Sessions,
    address_of_client,
    refuse_forged,
    visitor_of,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping
    from pathlib import Path

    from starlette.requests import Request

    from dagster_lifeguard.deployment.contract import Deployment, Settings
    from dagster_lifeguard.web.actions import DonePage
    from dagster_lifeguard.web.look import Look
    from dagster_lifeguard.web.site import TargetKind
    from dagster_lifeguard.web.visitors import Visitor

    _Show = Callable[[Mapping[str, str]], object]
    _Do = Callable[[Mapping[str, str], Visitor], DonePage]

_log = logging.getLogger("dagster_lifeguard.web")
_JSON = "application/json"
_FIELDS_MAX = 20
_CHANGES_AT_ONCE = 4
_THREADS = LOOPS + AT_ONCE + _CHANGES_AT_ONCE + 4
"""Four threads are left for what needs no deployment, in case the deployment does not answer."""

_REFRESH_SECONDS = "5"
"""A browser asks again after this time for a page that needs an answer of the deployment."""


@dataclass(frozen=True, slots=True)
class LoginPage:
    """The form for the token.

    Attributes:
        next: The address to go to after the login.
        refused: Whether the token was wrong.
    """

    next: str
    refused: bool


@dataclass(frozen=True, slots=True)
class Serving:
    """How a deployment is served.

    Attributes:
        access: The rules for requests.
        window: The seconds of the past that percentiles and histories are of.
        dagster_url: Address of the Dagster UI; None if that is not known.
        allow_changes: Whether visitors can change limits and free slots.
        change_log: The file for the account of changes; None for none.
        file: The ``lifeguard.yaml`` that limits are compared with; None for none.
    """

    access: Access
    window: float = 86400.0
    dagster_url: str | None = None
    allow_changes: bool = False
    change_log: Path | None = None
    file: Path | None = None


def make_app(deployment: Deployment, serving: Serving) -> Starlette:
    """The application that serves a deployment. The caller closes the deployment."""
    server = _Server(deployment, serving)
    return Starlette(
        routes=server.routes(),
        middleware=[
            Middleware(
                Guard, access=serving.access, sessions=server.sessions, tell=server.tell_error
            )
        ],
        exception_handlers={
            LifeguardError: server.tell_error,
            HTTPException: server.tell_error,
            Exception: server.tell_error,
        },
        lifespan=server.lifespan,
    )


class _Server:
    """What the handlers of requests share."""

    def __init__(self, deployment: Deployment, serving: Serving) -> None:
        self._deployment = deployment
        self._serving = serving
        self._templates = Templates()
        self.sessions = Sessions(serving.access.token, serving.access.port)
        self._metrics = Metrics()
        self._reader = Reader(deployment, serving.window, self._metrics, serving.file)
        self._metrics.attach(self._reader)
        changes = ChangeLog(serving.change_log)
        self._actions = Actions(deployment, changes)
        self._pages = PageCache(self._reader, changes, self._templates, self._site_without_session)
        self._streams = Streams(self._reader, self._pages, self.sessions)
        self._room = asyncio.Semaphore(_CHANGES_AT_ONCE)
        self._version = metadata.version("dagster-lifeguard")

    def routes(self) -> list[Route | Mount]:
        """Addresses and their handlers; the last takes every page."""
        static = StaticFiles(packages=[("dagster_lifeguard.web", "static")])
        return [
            Route("/healthz", self._healthz),
            Route("/login", self._login, methods=["GET", "POST"]),
            Route("/logout", self._logout, methods=["POST"]),
            Route("/live", self._streams.respond),
            Route("/metrics", self._metrics_text),
            Route("/change/{action}", self._change, methods=["GET", "POST"]),
            Mount("/static", static),
            Route("/{path:path}", self._page),
        ]

    @asynccontextmanager
    async def lifespan(self, app: Starlette) -> AsyncIterator[None]:
        """Read while the application runs."""
        del app
        threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="lifeguard")
        asyncio.get_running_loop().set_default_executor(threads)
        reading = asyncio.create_task(self._reader.run())
        try:
            yield
        finally:
            reading.cancel()
            with suppress(asyncio.CancelledError):
                await reading

    # ---- pages -----------------------------------------------------------------------------------

    async def _page(self, request: Request) -> Response:
        query = dict(request.query_params)
        refuse_long(query)
        found = find_page(request.url.path, query)
        if found is None:
            raise HTTPException(404)
        address, form = found
        kept = await self._pages.page(address)
        if form == "csv":
            table = query.get("table", "")
            text = await asyncio.to_thread(csv_of, address.route.template, kept.page, table)
            return Response(text, media_type="text/csv")
        if form == "json":
            seen = {"deployment": self._deployment.name, "trouble": kept.look.trouble or None}
            return Response(encode(kept.page, **seen), media_type=_JSON)
        site = self._site(request, kept.look, address)
        html = partial(self._templates.whole, address.route.template, kept.page, site)
        return HTMLResponse(await asyncio.to_thread(html))

    async def _healthz(self, request: Request) -> Response:
        """Whether the deployment answers. Anybody may ask, so it says no more than that."""
        del request
        try:
            is_well = not self._reader.look().trouble
        except LifeguardError:
            is_well = False
        return JSONResponse({"ok": is_well}, 200 if is_well else 503)

    async def _metrics_text(self, request: Request) -> Response:
        del request
        text = await asyncio.to_thread(self._metrics.render)
        return Response(text, headers={"Content-Type": CONTENT_TYPE})

    # ---- changes ---------------------------------------------------------------------------------

    async def _change(self, request: Request) -> Response:
        """What a change would do, or with POST the change itself."""
        if not self._serving.allow_changes:
            raise RequestRefusedError(
                403,
                "This server only shows.",
                remedy="Start it with --allow-changes, or use lifeguard apply and lifeguard free.",
            )
        action: str = request.path_params["action"]
        as_json = action.endswith(".json")
        template, show, do = self._shown_and_done(action.removesuffix(".json"))
        if request.method == "POST":
            form = await request.form(max_files=0, max_fields=_FIELDS_MAX)
            fields = {key: value for key, value in form.items() if isinstance(value, str)}
            visitor = visitor_of(request)
            refuse_forged(visitor, fields.get("csrf"))
            if do is None:
                raise HTTPException(405)
            async with self._room:
                done = await asyncio.to_thread(do, fields, visitor)
            await self._reader.look_again()
            if as_json or visitor.is_program:
                return Response(encode(done), media_type=_JSON)
            pool = fields.get("pool") or next((c.pool for c in done.changes if c.pool), "")
            is_of_one = pool and "pools" not in fields
            return RedirectResponse(address_of("pools", pool) if is_of_one else "/", 303)
        async with self._room:
            query = dict(request.query_params)
            if template == "several":  # A form says ``pool`` once for each box that is ticked.
                query["pools"] = "\n".join(request.query_params.getlist("pool"))
            page = await asyncio.to_thread(show, query)
        if as_json:
            return Response(encode(page), media_type=_JSON)
        html = partial(self._templates.whole, template, page, self._site(request))
        return HTMLResponse(await asyncio.to_thread(html))

    def _shown_and_done(self, action: str) -> tuple[str, _Show, _Do | None]:
        """The template of an action, its page, and the function that does it."""
        known: dict[str, tuple[str, _Show, _Do | None]] = {
            "limit": ("limit", self._actions.show_limit, self._actions.set_limit),
            "pause": ("limit", self._actions.show_pause, None),
            "resume": ("limit", self._actions.show_resume, None),
            "several": ("several", self._actions.show_several, self._actions.set_several),
            "free": ("free", self._actions.show_free, self._actions.free),
        }
        if action not in known:
            raise HTTPException(404)
        return known[action]

    # ---- logging in ------------------------------------------------------------------------------

    async def _login(self, request: Request) -> Response:
        if not self.sessions.needs_login:
            return RedirectResponse("/", 303)
        refused = False
        target = own_address(request.query_params.get("next", "/"))
        if request.method == "POST":
            form = await request.form(max_files=0, max_fields=_FIELDS_MAX)
            target = own_address(str(form.get("next", "/")))
            if self.sessions.accepts(str(form.get("token", "")), address_of_client(request)):
                visitor, cookie = self.sessions.begin(
                    visitor_of(request).who, secure=is_secure(request)
                )
                _log.info("logged in: %s", visitor.who)
                return RedirectResponse(target, 303, {"Set-Cookie": cookie})
            _log.warning("refused a wrong token of %s", visitor_of(request).who)
            refused = True
        html = self._templates.whole("login", LoginPage(target, refused), self._site(request))
        return HTMLResponse(html, 403 if refused else 200)

    async def _logout(self, request: Request) -> Response:
        form = await request.form(max_files=0, max_fields=_FIELDS_MAX)
        refuse_forged(visitor_of(request), form.get("csrf"))
        cookie = self.sessions.end(visitor_of(request), secure=is_secure(request))
        return RedirectResponse("/", 303, {"Set-Cookie": cookie})

    # ---- errors ----------------------------------------------------------------------------------

    async def tell_error(self, request: Request, error: Exception) -> Response:
        """An error as HTML or as JSON, as the request wants it."""
        if isinstance(error, LifeguardError):
            page = page_of(error)
        else:
            page = page_of_status(error.status_code if isinstance(error, HTTPException) else 500)
        headers = error.headers if isinstance(error, HTTPException) else None
        if not wants_html(request):
            return Response(encode(_Told(page)), page.status, headers=headers, media_type=_JSON)
        html = self._templates.whole("error", page, self._site(request))
        if page.status == HTTPStatus.SERVICE_UNAVAILABLE and request.method == "GET":
            headers = {"Refresh": _REFRESH_SECONDS, **(headers or {})}
        return HTMLResponse(html, page.status, headers=headers)

    # ---- the site --------------------------------------------------------------------------------

    def _site(
        self, request: Request, look: Look | None = None, address: Address | None = None
    ) -> Site:
        """The site of a visitor. An unknown visitor learns nothing about the deployment."""
        visitor = visitor_of(request)
        known = visitor.is_known
        if look is None and known:
            with suppress(LifeguardError):
                look = self._reader.look()
        site = self._site_without_session(look if known else None, address)
        return replace(
            site,
            deployment=site.deployment if known else "",
            dagster_url=site.dagster_url if known else None,
            csrf=visitor.csrf,
            watch=WATCH if known and not site.live else "",
            needs_login=known and self.sessions.needs_login,
        )

    def _site_without_session(self, look: Look | None, address: Address | None) -> Site:
        is_live = address is not None and address.route.is_live
        text = "" if address is None else address.text
        return Site(
            deployment=self._deployment.name,
            kind=_kind(self._deployment, None if look is None else look.settings),
            dagster_url=self._serving.dagster_url,
            allow_changes=self._serving.allow_changes,
            csrf="",
            version=self._version,
            now=time.time(),
            address=text,
            live=f"/live?page={quote(text, safe='')}" if is_live else "",
            watch="",
            seen=0.0 if look is None else look.at,
            trouble="" if look is None else look.trouble,
            period="" if address is None else urlencode(Period.of(dict(address.query)).query),
        )


@dataclass(frozen=True, slots=True)
class _Told:
    error: ErrorPage


def _kind(deployment: Deployment, settings: Settings | None) -> TargetKind:
    if isinstance(deployment, EndpointDeployment):
        return "endpoint"
    return "engine" if settings is not None and settings.engine else "stock"
