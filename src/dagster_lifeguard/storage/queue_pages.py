"""The pages of the run queue that Dagster's daemon reads, in the order of launches.

The daemon has no setting for its order. It reads the queue page by page, oldest run first, sorts
what it read by priority and launches from the front; its sorting leaves runs of one priority as
they were read. So the order in which the run storage hands over the queue is the order of launches.
"""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dagster import DagsterRunStatus, RunsFilter

from dagster_lifeguard.compat import storages
from dagster_lifeguard.compat.runs import statuses_of_runs
from dagster_lifeguard.compat.stored_runs import runs_with_ids
from dagster_lifeguard.engine.rules.launch_order import IN_PROGRESS, LaunchOrder, priority_of
from dagster_lifeguard.storage.queue_rules import queue_rules, remember_turns, remembered_turns

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from dagster import DagsterInstance, DagsterRun

    from dagster_lifeguard.compat.stored_runs import StoredRun
    from dagster_lifeguard.engine.rules.launch_order import QueueRules

logger = logging.getLogger(__name__)

_QUEUED = DagsterRunStatus.QUEUED


@dataclass(frozen=True, slots=True)
class _Outline:
    """What the order needs to know of a run, so that thousands of runs need little memory."""

    run_id: str
    changed: object
    priority: int
    tags: Mapping[str, str]
    pools: frozenset[str] | None
    first_pools: Mapping[str, int] | None


def is_run_queue(filters: RunsFilter | None) -> bool:
    """Whether this asks for all runs in the queue and for nothing else."""
    return filters is not None and filters == RunsFilter(statuses=[_QUEUED])


class QueuePages:
    """Hands the run queue over in the order of launches.

    A first page is a new look at the queue, and the next pages go on with it. What does not change
    of runs is remembered from look to look.

    Args:
        instance: Whose queue it is, asked when it is needed.
        read: Reads runs in Dagster's own order.
    """

    def __init__(
        self,
        instance: Callable[[], DagsterInstance],
        read: Callable[[RunsFilter], Sequence[DagsterRun]],
    ) -> None:
        self._instance = instance
        self._read = read
        self._lock = threading.Lock()
        self._known: dict[str, _Outline] = {}
        self._tags_known: frozenset[str] = frozenset()
        self._rules: QueueRules | None = None
        self._order: LaunchOrder | None = None
        self._places: dict[str, int] = {}

    def page(self, cursor: str | None, limit: int) -> list[DagsterRun] | None:
        """The next runs in the queue; None where Dagster's own order holds, for no pool is fair.

        Args:
            cursor: The run after which the page begins; None for the first page.
            limit: The most runs of the page. A page with fewer is the last one.

        Raises:
            StoreUnavailableError: The database cannot be read.
        """
        with self._lock:
            if cursor is None or (self._order is not None and cursor not in self._places):
                self._look()
            if self._order is None:
                return None
            if cursor is not None and cursor not in self._places:
                return []  # As Dagster answers after a run that is no more.
            after = -1 if cursor is None else self._places[cursor]
            left = list(self._places)[after + 1 :]
            page: list[DagsterRun] = []
            while left and len(page) < limit:
                count = limit - len(page)
                asked, left = left[:count], left[count:]
                found = {run.run_id: run for run in self._read(RunsFilter(run_ids=asked))}
                runs = (found[run_id] for run_id in asked if run_id in found)
                page += [run for run in runs if run.status is _QUEUED]
            return page

    def launched(self, run_id: str) -> None:
        """Note that a run left the queue to be executed. It is launched, even if that fails."""
        with self._lock:
            if self._order is None or self._rules is None or not self._order.launched(run_id):
                return
            try:
                remember_turns(self._instance(), self._rules, self._order.turns)
            except storages.database_errors() as error:
                logger.warning("Whose turn is next in the run queue was not written: %s", error)

    def _look(self) -> None:
        """See which runs are in the queue now, and put them in order."""
        instance = self._instance()
        self._order, self._places = None, {}
        self._rules = queue_rules(instance)
        if self._rules is None:
            self._known = {}
            return
        statuses = [_QUEUED, *map(DagsterRunStatus, IN_PROGRESS)]
        rows = statuses_of_runs(instance, statuses)
        runs = self._outlines({run_id: changed for run_id, _, changed in rows}, self._rules.tags)
        seen = [(status, runs[run_id]) for run_id, status, _ in rows if run_id in runs]
        queued = [run for status, run in seen if status is _QUEUED]
        going_on = [run for status, run in seen if status is not _QUEUED]
        self._order = LaunchOrder(self._rules, remembered_turns(instance, self._rules), going_on)
        self._places = {run.run_id: n for n, run in enumerate(self._order.of(queued))}

    def _outlines(
        self, changed: Mapping[str, object], tags: frozenset[str]
    ) -> Mapping[str, _Outline]:
        known = self._known if tags == self._tags_known else {}
        known = {i: run for i, run in known.items() if changed.get(i) == run.changed}
        new = [run_id for run_id in changed if run_id not in known]
        for run in runs_with_ids(self._instance(), new):
            known[run.run_id] = _outline(run, changed[run.run_id], tags)
        self._known, self._tags_known = known, tags
        return known


def _outline(run: StoredRun, changed: object, tags: Iterable[str]) -> _Outline:
    told = run.told
    return _Outline(
        run_id=run.run_id,
        changed=changed,
        priority=priority_of(told.tags),
        tags={key: told.tags[key] for key in tags if key in told.tags},
        pools=told.pools,
        first_pools=told.first_pools,
    )
