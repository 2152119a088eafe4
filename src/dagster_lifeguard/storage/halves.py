"""The engine needs two storages, and refuses to run with only one of them.

The event log storage decides claims, and the run storage tells the run queue which pools a run will
ask for. In ``storage: custom`` both come from one class. In the older form of ``dagster.yaml`` each
has a block of its own, and one of them is easily forgotten.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dagster_lifeguard.compat import storages
from dagster_lifeguard.errors import ConfigError

if TYPE_CHECKING:
    import dagster as dg


class OfTheEngine:
    """Marks the event log storages and the run storages of this package."""


def refuse_half(instance: dg.DagsterInstance) -> None:
    """Refuse an instance of whose event log storage and run storage only one is ours.

    Of an instance that is still being made, what it does not have yet is not judged.

    Raises:
        ConfigError: One is ours and the other is Dagster's.
    """
    event_log, runs = storages.parts_of(instance)
    if event_log is None or runs is None:
        return
    if isinstance(event_log, OfTheEngine) != isinstance(runs, OfTheEngine):
        raise half_refused(type(event_log).__name__, type(runs).__name__)


def half_refused(event_log: str, runs: str) -> ConfigError:
    """The error if only one of the two classes is ours."""
    return ConfigError(
        f"Half of the engine is switched on: event_log_storage is {event_log}, and run_storage is "
        f"{runs}.",
        remedy="Name the engine's classes for both in dagster.yaml, or for neither: lifeguard "
        "engine enable, or lifeguard engine disable.",
        names=["event_log_storage", "run_storage"],
    )
