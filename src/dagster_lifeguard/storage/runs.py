"""The run storages: runs are stored with the pools that their expressions name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from dagster_lifeguard.compat import storages
from dagster_lifeguard.storage.expressions import pools_of, slots_by_pool

if TYPE_CHECKING:
    from dagster import DagsterRun


class PoolsOfRuns:
    """Mixed into a stock run storage, before it.

    Guarantees:
        The run queue sees pools, never expressions: it blocks and counts by the slots that a run's
        first steps ask for (granularity ``op``), or by all pools of the run (granularity ``run``).

    Not guaranteed:
        Under granularity ``op`` a run leaves the queue as soon as one pool of its first steps has
        a free slot, even if a step needs others besides, for that is how Dagster asks. Its steps
        then wait in the run.
    """

    def add_run(self, dagster_run: DagsterRun) -> DagsterRun:
        """Store the run; its pools get the default limit at once, if there is one.

        The run queue looks up which pools have a limit before it writes the default one down, and
        lets everything pass that is new to it (1.11.1 and later).
        """
        asked = dagster_run.run_op_concurrency
        if asked is not None:
            pools = pools_of(asked.all_pools or ())
            dagster_run = storages.run_with_pools(
                dagster_run,
                storages.RunOpConcurrency(
                    root_key_counts=slots_by_pool(asked.root_key_counts),
                    has_unconstrained_root_nodes=asked.has_unconstrained_root_nodes,
                    all_pools=pools,
                ),
            )
            if storages.default_pool_limit(self) is not None:
                event_log = storages.instance_of(self).event_log_storage
                for pool in sorted(pools - event_log.get_concurrency_keys()):
                    event_log.initialize_concurrency_limit_to_default(pool)
        stored: DagsterRun = cast("Any", super()).add_run(dagster_run)
        return stored
