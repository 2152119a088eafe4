"""The limits of pools as Dagster is told them, and the settings that a pool cannot have."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dagster import DagsterInvalidInvocationError

from dagster_lifeguard.compat import storages
from dagster_lifeguard.engine.rules.pool_expressions import (
    is_expression,
    is_of_all_partitions,
    refuse_unsettable,
)
from dagster_lifeguard.engine.rules.pool_settings import LIMIT_MAX, PoolSettings, own_limits
from dagster_lifeguard.errors import ConfigError
from dagster_lifeguard.storage.expressions import demand_of, is_deferred, limit_of

if TYPE_CHECKING:
    from collections.abc import Mapping

NO_DEFAULT = 2**31 - 1
"""Dagster asks us about unknown pools only if a default limit exists; this fake default makes it
always ask. Otherwise Dagster would treat a pool expression as an unlimited pool."""


class LimitRefusedError(ConfigError, DagsterInvalidInvocationError):
    """A limit cannot be set. Also what Dagster's own storages raise then."""


def limits_to_tell(
    settings: Mapping[str, PoolSettings], texts: Mapping[str, None], default_limit: int | None
) -> list[storages.PoolLimit]:
    """The pools that have a limit of their own, and the limits of other texts in ``op.pool``.

    Args:
        settings: What is set of pools.
        texts: What this process was asked about.
        default_limit: The limit of pools without a limit of their own.
    """
    limits = own_limits(settings)
    found = [
        storages.PoolLimit(name=pool, limit=limit, from_default=False)
        for pool, limit in limits.items()
    ]
    rated = {pool for pool, of_pool in settings.items() if of_pool.rate is not None}
    for text in sorted(texts.keys() - limits.keys()):
        limit: int | None = LIMIT_MAX
        from_default = False
        # Which pools a template names is known when a step claims.
        if not (is_of_all_partitions(text) or is_deferred(text)):
            demand = demand_of(text)
            limit = limit_of(demand, limits, default_limit)
            from_default = limit is not None and not is_expression(text)
            if limit is None and not rated.isdisjoint(demand.pools):
                limit = LIMIT_MAX
        if limit is not None:
            found.append(storages.PoolLimit(name=text, limit=limit, from_default=from_default))
    return found


def refuse_settings(pool: str, settings: PoolSettings) -> None:
    """Refuse settings that a pool cannot have.

    Raises:
        ConfigError: A limit is out of bounds, or the name is a pool expression or stands for the
            pools of all partitions.
    """
    most = max(settings.limit or 0, settings.lasting_limit or 0)
    if most > storages.limit_max():
        raise ConfigError(
            f"{most} is more than {storages.limit_max()}, the most slots that a pool may have.",
            remedy="Set DAGSTER_MAX_GLOBAL_OP_CONCURRENCY_LIMIT for more.",
            names=[pool],
        )
    refuse_unsettable([pool])
