"""Streams that keep open pages up to date: server-sent events."""

from __future__ import annotations

import asyncio
import json
import time
from functools import partial
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, urlsplit

from sse_starlette import EventSourceResponse, ServerSentEvent

from dagster_lifeguard.errors import LifeguardError
from dagster_lifeguard.texts import clock_text
from dagster_lifeguard.web.errors import RequestRefusedError
from dagster_lifeguard.web.page_cache import is_current as is_current_page
from dagster_lifeguard.web.routes import find_page, refuse_long
from dagster_lifeguard.web.site import trouble_text
from dagster_lifeguard.web.visitors import visitor_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from starlette.requests import Request
    from starlette.responses import Response

    from dagster_lifeguard.web.deployment_reader import Reader
    from dagster_lifeguard.web.look import Look
    from dagster_lifeguard.web.page_cache import PageCache
    from dagster_lifeguard.web.routes import Address
    from dagster_lifeguard.web.visitors import Sessions

STREAMS_MAX = 500
"""The most pages that may be open at once."""

RETRY_MILLISECONDS = 1000
"""A browser tries again after this time to reach a server that is gone."""

_PING_SECONDS = 15
_SEND_SECONDS = 10
"""A stream ends if its browser takes nothing for this long; the browser comes back by itself."""
_QUIET_SECONDS = 5.0
_PAUSE_SECONDS = 0.05
_AFTER_ERROR_SECONDS = 1.0


class Streams:
    """The open pages.

    Args:
        reader: Knows when there is news.
        pages: Makes the blocks to send.
        sessions: Knows which visitors have logged out.
    """

    def __init__(self, reader: Reader, pages: PageCache, sessions: Sessions) -> None:
        self._sessions = sessions
        self._reader = reader
        self._pages = pages
        self._open = 0

    async def respond(self, request: Request) -> Response:
        """Answer with a stream for the page whose address is in ``page``.

        Without it, the stream only says whether the deployment answers.

        Raises:
            RequestRefusedError: There is no such page, it is not live, or too many are open.
        """
        shown = request.query_params.get("page")
        address = None if shown is None else _live_page(shown)
        if self._open >= STREAMS_MAX:
            raise RequestRefusedError(
                503, f"{STREAMS_MAX} pages are open already.", remedy="Close some."
            )
        is_welcome = partial(self._sessions.is_open, visitor_of(request))
        events = self._events(address, is_welcome)
        return EventSourceResponse(events, ping=_PING_SECONDS, send_timeout=_SEND_SECONDS)

    async def _events(
        self, address: Address | None, is_welcome: Callable[[], bool]
    ) -> AsyncIterator[ServerSentEvent]:
        """First all live blocks, since the page may be old; then each block that changes."""
        self._open += 1
        try:
            sent: dict[str, int] = {}
            told: object = None
            yield ServerSentEvent(retry=RETRY_MILLISECONDS, comment="lifeguard")
            while is_welcome():
                try:
                    look = self._reader.look()
                    if told != look.trouble:
                        told = look.trouble
                        yield _trouble(look)
                    if address is None or look.trouble:  # What is shown stays as it was seen.
                        await self._wait(look.number, _QUIET_SECONDS)
                        continue
                    kept = await self._pages.page(address)
                except LifeguardError as error:
                    if self._is_away():
                        continue  # Which is told above, with how old the page is.
                    if told != error.message:
                        told = error.message
                        yield _told(f"{error.message} {error.remedy}", as_of="")
                    await asyncio.sleep(_AFTER_ERROR_SECONDS)
                else:
                    # What takes long to make is not made with each news, but after some time.
                    is_current = is_current_page(kept, look, address)
                    patience = _QUIET_SECONDS if is_current else kept.took
                    for block, html in kept.live.items():
                        mark = hash(html)
                        if sent.get(block) != mark:
                            sent[block] = mark
                            yield ServerSentEvent(html, event=block)
                    await self._wait(look.number, patience)
        finally:
            self._open -= 1

    def _is_away(self) -> bool:
        try:
            return bool(self._reader.look().trouble)
        except LifeguardError:
            return False

    async def _wait(self, number: int, patience: float) -> None:
        """Wait for news, or for ``patience`` seconds: ages on a page grow without news."""
        try:
            await asyncio.wait_for(self._reader.news(number), max(patience, _PAUSE_SECONDS))
        except asyncio.TimeoutError:
            return


def _live_page(shown: str) -> Address:
    try:
        parts = urlsplit(shown)
    except ValueError:  # Such as //[
        parts = urlsplit("")
    query = dict(parse_qsl(parts.query, errors="surrogatepass"))
    refuse_long(query)
    found = find_page(parts.path, query)
    if found is None or not found[0].route.is_live:
        raise RequestRefusedError(404, "No page is live there.", remedy="Name one that is.")
    return found[0]


def _trouble(look: Look) -> ServerSentEvent:
    """The event with the trouble; its text is empty once the trouble is over."""
    now = time.time()
    as_of = clock_text(look.at, now) if look.trouble else ""
    return _told(trouble_text(look.trouble, look.at, now), as_of)


def _told(text: str, as_of: str) -> ServerSentEvent:
    return ServerSentEvent(json.dumps({"text": text, "asOf": as_of}), event="trouble")
