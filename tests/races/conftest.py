from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from fleet import Fleet

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def fleet() -> Iterator[Fleet]:
    made = Fleet()
    yield made
    made.close()
