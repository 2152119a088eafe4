"""The storages that a user puts into ``dagster.yaml``: Dagster's own, with the engine's pools.

Each is a subclass of the stock storage, on the same files or database, configured the same. It
answers for pools and inherits everything else. ``storage: custom`` takes one class for all;
``run_storage`` and ``event_log_storage`` take one each, and both have to be ours.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from dagster_lifeguard.storage.sqlite import (
    LifeguardSqliteEventLogStorage,
    LifeguardSqliteRunStorage,
    LifeguardSqliteStorage,
)

if TYPE_CHECKING:
    from dagster_lifeguard.storage.postgres import (
        LifeguardPostgresEventLogStorage,
        LifeguardPostgresRunStorage,
        LifeguardPostgresStorage,
    )

__all__ = [
    "LifeguardPostgresEventLogStorage",
    "LifeguardPostgresRunStorage",
    "LifeguardPostgresStorage",
    "LifeguardSqliteEventLogStorage",
    "LifeguardSqliteRunStorage",
    "LifeguardSqliteStorage",
]


def __getattr__(name: str) -> Any:
    if name in __all__:  # On PostgreSQL: dagster-postgres is an extra.
        return getattr(import_module("dagster_lifeguard.storage.postgres"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
