"""A project of a hundred assets, and a month of its runs, drawn at random.

Ten domains have ten assets each: three are fetched from the API of a vendor, six are made in the
warehouse in three layers, and one is a report. Each asset has a pool of its own, so two runs never
make one at the same time. The runs of a month are a daily run of each domain, an hourly run of one
domain by day with a higher priority, and backfills with a lower one.

The month is compressed: all times, those of steps too, are divided by ``FACTOR``. What Dagster
itself needs is not: to launch a run, to execute a step, and until the daemon looks at the queue.
"""

from __future__ import annotations

import random
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg

from dagster_lifeguard import Policy, Rule
from dagster_lifeguard.engine.rules.rate import Rate
from queued_runs import NUMBER, Deployed, Request

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

DAY_SECONDS = 12.0
"""How long a day takes in the compressed month."""
FACTOR = 86400.0 / DAY_SECONDS
DAYS = 30
DOMAINS = ("crm", "shop", "web", "ads", "mail", "billing", "stock", "support", "people", "finance")
HOURLY = "shop"
"""The domain that is also loaded each hour of the working day."""
HOURS = range(7, 19)
RUNS_AT_ONCE = 16
WAREHOUSE = "warehouse"
POOLS: dict[str, Mapping[str, object]] = {
    WAREHOUSE: {"limit": 3},
    "vendor_api": {"limit": 4, "rate": Rate(10, 1, burst=5)},
    **{f"{domain}_a{n}": {"limit": 1} for domain in DOMAINS for n in range(10)},
}
RULES = (
    Rule(assets="group:fetched", pools=("{asset}", "vendor_api")),
    Rule(assets="group:warehouse", pools=("{asset}", WAREHOUSE)),
    Rule(assets="*", pools=("{asset}",)),
)
MINUTES = {"fetched": (5, 25), "warehouse": (20, 70), "reports": (5, 15)}
"""For how long a step of each group lasts: at least and at most, before the compression."""


def _group(number: int) -> str:
    return "fetched" if number < 3 else "warehouse" if number < 9 else "reports"


def work_seconds(number: str, step: str) -> float:
    """How long the code of a step takes in the run of this number, in seconds; compressed."""
    minutes = MINUTES[_group(int(step[-1]))]
    return 60.0 * random.Random(f"{number} {step}").uniform(*minutes) / FACTOR


def _asset(domain: str, number: int) -> dg.AssetsDefinition:
    group, name = _group(number), f"{domain}_a{number}"
    before = [f"{domain}_a{number - 3}"] if 3 <= number < 9 else []
    if group == "reports":
        before = [f"{domain}_a{n}" for n in (6, 7, 8)]

    @dg.asset(name=name, group_name=group, deps=before)
    def made(context) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001 - Dagster reads it
        time.sleep(work_seconds(context.run.tags[NUMBER], name))

    return made


_ASSETS = {domain: [_asset(domain, number) for number in range(10)] for domain in DOMAINS}
defs = Policy(engine="lifeguard", rules=RULES).apply(
    dg.Definitions(
        assets=[asset for assets in _ASSETS.values() for asset in assets],
        jobs=[
            *(dg.define_asset_job(f"{domain}_daily", assets) for domain, assets in _ASSETS.items()),
            dg.define_asset_job("hourly", _ASSETS[HOURLY][0:7:3]),
        ],
        executor=dg.in_process_executor,
    )
)
defs.get_repository_def()  # Once, and not in each fork.


def deployed(warehouse: int) -> Deployed:
    """The project with this limit of the warehouse."""
    return Deployed(
        defs,
        "hundred_assets",
        Path(__file__).parent,
        {
            "run_coordinator": {
                "module": "dagster.core.run_coordinator",
                "class": "QueuedRunCoordinator",
                "config": {"dequeue_interval_seconds": 1},
            },
            "concurrency": {
                "pools": {"granularity": "op"},
                "runs": {"max_concurrent_runs": RUNS_AT_ONCE},
            },
        },
        {**POOLS, WAREHOUSE: {"limit": warehouse}},
    )


def month(days: int = DAYS) -> list[Request]:
    """The runs of the first days of the month, in the order of time."""
    return sorted(
        (replace(r, at=r.at / FACTOR) for r in _runs() if r.at < days * 86400.0),
        key=lambda request: request.at,
    )


def _runs() -> Iterator[Request]:
    """The runs of the month, at times that are not compressed."""
    draws = random.Random(1)
    for day in range(DAYS):
        midnight = day * 86400.0
        for domain in DOMAINS:
            # The schedules of the domains are set for one time or another of the night.
            at = midnight + 3600.0 * draws.uniform(1, 7)
            yield Request(at, f"{domain}_daily", {"dagster/partition": f"day{day}"})
        for hour in HOURS:
            yield Request(midnight + 3600.0 * (hour + 0.05), "hourly", {"dagster/priority": "1"})
        if day % 8 == 1:
            domain = draws.choice(DOMAINS)
            at = midnight + 3600.0 * draws.uniform(9, 17)
            for number in range(20):
                tags = {
                    "dagster/priority": "-1",
                    "dagster/backfill": f"backfill{day}",
                    "dagster/partition": f"past{number}",
                }
                made = [f"{domain}_a{n}" for n in (3, 6, 9)]
                yield Request(at, f"{domain}_daily", tags, assets=made)
