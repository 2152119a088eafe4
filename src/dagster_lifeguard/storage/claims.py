"""The claims of one process: asking the engine, and waiting without spinning.

Dagster's executors ask again and again, without a pause, for as long as a step waits. So the pause
is made here, inside the call, once for each turn of their loop: up to 25 ms, or 100 ms once a run
has waited for half a second and has nothing else to do. A wake-up ends it at once. In between
nothing is asked of the database.
"""

from __future__ import annotations

import logging
import multiprocessing
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from dagster_lifeguard.engine.rules.model import Granted, TicketKey, Waiting
from dagster_lifeguard.engine.store.retry import retry
from dagster_lifeguard.errors import StoreUnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping

    from dagster_lifeguard.engine.engine import Engine
    from dagster_lifeguard.engine.rules.model import Demand, Verdict
    from dagster_lifeguard.engine.rules.pool_settings import PoolSettings

logger = logging.getLogger(__name__)

_PAUSE_SECONDS = 0.025
_LONG_PAUSE_SECONDS = 0.1
_SHORT_PAUSES_MAX = 20
"""After so many pauses in a row the others are long: nothing but a wake-up is awaited."""
_LOOK_SECONDS = 0.001
"""How long to look for wake-ups in a turn without a pause."""
_ELSEWHERE_SECONDS = 0.005
"""A loop whose turn takes longer, without using the processor, pauses by itself."""
_QUICK_TURNS_MAX = 20
"""How many quick turns in a row have no pause while child processes run steps."""


@dataclass
class _Turn:
    """One turn of an executor's loop over the waiting steps of a run."""

    asked: set[TicketKey] = field(default_factory=set)
    left_at: float = 0.0
    processor_at: float = 0.0
    quick: int = 0
    pauses: int = 0


