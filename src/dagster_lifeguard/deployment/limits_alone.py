"""A deployment without the engine keeps limits alone: it refuses every other setting of a pool."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dagster_lifeguard.engine.rules.pool_settings import limits_of
from dagster_lifeguard.engine.rules.shown_names import pool_text
from dagster_lifeguard.errors import DeploymentError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dagster_lifeguard.engine.rules.pool_settings import PoolSettings


def limits_alone(settings: Mapping[str, PoolSettings | None]) -> dict[str, int | None]:
    """The limits of these settings, for a deployment that can keep only limits.

    Raises:
        DeploymentError: A rate, an order or a temporary limit is set too.
    """
    for pool, found in settings.items():
        if found is not None and found.fall_back is not None:
            raise temporary_needs_engine(pool)
    more = sorted(pool for pool, found in settings.items() if found and found.texts_set)
    if more:
        raise DeploymentError(
            "Rates and orders of pools need the engine.",
            remedy="Set them where DAGSTER_HOME is, with the engine in its dagster.yaml: "
            "lifeguard engine enable",
            names=more,
        )
    return limits_of(settings)


def temporary_needs_engine(pool: str) -> DeploymentError:
    """The error of a deployment that cannot keep a temporary limit."""
    return DeploymentError(
        f"A limit until a time needs the engine, and is set where DAGSTER_HOME is: "
        f"{pool_text(pool)} keeps its limit.",
        remedy="Leave out the time, or see lifeguard engine enable.",
        names=[pool],
    )
