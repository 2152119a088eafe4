"""Concurrency limits for Dagster assets: every asset its own pool, in one line."""

from __future__ import annotations

from dagster_lifeguard.assign import Policy, apply_per_asset_concurrency
from dagster_lifeguard.config import PoolSpec, Rule
from dagster_lifeguard.errors import LifeguardError

__all__ = ["LifeguardError", "Policy", "PoolSpec", "Rule", "apply_per_asset_concurrency"]
