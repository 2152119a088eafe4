"""What the engine's ledger tells of a pool that nothing else does."""

from __future__ import annotations

from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dagster_lifeguard.deployment.history import read_ledger
from dagster_lifeguard.engine.rules.fall_backs import FallBacks
from dagster_lifeguard.engine.rules.model import Entry, EntryKind
from dagster_lifeguard.engine.rules.pool_settings import FallBack
from dagster_lifeguard.engine.store.retry import retry
from dagster_lifeguard.storage.switch import store_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dagster_lifeguard.deployment.contract import Deployment, Settings
    from dagster_lifeguard.engine.store.contract import Store

CHANGES_MAX = 50
"""The most changes of a limit that are returned, the newest ones."""


@dataclass(frozen=True, slots=True)
class LimitChange:
    """A limit was set, or fell back by itself.

    Attributes:
        at: When, in seconds since the epoch.
        limit: To what; 0 paused, None deleted.
        until: When it was to fall back, if it was set until a time.
    """

    at: float
    limit: int | None
    until: float | None = None


@dataclass(frozen=True, slots=True)
class Expiry:
    """Slots were taken back from a holder that no longer said that it lives."""

    at: float
    run_id: str
    step_key: str


@dataclass(frozen=True, slots=True)
class Account:
    """What the ledger tells of a pool.

    Attributes:
        changes: Of its limit, newest first.
        expiries: Within the window that was asked for, oldest first.
    """

    changes: tuple[LimitChange, ...]
    expiries: tuple[Expiry, ...]


@contextmanager
def open_ledger(deployment: Deployment, settings: Settings) -> Iterator[Store | None]:
    """The engine's ledger; None where the engine does not run, or is not reached from here."""
    if deployment.instance is None or not settings.engine:
        yield None
        return
    with closing(store_of(deployment.instance.event_log_storage)) as store:
        yield store


def account_of(
    deployment: Deployment, settings: Settings, pool: str, since: float
) -> Account | None:
    """What the ledger tells of a pool; None if there is no ledger.

    Args:
        deployment: The deployment.
        settings: Of it.
        pool: The pool.
        since: From when on expiries are wanted.
    """
    with open_ledger(deployment, settings) as store:
        if store is None:
            return None
        ends = FallBacks()
        told = [*ends.among(read_ledger(store, pool=pool, kind=EntryKind.LIMIT))]
        told += ends.rest(retry(store.now))
        limits = [LimitChange(entry.at, entry.limit, _until(entry)) for entry in told]
        expired = read_ledger(store, pool=pool, kind=EntryKind.EXPIRED, since=since)
        expiries = tuple(Expiry(entry.at, entry.run_id, entry.step_key) for entry in expired)
        return Account(tuple(reversed(limits[-CHANGES_MAX:])), expiries)


def _until(entry: Entry) -> float | None:
    return FallBack.read(entry.detail).at if entry.detail else None
