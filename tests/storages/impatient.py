"""The definitions of ``deployed.py``, in processes that do not wait long for a database."""

from deployed import defs

from dagster_lifeguard import engine
from dagster_lifeguard.storage import event_log

engine._AGAIN_SECONDS_MAX = 1.0
event_log._CONNECT_TRIES = 3

__all__ = ["defs"]
