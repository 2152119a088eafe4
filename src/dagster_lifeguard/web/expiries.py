"""Slots that the engine took back, from its ledger."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

from dagster_lifeguard.deployment.instance import InstanceDeployment
from dagster_lifeguard.history import read_ledger
from dagster_lifeguard.model import EntryKind
from dagster_lifeguard.storage.switch import store_of

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from dagster_lifeguard.deployment.contract import Deployment


class Expiries:
    """Tells each expiry once; those before the first look are not told.

    Attributes:
        ends: When it last happened to each step of a run, those before the first look included,
            until it is forgotten.
    """

    def __init__(self) -> None:
        self._last: float | None = None
        self.ends: Mapping[tuple[str, str], float] = {}

    def read(self, deployment: Deployment) -> list[str]:
        """The pools of which slots were taken back since the last look, each time it happened.

        Raises:
            LifeguardError: The ledger cannot be read.
        """
        if not isinstance(deployment, InstanceDeployment) or not deployment.settings().engine:
            return []
        since = self._last or 0.0
        with closing(store_of(deployment.instance.event_log_storage)) as store:
            found = read_ledger(store, kind=EntryKind.EXPIRED, since=since)
            expired = [entry for entry in found if entry.at > since]
        is_first = self._last is None
        self._last = max((entry.at for entry in expired), default=since)
        self.ends = {**self.ends, **{(e.run_id, e.step_key): e.at for e in expired}}
        return [] if is_first else [entry.pool for entry in expired]

    def forget(self, before: float, but: Collection[str]) -> None:
        """Let go in ``ends`` of what happened before a moment, but not of these runs."""
        self.ends = {
            (run_id, step_key): at
            for (run_id, step_key), at in self.ends.items()
            if at >= before or run_id in but
        }
