"""The definitions of ``deployed.py``, in processes that do not wait long for a database."""

from dagster_postgres import utils
from deployed import defs

from dagster_lifeguard import engine
from dagster_lifeguard.storage import event_log

engine._AGAIN_SECONDS_MAX = 1.0
event_log._CONNECT_TRIES = 3
utils.retry_pg_connection_fn.__defaults__ = (1, 0.1)  # What Dagster tries in vain.

__all__ = ["defs"]
