"""The same project and the one line that gives every asset its own pool."""

from dagster_lifeguard import apply_per_asset_concurrency
from flights import unprotected

defs = apply_per_asset_concurrency(unprotected.defs)
