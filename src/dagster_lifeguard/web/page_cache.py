"""A cache of rendered pages, for all visitors who have the same page open."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dagster_lifeguard.errors import DeploymentError
from dagster_lifeguard.web.asset_names import AssetNames
from dagster_lifeguard.web.load_cache import LoadCache
from dagster_lifeguard.web.recording_cache import RecordingCache
from dagster_lifeguard.web.routes import PageRequest

if TYPE_CHECKING:
    from collections.abc import Callable

    from dagster_lifeguard.web.changes import ChangeLog
    from dagster_lifeguard.web.deployment_reader import Reader
    from dagster_lifeguard.web.look import Look
    from dagster_lifeguard.web.rendering import Templates
    from dagster_lifeguard.web.routes import Address
    from dagster_lifeguard.web.site import Site

    SiteFor = Callable[[Look, Address], Site]

PAGES_MAX = 200
"""At most this many pages are in the cache: the ones that were used last."""

AT_ONCE = 4
"""At most this many pages are rendered at once; each may ask the deployment."""

STALE_SECONDS = 10.0
"""A page without news is rendered again after this time, because ages on it grow."""

AWAY_SECONDS = 2.0
"""While the deployment is away, a visitor waits at most this long for a page that is not cached."""

_WATCH_SECONDS = 0.2
_LIVE_SHARE = 2
_KEPT_SHARE = 20
"""A page is used for at least this many times as long as it took to render."""


@dataclass(frozen=True, slots=True)
class MadePage:
    """A page as it was made.

    Attributes:
        page: The page.
        look: The look from which it was made.
        made: When it was made, by the monotonic clock.
        took: How many seconds that took.
        live: Its live blocks as HTML, by name.
    """

    page: object
    look: Look
    made: float
    took: float
    live: dict[str, str]


class PageCache:
    """Makes each page once, however many visitors ask for it.

    Args:
        reader: What pages are made from.
        changes: The changes that were made over this server.
        templates: For their live blocks.
        site_for: Makes the site of live blocks, which has no session.
    """

    def __init__(
        self, reader: Reader, changes: ChangeLog, templates: Templates, site_for: SiteFor
    ) -> None:
        self._reader = reader
        self._changes = changes
        self._templates = templates
        self._site_for = site_for
        self._kept: OrderedDict[str, MadePage] = OrderedDict()
        self._being_made: dict[str, asyncio.Task[MadePage]] = {}
        self._sums = LoadCache()
        self._recordings = RecordingCache()
        self._assets = AssetNames()
        self._room = asyncio.Semaphore(AT_ONCE)

    async def page(self, address: Address) -> MadePage:
        """The page at an address, as new as the reader's last look.

        Raises:
            LifeguardError: There is none, or it could not be made.
        """
        look = await self._reader.first_look()
        kept = self._kept.get(address.text)
        if kept is not None and _is_fresh(kept, look, address):
            self._kept.move_to_end(address.text)
            return kept
        if kept is not None and look.trouble:
            return kept
        task = self._being_made.get(address.text)
        if task is None:
            task = asyncio.create_task(self._make(address, look))
            self._being_made[address.text] = task
            task.add_done_callback(self._made_or_not(address))
        return await self._unless_away(task, kept)

    def _made_or_not(self, address: Address) -> Callable[[asyncio.Task[MadePage]], None]:
        def done(task: asyncio.Task[MadePage]) -> None:
            self._being_made.pop(address.text, None)
            if not task.cancelled():
                task.exception()  # Who asked may have been told already that it takes too long.

        return done

    async def _unless_away(self, task: asyncio.Task[MadePage], kept: MadePage | None) -> MadePage:
        """The page once it is made. While the deployment is away: the cached page, or an error."""
        began = time.monotonic()
        while True:
            done, _ = await asyncio.wait({task}, timeout=_WATCH_SECONDS)
            if done:
                return task.result()
            look = self._reader.look()
            if look.trouble and time.monotonic() - began > AWAY_SECONDS:
                if kept is not None:
                    return kept
                raise DeploymentError(
                    f"The deployment does not answer. {look.trouble}",
                    remedy="The page comes back by itself once it does.",
                )

    async def _make(self, address: Address, look: Look) -> MadePage:
        async with self._room:
            kept = await asyncio.to_thread(self._made, address, look)
        if address.is_data:
            return kept
        self._kept[address.text] = kept
        self._kept.move_to_end(address.text)
        while len(self._kept) > PAGES_MAX:
            self._kept.popitem(last=False)
        return kept

    def _made(self, address: Address, look: Look) -> MadePage:
        route = address.route
        asked = PageRequest(
            look,
            self._reader.deployment,
            address.name,
            dict(address.query),
            self._reader.window,
            self._changes,
            self._sums,
            self._recordings,
            self._assets,
        )
        began = time.monotonic()
        page = route.make(asked)
        site = self._site_for(look, address)
        live = (
            self._templates.live(route.template, page, site)
            if route.is_live and not address.is_data
            else {}
        )
        made = time.monotonic()
        return MadePage(page, look, made, made - began, live)


def _is_fresh(kept: MadePage, look: Look, address: Address) -> bool:
    age = time.monotonic() - kept.made
    if not address.route.is_live:
        return age < max(address.route.kept_seconds, _KEPT_SHARE * kept.took)
    return age < (STALE_SECONDS if is_current(kept, look, address) else _LIVE_SHARE * kept.took)


def is_current(kept: MadePage, look: Look, address: Address) -> bool:
    """Whether a look has no news for a page that was made from an earlier one."""
    number = kept.look.number
    if address.route.is_of_pool:
        return not look.has_news(address.name, number)
    return number == look.number
