from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as db
from homes import Home

from places import PostgresPlace

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_numbers = itertools.count()


@pytest.fixture
def make_home(
    request: pytest.FixtureRequest, tmp_path, _nothing_from_outside
) -> Iterator[Callable[..., Home]]:
    """Makes homes on databases of their own."""
    made = []

    def make(kind: str, *, stock: bool = False, server: str | None = None, **settings) -> Home:
        path = tmp_path / f"home{next(_numbers)}"
        path.mkdir()
        if kind == "sqlite":
            stanza = {"sqlite": {"base_dir": str(path)}}
        else:
            server = server or request.getfixturevalue("postgres_url")
            name = f"home{next(_numbers)}"
            PostgresPlace(server).sql(f"CREATE DATABASE {name}")
            url = db.make_url(server).set(drivername="postgresql+psycopg2", database=name)
            stanza = {"postgres": {"postgres_url": url.render_as_string(hide_password=False)}}
        lease = settings.pop("lease_seconds", 30.0)
        on_lease_lost = settings.pop("on_lease_lost", "terminate")
        home = Home(path, kind, stanza, lease, settings, on_lease_lost)
        home.write(stock=stock)
        made.append(home)
        return home

    yield make
    for home in made:
        home.close()


@pytest.fixture(params=["sqlite", "postgres"])
def kind(request: pytest.FixtureRequest) -> str:
    return request.param
