"""Slots that the engine took back, from its ledger."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dagster_lifeguard.deployment.history import read_ledger
from dagster_lifeguard.engine.rules.model import EntryKind
from dagster_lifeguard.engine.store.retry import retry
from dagster_lifeguard.insight.pool_account import open_ledger

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from dagster_lifeguard.deployment.contract import Deployment


LATE_MAX = 10_000
"""How many numbers of the ledger are read again, because a commit may be late.

A number is given in the message that commits it, so a commit is late by no more than its own time.
"""


class Expiries:
    """Finds each expiry once, but none before the first look.

    It goes by the numbers of the ledger, because a clock may step back. Two pools may commit their
    numbers in the other order, so it reads again what a late commit may have added.

    Attributes:
        ends: For each step of a run, its last expiry, those before the first look included, until
            it is forgotten.
    """

    def __init__(self) -> None:
        self._told: frozenset[int] | None = None
        self._after = 0
        self.ends: Mapping[tuple[str, str], float] = {}

    def read(self, deployment: Deployment) -> list[str]:
        """The pool of each expiry since the last look.

        Raises:
            LifeguardError: The ledger cannot be read.
        """
        with open_ledger(deployment, deployment.settings()) as store:
            if store is None:
                return []
            newest = retry(lambda: store.ledger(count_max=1))
            first = self._after + 1
            found = tuple(read_ledger(store, kind=EntryKind.EXPIRED, first=first))
        told = self._told
        expired = [entry for entry in found if told is None or entry.number not in told]
        self._after = max(newest[0].number - LATE_MAX, 0) if newest else 0
        self._told = frozenset(entry.number for entry in found if entry.number > self._after)
        self.ends = {**self.ends, **{(e.run_id, e.step_key): e.at for e in expired}}
        return [] if told is None else [entry.pool for entry in expired]

    def forget(self, before: float, but: Collection[str]) -> None:
        """Forget in ``ends`` what happened before a moment, but not for these runs."""
        self.ends = {
            (run_id, step_key): at
            for (run_id, step_key), at in self.ends.items()
            if at >= before or run_id in but
        }
