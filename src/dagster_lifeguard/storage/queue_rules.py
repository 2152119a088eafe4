"""What the order of an instance's run queue depends on, and what is remembered of it.

The turns of lines stand in Dagster's table of cursors, where its daemon keeps what it remembers.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from dagster_lifeguard.compat import health, storages
from dagster_lifeguard.compat.instance import default_limit_and_granularity
from dagster_lifeguard.compat.runs import cursor_value, set_cursor_value
from dagster_lifeguard.engine.rules.launch_order import QueueRules, Turns
from dagster_lifeguard.engine.rules.pool_settings import limit_in_force, own_limits
from dagster_lifeguard.storage.event_log import PoolMethods

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dagster import DagsterInstance

_CURSOR = "LIFEGUARD_RUN_QUEUE_TURNS"


def queue_rules(instance: DagsterInstance) -> QueueRules | None:
    """What the order of the queue depends on; None if it is Dagster's own: no pool is fair.

    Raises:
        StoreUnavailableError: The database cannot be read.
    """
    event_log = instance.event_log_storage
    if not isinstance(event_log, PoolMethods):
        return None
    engine = event_log.lifeguard.engine
    settings = engine.settings()
    fair_by = {pool: tag for pool, found in settings.items() if (tag := found.fair_by) is not None}
    if not fair_by:
        return None
    own = own_limits(settings)
    default_limit = storages.default_pool_limit(event_log)
    queue = health.run_queue(instance)
    return QueueRules(
        fair_by=fair_by,
        limit_of=lambda pool: limit_in_force(pool, own.get(pool), default_limit),
        by_run=default_limit_and_granularity(instance)[1] == "run",
        tag_limits=queue.tag_limits if queue is not None else (),
    )


def remembered_turns(instance: DagsterInstance, rules: QueueRules) -> dict[str, Turns]:
    """The turns of lines, by pool, without turns from an earlier order of the pool."""
    text = cursor_value(instance, _CURSOR)
    return {
        pool: Turns(found["turn"], found["groups"])
        for pool, found in (json.loads(text) if text else {}).items()
        if found["by"] == rules.fair_by.get(pool)
    }


def remember_turns(
    instance: DagsterInstance, rules: QueueRules, turns: Mapping[str, Turns]
) -> None:
    """Keep the turns of lines for the next look at the queue."""
    found = {
        pool: {"by": rules.fair_by[pool], "turn": of_line.turn, "groups": dict(of_line.of_groups)}
        for pool, of_line in turns.items()
    }
    set_cursor_value(instance, _CURSOR, json.dumps(found))
