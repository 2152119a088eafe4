"""The instance: its pools, its configuration, its run coordinator, and how its queue counts."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, cast

import dagster as dg
from dagster._core.instance.config import dagster_instance_config
from dagster._core.op_concurrency_limits_counter import GlobalOpConcurrencyLimitsCounter

if TYPE_CHECKING:
    from collections.abc import Mapping

DEFAULT_LIMIT_COMES_LATE = (
    "concurrency_keys" in inspect.signature(GlobalOpConcurrencyLimitsCounter).parameters
)
"""Whether the run queue lets all runs pass that wait for a pool which it meets for the first time.

It writes the default limit down only after it looked up which pools have one (1.11.1 and later).
"""


@dataclass(frozen=True)
class InstancePoolSettings:
    """What ``dagster.yaml`` says of pools, and of the queue before them.

    Attributes:
        default_limit: Limit of a pool that has none of its own; None if such a pool is unlimited.
        granularity: ``op`` or ``run``.
        limits: The pools that have a limit on the instance, and which.
        run_coordinator: The class of what takes runs in.
        has_engine: Whether its storage is one of ours.
        home: The instance's directory.
    """

    default_limit: int | None
    granularity: Literal["op", "run"]
    limits: Mapping[str, int] = field(default_factory=dict)
    run_coordinator: type[object] = field(default=object, compare=False)
    has_engine: bool = False
    home: str = field(default="", compare=False)


def default_limit_and_granularity(
    instance: dg.DagsterInstance,
) -> tuple[int | None, Literal["op", "run"]]:
    """Return what holds for all pools of an instance.

    Relies on: ``DagsterInstance.get_concurrency_config().pool_config`` (1.10.0).
    """
    config: Any = cast("Any", instance).get_concurrency_config().pool_config
    granularity = config.pool_granularity
    return config.default_pool_limit, "op" if granularity is None else granularity.value


def instance_pool_settings(home: str) -> InstancePoolSettings:
    """Return the pool settings of the instance in a directory.

    Relies on: ``EventLogStorage.get_pool_limits``, ``DagsterInstance.run_coordinator`` (1.10.0).

    Raises:
        Exception: Whatever Dagster and its drivers raise where it cannot be opened.
    """
    with dg.DagsterInstance.from_config(home) as instance:
        event_log = instance.event_log_storage
        return InstancePoolSettings(
            *default_limit_and_granularity(instance),
            {pool.name: pool.limit for pool in event_log.get_pool_limits()},
            type(cast("Any", instance).run_coordinator),
            has_engine=hasattr(type(event_log), "lifeguard"),
            home=home,
        )


def instance_config_problem(home: str) -> str | None:
    """Return what Dagster has against the ``dagster.yaml`` in a directory; None if nothing.

    Relies on: ``dagster_instance_config`` (1.10.0).
    """
    try:
        dagster_instance_config(home)
    except Exception as error:  # noqa: BLE001 - it raises several unrelated classes
        return " ".join(str(error).split())
    return None
