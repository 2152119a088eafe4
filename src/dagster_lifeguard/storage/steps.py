"""The steps that execute in this process: whose slots it owns, and what it does without them."""

from __future__ import annotations

import _thread
import logging
import os
import signal
import threading
import time
from typing import TYPE_CHECKING, Literal

from dagster_lifeguard.engine.rules.model import Holding, TicketKey
from dagster_lifeguard.errors import LeaseLostError

if TYPE_CHECKING:
    from collections.abc import Callable

    from dagster_lifeguard.engine.engine import Engine

logger = logging.getLogger(__name__)

GRACE_SECONDS = 15.0
"""How long an interrupted step may take to end before its process is killed."""

_LOOK_SECONDS = 0.1


class Steps:
    """Knows which steps execute in this process, from the events that they store.

    The process of a step becomes an owner of its slots, so that they stay held when the run worker
    that claimed them dies. It loses them when it was silent for longer than the lease: stopped,
    swapped out, cut off from the database. Then another step may hold them already, and this one
    is to end: it is interrupted as a user would interrupt it, and its process is killed when it
    has not ended ``GRACE_SECONDS`` later.

    Not promised: that the step does nothing between the loss and the interruption. A lease cannot
    stop a process; a sink that compares fences can refuse it.

    Args:
        engine: Where slots are held.
        on_lease_lost: ``terminate`` or only ``warn``.
        interrupt: Interrupts the step; a test puts its own here.
        kill: Ends the process at once; a test puts its own here.
    """

    def __init__(
        self,
        engine: Callable[[], Engine],
        on_lease_lost: Literal["terminate", "warn"],
        interrupt: Callable[[], None] | None = None,
        kill: Callable[[], None] | None = None,
    ) -> None:
        self._engine = engine
        self._on_lease_lost = on_lease_lost
        self._interrupt = interrupt or _interrupt_main_thread
        self._kill = kill or _kill_process
        self._running: dict[TicketKey, int] = {}

    def started(self, key: TicketKey, fence: int | None, *, is_shared: bool = False) -> None:
        """A step begins to execute in this process.

        Args:
            key: The step.
            fence: Its fence if this process was granted its slots; else they are adopted.
            is_shared: Whether the slots outlast the step, so that its process may end before them.

        Raises:
            LeaseLostError: The run worker that was granted its slots has died, and their lease
                ran out before the step began. Nothing has been executed.
        """
        if key in self._running:
            return
        if fence is None:
            engine = self._engine()
            # A look first: most steps hold nothing, and should not cost a session. A holding whose
            # lease is over was given to no other step yet, and may be adopted.
            if isinstance(engine.ticket(*key), Holding):
                fence = engine.adopt(*key, executes=not is_shared)
            if fence is None and engine.has_expired(*key):
                self._came_too_late(key)
        if fence is not None:
            self._running[key] = fence

    def _came_too_late(self, key: TicketKey) -> None:
        error = LeaseLostError(
            f"Step {key.step_key} of run {key.run_id} begins after the lease of its slots has run "
            "out: another step may have them.",
            remedy="Run it again. Its run worker has died, or was stopped for longer than the "
            "lease; see lease_seconds and on_lease_lost.",
            names=[key.run_id, key.step_key],
        )
        if self._on_lease_lost == "terminate":
            raise error
        logger.error("%s", error)

    def ended(self, key: TicketKey) -> None:
        """A step has ended, or was reported to have."""
        self._running.pop(key, None)

    def fence(self, key: TicketKey) -> int | None:
        """The fence with which the step began in this process, also after its slots were lost."""
        return self._running.get(key)

    def runs_here(self, key: TicketKey) -> bool:
        """Whether the step executes in this process, on slots."""
        return key in self._running

    def lost(self, keys: tuple[TicketKey, ...]) -> None:
        """The engine's word that this process owns nothing any more."""
        lost = [key for key in keys if key in self._running]
        for key in lost:
            self._report(key)
        if lost and self._on_lease_lost == "terminate":
            threading.Thread(
                target=self._end_for_good, args=(lost,), name="lifeguard-end-step", daemon=True
            ).start()

    def _report(self, key: TicketKey) -> None:
        warn = self._on_lease_lost == "warn"
        logger.log(
            logging.WARNING if warn else logging.ERROR,
            "Step %s of run %s was silent for longer than its lease and holds its slots (fence %s) "
            "no more: another step may have them. %s",
            key.step_key,
            key.run_id,
            self._running.get(key),
            "It goes on, because on_lease_lost is warn." if warn else "It is terminated.",
        )

    def _end_for_good(self, keys: list[TicketKey]) -> None:
        """End what executes on these: a step, and what it holds inside, by one interruption."""
        self._interrupt()
        deadline = time.monotonic() + GRACE_SECONDS
        while self._running.keys() & set(keys) and time.monotonic() < deadline:
            time.sleep(_LOOK_SECONDS)
        for key in keys:
            if key in self._running:
                logger.critical(
                    "Step %s of run %s did not end within %s s of its interruption: its process "
                    "ends.",
                    key.step_key,
                    key.run_id,
                    GRACE_SECONDS,
                )
        if self._running.keys() & set(keys):
            self._kill()


def _interrupt_main_thread() -> None:
    main = threading.main_thread().ident
    if hasattr(signal, "pthread_kill") and main is not None:
        signal.pthread_kill(main, signal.SIGINT)  # Also ends what the thread sleeps in.
    else:
        _thread.interrupt_main()


def _kill_process() -> None:
    os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))
