"""The run storages: runs with the pools that their expressions name, and the order of the queue."""

from __future__ import annotations

from collections import Counter
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast

from dagster import DagsterEventType

from dagster_lifeguard.compat import storages
from dagster_lifeguard.engine.rules.pool_expressions import SLOTS_MAX, is_of_all_partitions
from dagster_lifeguard.storage.demands import asked, plan_of
from dagster_lifeguard.storage.expressions import demand_of, needs_plan
from dagster_lifeguard.storage.halves import OfTheEngine, refuse_half
from dagster_lifeguard.storage.queue_pages import QueuePages, is_run_queue

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dagster import DagsterEvent, DagsterInstance, DagsterRun, RunsFilter

    from dagster_lifeguard.engine.rules.model import Demand, TicketKey


class PoolsOfRuns(OfTheEngine):
    """Mixed into a stock run storage, before it.

    Guarantees:
        The run queue sees pools, never expressions: it blocks and counts by the slots that a run's
        first steps ask for (granularity ``op``), or by all pools of the run (granularity ``run``).
        A pool that stands for all partitions keeps no run of single partitions in the queue: such a
        pool nearly always has a free slot, and Dagster launches a run that finds one.

        The run queue launches runs that will ask for a fair pool in the order of their groups, see
        ``launch_order``. So ``get_runs`` of all queued runs, ascending and with a limit, answers in
        the order of launches.

    Not guaranteed:
        Under granularity ``op`` a run leaves the queue as soon as one pool of its first steps has
        a free slot, even if a step needs other pools too, because Dagster asks in this way. Its
        steps then wait in the run.
    """

    def register_instance(self, instance: DagsterInstance) -> None:
        """Take note of the instance, which has its event log storage by then.

        Raises:
            ConfigError: Its event log storage is not ours.
        """
        cast("Any", super()).register_instance(instance)
        refuse_half(instance)

    def add_run(self, dagster_run: DagsterRun) -> DagsterRun:
        """Store the run with the pools that it is to ask for.

        Raises:
            ConfigError: See ``names.asked_by``. The run is not stored.
        """
        concurrency = dagster_run.run_op_concurrency
        if concurrency is not None:
            concurrency = self._filled(dagster_run, concurrency)
            dagster_run = storages.run_with_pools(dagster_run, concurrency)
        stored: DagsterRun = cast("Any", super()).add_run(dagster_run)
        return stored

    @cached_property
    def _queue_pages(self) -> QueuePages:
        stock = cast("Any", super())
        return QueuePages(lambda: storages.instance_of(self), stock.get_runs)

    def get_runs(
        self,
        filters: RunsFilter | None = None,
        cursor: str | None = None,
        limit: int | None = None,
        bucket_by: Any = None,
        ascending: bool = False,  # noqa: FBT001, FBT002 - as Dagster has it
    ) -> Sequence[DagsterRun]:
        """Runs as the stock storage answers; a page of the run queue in the order of launches."""
        page: Sequence[DagsterRun] | None = None
        if ascending and limit is not None and bucket_by is None and is_run_queue(filters):
            page = self._queue_pages.page(cursor, limit)
        if page is None:
            page = cast("Any", super()).get_runs(filters, cursor, limit, bucket_by, ascending)
        return cast("Sequence[DagsterRun]", page)

    def handle_run_event(self, run_id: str, event: DagsterEvent, *more: Any, **named: Any) -> None:
        """Take over what an event says of a run; a launch moves on whose turn it is."""
        cast("Any", super()).handle_run_event(run_id, event, *more, **named)
        if event.event_type is DagsterEventType.RUN_STARTING:
            self._queue_pages.launched(run_id)

    def _filled(
        self, run: DagsterRun, concurrency: storages.RunOpConcurrency
    ) -> storages.RunOpConcurrency:
        texts = concurrency.all_pools or set()
        planned = {text for text in texts if needs_plan(text)}
        demands = {text: demand_of(text) for text in texts - planned}
        first: Counter[str] = Counter()
        for text, demand in demands.items():
            _count(first, demand, concurrency.root_key_counts.get(text, 0))
        pools = {pool for demand in demands.values() for pool in demand.pools}

        instance = storages.instance_of(self)
        counted: set[TicketKey] = set()
        if planned:
            plan = plan_of(instance, run)
            for key, step in plan.steps.items():
                if step.pool not in planned:
                    continue
                asking = asked(run.run_id, key, step.pool, plan)
                if asking.demand is None:
                    continue
                pools.update(asking.demand.pools)
                if not step.after and asking.ticket not in counted:
                    counted.add(asking.ticket)
                    _count(first, asking.demand, 1)
        return storages.RunOpConcurrency(
            root_key_counts=dict(first),
            has_unconstrained_root_nodes=concurrency.has_unconstrained_root_nodes,
            all_pools=pools,
        )


def _count(slots: Counter[str], demand: Demand, times: int) -> None:
    if times:
        for term in demand.terms:
            if term.slots == SLOTS_MAX or not is_of_all_partitions(term.name):
                slots[term.name] += term.slots * times
