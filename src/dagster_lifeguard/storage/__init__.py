"""The storages that a user puts into ``dagster.yaml``: Dagster's own, with the engine's pools.

Each is a subclass of the stock storage, on the same files or database, configured the same. It
answers for pools and inherits everything else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dagster_lifeguard.storage.sqlite import LifeguardSqliteStorage

if TYPE_CHECKING:
    from dagster_lifeguard.storage.postgres import LifeguardPostgresStorage

__all__ = ["LifeguardPostgresStorage", "LifeguardSqliteStorage"]


def __getattr__(name: str) -> Any:
    # dagster-postgres is an extra.
    if name == "LifeguardPostgresStorage":
        from dagster_lifeguard.storage.postgres import (  # noqa: PLC0415
            LifeguardPostgresStorage as found,  # noqa: N813
        )

        return found
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
