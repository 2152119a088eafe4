from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from dagster_lifeguard.engine.engine import Engine
from dagster_lifeguard.engine.engine_options import EngineOptions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture
def new_engine(place) -> Iterator[Callable[..., Engine]]:
    """Makes engines on one database, each with a connection and a session of its own."""
    place.store().migrate()
    made = []

    def make(passing: Callable[[str], None] = lambda point: None, **options) -> Engine:
        made.append(Engine(place.store(), EngineOptions(**options), passing))
        return made[-1]

    yield make
    for engine in made:
        engine.close()


@pytest.fixture
def engine(new_engine) -> Engine:
    return new_engine()
