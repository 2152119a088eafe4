"""What a run is about, in the words of people: its assets, partition, backfill and tags.

Dagster runs most assets in a job of its own making, ``__ASSET_JOB``, whose name tells nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dagster_lifeguard.engine.rules.pool_settings import BACKFILL_TAG

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dagster_lifeguard.deployment.contract import Run

_PARTITION = "dagster/partition"
_RANGE = ("dagster/asset_partition_range_start", "dagster/asset_partition_range_end")
_OF_DAGSTER = ("dagster/", ".dagster/")


@dataclass(frozen=True, slots=True)
class RunLabel:
    """What a run is about.

    Attributes:
        job: Its job; empty for a job that Dagster made up.
        assets: The assets that it was asked to make, each as ``a/b``.
        partition: Its partition, or the first and the last of several; empty if it has none.
        backfill: The id of its backfill; empty if it is of none.
        tags: Its other tags, but for Dagster's own.
    """

    job: str
    assets: tuple[str, ...]
    partition: str
    backfill: str
    tags: Mapping[str, str]

    def assets_of(self, step_key: str) -> tuple[str, ...]:
        """The asset that a step is named for, or else all that the run makes."""
        named = tuple(asset for asset in self.assets if asset.replace("/", "__") == step_key)
        return named or self.assets


def label_of(run: Run) -> RunLabel:
    """What a run is about."""
    first, last = (run.tags.get(tag, "") for tag in _RANGE)
    ends = first if first == last else f"{first} to {last}"
    return RunLabel(
        job="" if run.job_name.startswith("__") else run.job_name,
        assets=run.assets,
        partition=run.tags.get(_PARTITION, ends),
        backfill=run.tags.get(BACKFILL_TAG, ""),
        tags={k: v for k, v in sorted(run.tags.items()) if not k.startswith(_OF_DAGSTER)},
    )
