"""A small deployment for recordings: its assets only sleep, its runs and pools are real."""

from __future__ import annotations

import random
import time
from pathlib import Path

import dagster as dg

from dagster_lifeguard import Policy


def asset(key: str, longest: float) -> dg.AssetsDefinition:
    """Make an asset that executes for up to ``longest`` seconds, most often for much less."""
    group, name = key.split("/")

    @dg.asset(key_prefix=group, name=name, group_name=group)
    def made() -> None:
        time.sleep(1 + (longest - 1) * random.random() ** 2)  # noqa: S311

    return made


policy = Policy.from_yaml(Path(__file__).with_name("lifeguard.yaml"))
defs = policy.apply(
    dg.Definitions(
        assets=[
            asset("sales/orders", 9.0),
            asset("sales/customers", 5.0),
            asset("stripe/charges", 6.0),
            asset("stripe/refunds", 4.0),
            asset("finance/revenue", 7.0),
            asset("finance/ledger", 5.0),
            asset("ml/features", 8.0),
            asset("ml/train", 14.0),
        ]
    )
)
