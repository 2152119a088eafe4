"""A deployment as it was last read: it answers from memory what was read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dagster_lifeguard.deployment.contract import UNFINISHED, idle_pool
from dagster_lifeguard.errors import DeploymentError
from dagster_lifeguard.insight.waits import read_held_back

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from dagster_lifeguard.compat.health import RunQueue
    from dagster_lifeguard.deployment.contract import (
        Deployment,
        Judgement,
        PoolState,
        Run,
        Settings,
    )
    from dagster_lifeguard.deployment.history import RunExecution
    from dagster_lifeguard.engine.rules.pool_settings import PoolSettings
    from dagster_lifeguard.insight.waits import HeldBack
    from dagster_lifeguard.web.recent_history import Recent


@dataclass(frozen=True, slots=True)
class SeenQueue:
    """The run queue at one moment.

    Attributes:
        runs: All runs that were not over, oldest first.
        rules: How it lets runs go; None if there is no queue.
        leaked: The runs that held slots although they were over.
    """

    runs: tuple[Run, ...]
    rules: RunQueue | None
    leaked: frozenset[str] = frozenset()


class SeenDeployment:
    """Pools, settings, run queue and recent history as read; all else from the deployment itself.

    Fifty open pages cost the deployment as much as one. It refuses every change.

    Args:
        deployment: Answers what was not read.
        settings: The settings, as read.
        states: All pools, as read.
        recent: The recent history.
        queue: The run queue, as read; None if it was not read.
    """

    def __init__(
        self,
        deployment: Deployment,
        settings: Settings,
        states: Collection[PoolState],
        recent: Recent,
        queue: SeenQueue | None = None,
    ) -> None:
        self._deployment = deployment
        self._settings = settings
        self._states = {state.pool: state for state in states}
        self._recent = recent
        self._queue = queue
        self._held_back: HeldBack | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._deployment, name)

    def settings(self) -> Settings:
        return self._settings

    def pools(self, names: Collection[str] | None = None) -> tuple[PoolState, ...]:
        if names is None:
            return tuple(self._states.values())
        default = self._settings.default_limit
        return tuple(
            self._states.get(name) or idle_pool(name, default) for name in sorted(set(names))
        )

    def history(
        self,
        since: float,
        until: float | None = None,
        *,
        latest: int | None = None,
        queued: bool = False,
    ) -> Iterator[RunExecution]:
        """The history in memory, or else of the deployment; without the runs in the queue."""
        del queued  # No page draws a run that is in the queue from its history.
        found = self._recent.history(since, until)
        if found is not None:
            return iter(found)
        return self._deployment.history(since, until, latest=latest, queued=False)

    def remembered_since(self, since: float) -> float:
        """Since when the history is in memory, if that is later than ``since``.

        Where nothing is remembered, all is read from the deployment.
        """
        return since if self._recent.since == float("inf") else max(since, self._recent.since)

    def held_back(self, now: float) -> HeldBack | None:
        """The runs that the run queue holds back; None if the queue was not read yet."""
        if self._queue is None and self._settings.granularity == "op":
            return None
        if self._held_back is None:  # Once for each picture, however many ask.
            self._held_back = read_held_back(self, self._settings, self._states.values(), now)
        return self._held_back

    def is_leaked(self, run_id: str) -> bool:
        """Whether the run was over when the queue was read, and still held slots."""
        return self._queue is not None and run_id in self._queue.leaked

    def run_queue(self) -> RunQueue | None:
        return self._deployment.run_queue() if self._queue is None else self._queue.rules

    def unfinished_runs(self, statuses: Collection[str] = UNFINISHED) -> tuple[Run, ...]:
        if self._queue is None:
            return self._deployment.unfinished_runs(statuses)
        return tuple(run for run in self._queue.runs if run.status in statuses)

    def set_limit(self, pool: str, limit: int | None, until: float | None = None) -> None:
        del limit, until
        raise _refusal([pool])

    def set_pools(self, settings: Mapping[str, PoolSettings | None]) -> Iterator[str]:
        raise _refusal(settings)

    def free(self, run_id: str, step_key: str | None = None, *, force: bool = False) -> Judgement:
        del step_key, force
        raise _refusal([run_id])

    def close(self) -> None:
        """Do nothing: the reader closes the deployment."""


def _refusal(names: Collection[str]) -> DeploymentError:
    return DeploymentError("A page only shows.", remedy="Change pools with an action.", names=names)