class Claims:
    """Claims for one process, and for the threads of it.

    Args:
        engine: Decides.
        look: Called, with the run, before each question to the engine by a step that waits; may
            free what is held without need.
        tags: Looks up the tags of a run; asked only if the order of a pool is fair.
    """

    def __init__(
        self,
        engine: Engine,
        look: Callable[[str], None],
        tags: Callable[[str], Mapping[str, str]],
    ) -> None:
        self._engine = engine
        self._look = look
        self._tags = tags
        self._granted: dict[TicketKey, int] = {}
        self._waiting: dict[TicketKey, Waiting] = {}
        self._turns: dict[str, _Turn] = {}
        self._settings: Mapping[str, PoolSettings] | None = None

    def claim(self, key: TicketKey, demand: Demand, priority: int) -> Verdict:
        """Ask for the demand, or ask again; returns within the pause.

        Raises:
            StoreUnavailableError: The database cannot be asked. Nothing is granted.
        """
        before = self._waiting.get(key)
        with self._telling_of([key]):
            if before is not None:
                if not self._engine.wait(*key, self._pause_seconds(key)):
                    self._leave(key)
                    return before
                self._look(key.run_id)
            self.forget_settings()
            verdict = self._engine.claim(*key, demand, priority, partial(self._tags, key.run_id))
        if isinstance(verdict, Granted):
            self._end_waiting(key)
            if verdict.slots:
                self._granted[key] = verdict.fence
            return verdict
        self._waiting[key] = verdict
        self._leave(key)
        return verdict

    def put_off(self, key: TicketKey) -> None:
        """Do not ask yet; returns within the pause."""
        # What it waits for, steps of the same run, wakes nobody.
        time.sleep(min(self._pause_seconds(key), _PAUSE_SECONDS))
        self._leave(key)

    def release(self, key: TicketKey) -> None:
        """Release the slots of the step, whichever process owns them, or delete its wait."""
        self._end_waiting(key)
        self._granted.pop(key, None)
        self._engine.release(*key)

    def release_inside(self, step: TicketKey) -> None:
        """Release the slots that were acquired inside a step, in any process."""
        store = self._engine.store
        pools = retry(lambda: store.pools_of(step.run_id, None, ()))
        for pool in self._engine.snapshots(pools) if pools else ():
            # Also what is over: its process may still come back and extend the lease.
            for key in [h.key for h in pool.granted] + [t.key for t in pool.tickets]:
                if step in key.around:
                    self._engine.release(*key)

    def release_run(self, run_id: str) -> None:
        """Give back what the run holds, and withdraw its waiting steps."""
        self.forget_run(run_id)
        self._engine.release_run(run_id)

    def forget_run(self, run_id: str) -> None:
        """The run holds nothing and waits for nothing any more."""
        for keys in (self._granted, self._waiting):
            for key in [key for key in keys if key.run_id == run_id]:
                del keys[key]
        self._turns.pop(run_id, None)

    def fence(self, key: TicketKey) -> int | None:
        """The fence of a step that was granted its slots in this process."""
        return self._granted.get(key)

    def held_keys(self, run_id: str) -> tuple[TicketKey, ...]:
        """The steps of this run that were granted their slots and did not give them back."""
        return tuple(key for key in tuple(self._granted) if key.run_id == run_id)

    def forget(self, key: TicketKey) -> None:
        """Leave the step's slots to its other owners, or to the lease."""
        self._granted.pop(key, None)

    def is_holding(self) -> bool:
        """Whether something granted in this process was not given back in it."""
        return bool(self._granted)

    def holds_for(self, run_id: str) -> bool:
        """Whether something granted in this process to this run was not given back in it."""
        return bool(self.held_keys(run_id))

    def settings(self) -> Mapping[str, PoolSettings]:
        """The settings of pools; while a step of this process waits, a copy from its last claim.

        Dagster reads all limits before each claim of each waiting step. Every change that matters
        to a waiting step wakes it, and the wake-up discards the copy.
        """
        if self._settings is None or not self._waiting:
            with self._telling_of(tuple(self._waiting)):
                self._settings = self._engine.settings()
        return self._settings

    def forget_settings(self) -> None:
        """Read the settings anew the next time."""
        self._settings = None

    @staticmethod
    @contextmanager
    def _telling_of(keys: Collection[TicketKey]) -> Iterator[None]:
        """Log why these steps get no slot when the database cannot be asked.

        Dagster keeps errors in the same database, and then forgets this one.
        """
        try:
            yield
        except StoreUnavailableError as error:
            for key in keys:
                logger.error(  # noqa: TRY400 - one line, which a trace would hide
                    "Step %s of run %s gets no slot: %s", key.step_key, key.run_id, error
                )
            raise

    def _end_waiting(self, key: TicketKey) -> None:
        self._waiting.pop(key, None)
        turn = self._turns.get(key.run_id)
        if turn is not None:
            turn.asked.discard(key)
            turn.pauses = 0

    def _leave(self, key: TicketKey) -> None:
        turn = self._turns.setdefault(key.run_id, _Turn())
        turn.asked.add(key)
        turn.left_at = time.monotonic()
        turn.processor_at = time.thread_time()

    def _pause_seconds(self, key: TicketKey) -> float:
        """How long this question may take: a pause when the loop has come round, and spins."""
        turn = self._turns.setdefault(key.run_id, _Turn())
        if key not in turn.asked:
            return 0.0
        turn.asked.clear()
        away = time.monotonic() - turn.left_at
        busy = time.thread_time() - turn.processor_at
        if away > _ELSEWHERE_SECONDS and busy < away / 2:
            turn.quick = turn.pauses = 0
            return _LOOK_SECONDS
        # Steps in child processes send events, which the loop takes in one for each turn: a pause
        # in every turn would hold them up. With nothing to take in, the loop waits for them.
        if multiprocessing.active_children():
            turn.pauses = 0
            turn.quick += 1
            if turn.quick <= _QUICK_TURNS_MAX:
                return _LOOK_SECONDS if turn.quick == 1 else 0.0
        turn.quick = 0
        turn.pauses += 1
        return _PAUSE_SECONDS if turn.pauses <= _SHORT_PAUSES_MAX else _LONG_PAUSE_SECONDS
