"""What is set of pools, in the words of tests."""

from __future__ import annotations

from dagster_lifeguard.engine.rules.pool_settings import PoolSettings


def limited(limits):
    """The settings of pools of which only this limit is set, or with None nothing."""
    return {p: None if limit is None else PoolSettings(limit) for p, limit in limits.items()}


def set_limits(deployment, limits):
    """Set only limits; the names of the pools as they are done."""
    return list(deployment.set_pools(limited(limits)))


def rates(settings):
    return {pool: found.rate for pool, found in settings.items() if found.rate is not None}


def orders(settings):
    return {pool: found.fair_by for pool, found in settings.items() if found.fair_by is not None}
