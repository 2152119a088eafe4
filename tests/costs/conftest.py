from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from places import new_postgres, new_sqlite

if TYPE_CHECKING:
    from collections.abc import Callable

    from places import SharedPlace


@pytest.fixture(params=["sqlite", "postgres"])
def new_place(request: pytest.FixtureRequest, tmp_path) -> Callable[[], SharedPlace]:
    """Makes empty databases."""
    if request.param == "sqlite":
        return lambda: new_sqlite(tmp_path)
    url = request.getfixturevalue("postgres_url")
    return lambda: new_postgres(url)
