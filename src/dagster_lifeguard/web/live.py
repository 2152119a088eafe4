"""Streams that keep open pages up to date: server-sent events."""

from __future__ import annotations

import asyncio
import json
import time
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, urlsplit

from sse_starlette import EventSourceResponse, ServerSentEvent

from dagster_lifeguard.errors import LifeguardError
from dagster_lifeguard.web.errors import RequestRefusedError
from dagster_lifeguard.web.made_pages import is_current as is_current_page
from dagster_lifeguard.web.routes import find_page, refuse_long
from dagster_lifeguard.web.site import trouble_text

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.requests import Request
    from starlette.responses import Response

    from dagster_lifeguard.web.deployment_reader import Reader
    from dagster_lifeguard.web.made_pages import MadePages
    from dagster_lifeguard.web.routes import Address

STREAMS_MAX = 500
"""So many pages may be open at once."""

RETRY_MILLISECONDS = 1000
"""After so long a browser tries again to reach a server that is gone."""

_PING_SECONDS = 15
_QUIET_SECONDS = 5.0
_PAUSE_SECONDS = 0.05
_AFTER_ERROR_SECONDS = 1.0


class Streams:
    """The open pages.

    Args:
        reader: Tells when there is news.
        pages: Makes what is sent.
    """

    def __init__(self, reader: Reader, pages: MadePages) -> None:
        self._reader = reader
        self._pages = pages
        self._open = 0

    async def respond(self, request: Request) -> Response:
        """Answer with a stream for the page whose address is in ``page``.

        Raises:
            RequestRefusedError: There is no such page, it is not live, or too many are open.
        """
        try:
            parts = urlsplit(request.query_params.get("page", ""))
        except ValueError:  # Such as //[
            parts = urlsplit("")
        query = dict(parse_qsl(parts.query, errors="surrogatepass"))
        refuse_long(query)
        found = find_page(parts.path, query)
        if found is None or not found[0].route.is_live:
            raise RequestRefusedError(404, "No page is live there.", remedy="Name one that is.")
        if self._open >= STREAMS_MAX:
            raise RequestRefusedError(
                503, f"{STREAMS_MAX} pages are open already.", remedy="Close some."
            )
        return EventSourceResponse(self._events(found[0]), ping=_PING_SECONDS)

    async def _events(self, address: Address) -> AsyncIterator[ServerSentEvent]:
        """First all live blocks, since the page may have been made long ago; then what changes."""
        self._open += 1
        try:
            sent: dict[str, int] = {}
            told: str | None = None
            yield ServerSentEvent(retry=RETRY_MILLISECONDS, comment="lifeguard")
            while True:
                try:
                    kept = await self._pages.page(address)
                except LifeguardError as error:
                    if told != error.message:
                        told = error.message
                        yield _trouble(f"{error.message} {error.remedy}")
                    await asyncio.sleep(_AFTER_ERROR_SECONDS)
                else:
                    look = self._reader.look()
                    if told != look.trouble:
                        told = look.trouble
                        yield _trouble(trouble_text(look.trouble, look.at, time.time()))
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

    async def _wait(self, number: int, patience: float) -> None:
        """Until there is news, or so many seconds: what is on a page grows older without."""
        try:
            await asyncio.wait_for(self._reader.news(number), max(patience, _PAUSE_SECONDS))
        except asyncio.TimeoutError:
            return


def _trouble(text: str) -> ServerSentEvent:
    """What an open page tells beside its own content; empty when it is over."""
    return ServerSentEvent(json.dumps({"text": text}), event="trouble")
