"""To open a storage costs as many connections as Dagster's own: each process of a step does it."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as db
from dagster._core.instance.ref import InstanceRef


def opened(home: Any) -> tuple[int, dict[str, str]]:
    """How many connections are made to open the storage, and the types of its attributes."""
    connected = []

    def note(connection: object, record: object) -> None:
        del record
        connected.append(connection)

    db.event.listen(db.Engine, "connect", note)
    try:
        storage = InstanceRef.from_dir(str(home.path)).storage
    finally:
        db.event.remove(db.Engine, "connect", note)
    attributes = {
        name: type(value).__name__.replace("Lifeguard", "") for name, value in vars(storage).items()
    }
    for part in (storage.run_storage, storage.event_log_storage, storage.schedule_storage):
        part.dispose()
    return len(connected), attributes


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_no_more_connections_are_made_than_by_the_stock_storage(make_home, kind):
    stock, ours = make_home(kind, stock=True), make_home(kind)
    for home in (stock, ours):  # The first who opens it makes tables.
        opened(home)
    (stock_count, stock_parts), (our_count, our_parts) = opened(stock), opened(ours)
    assert 0 < our_count <= stock_count
    assert our_parts == stock_parts
