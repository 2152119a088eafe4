"""The pools that runs are to ask for, by what Dagster stored of the runs themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dagster import DagsterRunStatus, RunsFilter

from dagster_lifeguard.compat.stored_runs import runs_with_ids
from dagster_lifeguard.engine.rules.pool_expressions import is_expression

if TYPE_CHECKING:
    from collections.abc import Callable

    from dagster import DagsterInstance

_UNFINISHED = [
    DagsterRunStatus.QUEUED,
    DagsterRunStatus.NOT_STARTED,
    DagsterRunStatus.MANAGED,
    DagsterRunStatus.STARTING,
    DagsterRunStatus.STARTED,
    DagsterRunStatus.CANCELING,
]


class PlannedPools:
    """Knows the pools of the runs that are not over.

    What a run plans never changes, so each run is read once, and after that only which are left.

    Args:
        instance: Whose runs; asked for when it is needed.
    """

    def __init__(self, instance: Callable[[], DagsterInstance]) -> None:
        self._instance = instance
        self._of_run: dict[str, frozenset[str]] = {}

    def now(self) -> set[str]:
        """The pools, without expressions that the stock storage has left in runs."""
        instance = self._instance()
        left = instance.get_run_ids(RunsFilter(statuses=_UNFINISHED))
        known = {run_id: self._of_run[run_id] for run_id in left if run_id in self._of_run}
        new = [run_id for run_id in left if run_id not in known]
        for run in runs_with_ids(instance, new):
            known[run.run_id] = run.told.pools or frozenset()
        self._of_run = known
        return {pool for pools in known.values() for pool in pools if not is_expression(pool)}
