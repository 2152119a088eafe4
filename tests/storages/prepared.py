"""Homes that were opened once: a copy of one spares a test the making of all the tables."""

from __future__ import annotations

import itertools
import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import Any, cast

import sqlalchemy as db
from homes import Home

from places import PostgresPlace

_numbers = itertools.count()


def sqlite_stanza(path: Path) -> dict[str, Any]:
    return {"sqlite": {"base_dir": str(path)}}


def new_database(server: str, template: str = "template1") -> dict[str, Any]:
    """Make a database. Returns the stanza of the stock storage."""
    name = f"home{next(_numbers)}"
    PostgresPlace(server).sql(f"CREATE DATABASE {name} TEMPLATE {template}")
    url = db.make_url(server).set(drivername="postgresql+psycopg2", database=name)
    return {"postgres": {"postgres_url": url.render_as_string(hide_password=False)}}


class PreparedHomes:
    """Makes databases as they are after somebody has opened the home: empty, with all tables."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="lifeguard-prepared-"))
        self._prepared = cache(self._prepare)

    def sqlite(self, path: Path, *, stock: bool) -> dict[str, Any]:
        """Fill a folder. Returns the stanza of the stock storage."""
        shutil.copytree(self._prepared(None, stock), path, dirs_exist_ok=True)
        return sqlite_stanza(path)

    def postgres(self, server: str, *, stock: bool) -> dict[str, Any]:
        """Make a database. Returns the stanza of the stock storage."""
        return new_database(server, str(self._prepared(server, stock)))

    def close(self) -> None:
        shutil.rmtree(self._folder)

    def _prepare(self, server: str | None, stock: bool) -> Path | str:
        """Open a home, on SQLite or this server. Returns the folder or the database to copy."""
        path = self._folder / f"prepared{next(_numbers)}"
        path.mkdir()
        if server is None:
            home = Home(path, "sqlite", sqlite_stanza(path))
        else:
            home = Home(path, "postgres", new_database(server))
        home.write(stock=stock)
        with home.instance() as instance:
            assert instance.get_runs() == instance.all_instigator_state() == []
            if not stock:
                cast("Any", instance.event_log_storage).lifeguard.engine.store.close()
        if server is None:
            assert not list(path.rglob("*-wal")), "somebody has it open"
            return path
        name = str(db.make_url(home.stock["postgres"]["postgres_url"]).database)
        PostgresPlace(server).sql(
            f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"
        )
        return name
