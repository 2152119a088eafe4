"""Slots for a part of a step, or of a script: ``with slots(context, "stripe_api"): ...``.

The same pools, limits, order and leases as for whole steps. A module of Dagster's own has no part
in it, so it works in any code that has a context or an instance.
"""

from __future__ import annotations

from dagster_lifeguard.client.client import LifeguardClient, slots
from dagster_lifeguard.client.slots_held import Slots

__all__ = ["LifeguardClient", "Slots", "slots"]
