"""A block that holds slots: waiting before it, giving back after it; for threads and coroutines."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from dagster_lifeguard.engine.rules.model import Granted, Waiting, WaitReason
from dagster_lifeguard.engine.rules.shown_names import pool_text, terms_text
from dagster_lifeguard.errors import ConfigError, LifeguardError, SlotsTimeoutError

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

    from typing_extensions import Self

    from dagster_lifeguard.client.asking import Asking
    from dagster_lifeguard.engine.rules.model import Demand, TicketKey, Verdict

logger = logging.getLogger(__name__)

T = TypeVar("T")

_WATCH_SECONDS = 0.025

_WHY = {
    WaitReason.FULL: "is full",
    WaitReason.BEHIND: "is for those ahead",
    WaitReason.PAUSED: "is paused",
    WaitReason.TOO_LARGE: "has a lower limit",
    WaitReason.RATE: "has reached its rate",
}

_innermost: ContextVar[TicketKey | None] = ContextVar("lifeguard_slots", default=None)
"""The innermost slots that are held here: by this thread, or by this task of asyncio."""


class Desk:
    """Where coroutines of a process ask and wait: two threads for all of them, while there are any.

    Questions are put by one thread, in order, so a withdrawal comes after the claim that it
    withdraws. The other watches for wake-ups.
    """

    def __init__(self, asking: Asking) -> None:
        self.asking = asking
        self._questions = ThreadPoolExecutor(1, thread_name_prefix="lifeguard-slots")
        self._lock = threading.Lock()
        self._watched: dict[TicketKey, Callable[[], object]] = {}
        self._watcher: threading.Thread | None = None

    def put(self, question: Callable[[], T]) -> Future[T]:
        """Put a question."""
        return self._questions.submit(question)

    def watch(self, key: TicketKey, notify: Callable[[], object]) -> None:
        """Call this once, when the ticket should be claimed again."""
        with self._lock:
            self._watched[key] = notify
            if self._watcher is None:
                self._watcher = threading.Thread(
                    target=self._watch, name="lifeguard-slots-watch", daemon=True
                )
                self._watcher.start()

    def unwatch(self, key: TicketKey) -> None:
        """Do not call."""
        with self._lock:
            self._watched.pop(key, None)

    def _watch(self) -> None:
        while True:
            with self._lock:
                watched = dict(self._watched)
                if not watched:
                    self._watcher = None
                    return
            pause = _WATCH_SECONDS
            for key, notify in watched.items():
                try:
                    should_claim = self.asking.wait(key, pause)
                except LifeguardError:
                    should_claim = True  # Which says what is wrong, to the one who waits.
                if should_claim:
                    self.unwatch(key)
                    with suppress(RuntimeError):  # Its event loop is closed.
                        notify()
                pause = 0.0  # One wait takes in the wake-ups of all.


@dataclass
class Slots:
    """Slots of a pool for the length of a block, ``with`` or ``async with``. For one use.

    Attributes:
        desk: Where to ask.
        base: The step, or the script, that asks.
        pool: The pool, or an expression over several.
        n: How many slots of each.
        timeout: How many seconds to wait at most; None waits for ever.
        priority: Of the ticket.
        key: The ticket, from the block on.
        fence: Larger at each grant of the pool; 0 if it is unlimited. From the block on.
    """

    desk: Desk
    base: TicketKey
    pool: str
    n: int = 1
    timeout: float | None = None
    priority: int = 0
    key: TicketKey = field(init=False)
    fence: int = field(init=False, default=0)
    _demand: Demand | None = field(init=False, default=None)
    _outer: TicketKey | None = field(init=False, default=None)
    _begun: float | None = field(init=False, default=None)
    _process: int = field(init=False, default=0)

    def _begin(self) -> None:
        if self._begun is not None:
            raise ConfigError(
                f"These slots of {self.pool} were used before.",
                remedy="Call slots(...) anew for each block.",
                names=[self.pool],
            )
        self._begun = time.monotonic()
        self._process = os.getpid()
        self._outer = _innermost.get()
        is_ours = self._outer is not None and self._outer.step == self.base
        inside = self._outer if self._outer is not None and is_ours else self.base
        self.key = inside.inside(uuid.uuid4().hex[:8])

    def _waited(self) -> float:
        assert self._begun is not None
        return time.monotonic() - self._begun

    def _left(self) -> float:
        return float("inf") if self.timeout is None else self.timeout - self._waited()

    def _ask(self) -> Verdict:
        """Claim, and look whether it can ever come true."""
        if self._demand is None:
            self._demand = self.desk.asking.demand(self.pool, self.n)
        verdict = self.desk.asking.claim(self.key, self._demand, self.priority)
        if isinstance(verdict, Waiting):
            self.desk.asking.check(self.key, self._waited())
            if self._left() <= 0:
                raise SlotsTimeoutError(
                    f"{terms_text(self._demand.terms)} was not free within {self.timeout:g} s: "
                    f"{pool_text(verdict.pool)} {_WHY[verdict.reason]}, {verdict.ahead} ahead.",
                    remedy="Wait longer, or raise the limit.",
                    names=self._demand.pools,
                )
        return verdict

    def _enter(self, verdict: Granted) -> Self:
        self.fence = verdict.fence
        _innermost.set(self.key)
        return self

    def _give_back(self) -> None:
        if self._process != os.getpid():
            return  # A fork leaves its parent's block: the slots are the parent's.
        try:
            self.desk.asking.release(self.key)
        except LifeguardError as error:  # What failed is not the block.
            logger.warning("%s is given back later, or by its lease: %s", self.pool, error)

    # ---- threads -------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        self._begin()
        try:
            while True:
                verdict = self._ask()
                if isinstance(verdict, Granted):
                    return self._enter(verdict)
                # Not for ever in one call, so that an interruption gets through.
                while not self.desk.asking.wait(self.key, min(self._left(), 1.0)):
                    if self._left() <= 0:
                        break
        except BaseException:
            self._give_back()
            raise

    def __exit__(self, *error: object) -> None:
        _innermost.set(self._outer)
        self._give_back()

    # ---- coroutines ----------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        self._begin()
        woken = asyncio.Event()
        loop = asyncio.get_running_loop()
        try:
            while True:
                verdict = await asyncio.wrap_future(self.desk.put(self._ask))
                if isinstance(verdict, Granted):
                    return self._enter(verdict)
                woken.clear()
                self.desk.watch(self.key, lambda: loop.call_soon_threadsafe(woken.set))
                try:
                    left = None if self.timeout is None else self._left()
                    await asyncio.wait_for(woken.wait(), left)
                except asyncio.TimeoutError:
                    pass  # One last look.
                finally:
                    self.desk.unwatch(self.key)
        except BaseException:
            await asyncio.shield(asyncio.wrap_future(self.desk.put(self._give_back)))
            raise

    async def __aexit__(self, *error: object) -> None:
        _innermost.set(self._outer)
        await asyncio.shield(asyncio.wrap_future(self.desk.put(self._give_back)))
