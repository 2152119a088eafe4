"""What a run launcher tells of the workers of its runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, cast

from dagster._core.launcher.base import WorkerStatus

if TYPE_CHECKING:
    import dagster as dg

_ALIVE = {
    WorkerStatus.RUNNING: True,
    WorkerStatus.NOT_FOUND: False,
    WorkerStatus.FAILED: False,
    WorkerStatus.SUCCESS: False,
    WorkerStatus.UNKNOWN: None,
}


class WorkerHealth(NamedTuple):
    """What a run launcher says of a run's worker.

    Attributes:
        launcher: Its class.
        alive: None if it does not know.
        detail: What it says.
    """

    launcher: str
    alive: bool | None
    detail: str


def worker_health(instance: dg.DagsterInstance, run_id: str) -> WorkerHealth | None:
    """What the run launcher says of a run's worker; None if there is no such run.

    Relies on: ``DagsterInstance.run_launcher``; of it ``supports_check_run_worker_health`` and
    ``check_run_worker_health`` with a ``WorkerStatus`` (1.10.0).
    """
    run = instance.get_run_by_id(run_id)
    if run is None:
        return None
    launcher: Any = cast("Any", instance).run_launcher
    name = type(launcher).__name__
    if not launcher.supports_check_run_worker_health:
        return WorkerHealth(name, None, "it cannot tell whether a run worker lives")
    try:
        found = launcher.check_run_worker_health(run)
    except Exception as error:  # noqa: BLE001 - whatever its platform answers, it is no answer
        return WorkerHealth(name, None, f"it does not answer: {type(error).__name__}")
    said = found.status.value.lower().replace("_", " ")
    detail = f"run worker {said}" + (f": {found.msg}" if found.msg else "")
    return WorkerHealth(name, _ALIVE[found.status], detail)
