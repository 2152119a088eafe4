"""The definitions of ``deployed.py``, in processes that do not wait long for a database."""

from dagster_postgres import utils
from deployed import defs

from dagster_lifeguard.engine.store import retry

retry.SECONDS_MAX = 1.0
utils.retry_pg_connection_fn.__defaults__ = (1, 0.1)  # What Dagster tries in vain.

__all__ = ["defs"]
