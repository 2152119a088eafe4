"""Concurrency limits for Dagster assets: every asset its own pool, in one line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dagster_lifeguard.client import LifeguardClient, slots
    from dagster_lifeguard.client.fencing import fence
    from dagster_lifeguard.errors import LifeguardError
    from dagster_lifeguard.inspections.alerts.conditions import Alert
    from dagster_lifeguard.inspections.alerts.sensor import build_pool_alert_sensor
    from dagster_lifeguard.policy.apply import Policy, apply_per_asset_concurrency
    from dagster_lifeguard.policy.config import PoolSpec, Rule

__all__ = [
    "Alert",
    "LifeguardClient",
    "LifeguardError",
    "Policy",
    "PoolSpec",
    "Rule",
    "apply_per_asset_concurrency",
    "build_pool_alert_sensor",
    "fence",
    "slots",
]

_HOMES = {
    "Alert": "inspections.alerts.conditions",
    "LifeguardClient": "client",
    "LifeguardError": "errors",
    "Policy": "policy.apply",
    "PoolSpec": "policy.config",
    "Rule": "policy.config",
    "apply_per_asset_concurrency": "policy.apply",
    "build_pool_alert_sensor": "inspections.alerts.sensor",
    "fence": "client.fencing",
    "slots": "client",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for: the command need not wait for Dagster."""
    from importlib import import_module  # noqa: PLC0415

    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
