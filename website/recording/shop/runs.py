"""Execute one run after another, each of a few assets, until the process is ended."""

from __future__ import annotations

import random
import sys

import dagster as dg
from definitions import defs

CHOICES = (
    ("sales/orders", "finance/revenue"),
    ("sales/orders", "sales/customers"),
    ("sales/orders",),
    ("sales/orders",),
    ("stripe/charges", "stripe/refunds"),
    ("stripe/charges", "finance/ledger"),
    ("ml/features", "ml/train"),
)


def main() -> None:
    """Execute runs; the argument decides which come first."""
    chosen = random.Random(int(sys.argv[1]))  # noqa: S311
    job = defs.get_implicit_global_asset_job_def()
    with dg.DagsterInstance.get() as instance:
        while True:
            keys = chosen.choice(CHOICES)
            job.execute_in_process(
                instance=instance,
                asset_selection=[dg.AssetKey(key.split("/")) for key in keys],
                raise_on_error=False,
            )


if __name__ == "__main__":
    main()
