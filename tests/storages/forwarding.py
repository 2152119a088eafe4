"""A storage that forwards what it must and no more, as wrappers do that people write."""

from __future__ import annotations

from typing import Any

from dagster._core.storage.event_log.base import EventLogStorage
from dagster._core.storage.sqlite_storage import DagsterSqliteStorage


def _forwarding(name: str) -> Any:
    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        return getattr(self.inner, name)(*args, **kwargs)

    return forward


class ForwardingEventLog(
    type("Forwarding", (EventLogStorage,), {n: _forwarding(n) for n in EventLogStorage.__abstractmethods__})
):  # fmt: skip
    """Nothing turns pools off here; they just do not get through."""

    def __init__(self, inner: EventLogStorage) -> None:
        self.inner = inner


class ForwardingStorage(DagsterSqliteStorage):
    @classmethod
    def from_config_value(cls, inst_data: Any, config_value: Any) -> ForwardingStorage:
        return cls(inst_data=inst_data, **config_value)

    @property
    def event_log_storage(self) -> EventLogStorage:
        return ForwardingEventLog(super().event_log_storage)
