"""The steps that bring the engine's tables up to date, and which processes may take them."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from dagster_lifeguard.engine.store.sql import newest_version
from dagster_lifeguard.errors import OldTablesError, SchemaError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dagster_lifeguard.engine.store.sql import Dialect

_is_allowed = True


@contextmanager
def upkeep(*, allowed: bool) -> Iterator[None]:
    """Let this process bring older tables up to date, or not, until the end of the block.

    It is allowed unless something says otherwise: a run worker has to go on after an upgrade, while
    a command that only looks is to change nothing.
    """
    global _is_allowed  # noqa: PLW0603 - the threads of a web page have to know it, too
    before = _is_allowed
    _is_allowed = allowed
    try:
        yield
    finally:
        _is_allowed = before


def versions_after(version: int, dialect: Dialect, place: str) -> range:
    """The versions through which the tables are brought up to date.

    Args:
        version: Of the tables that are there; 0 if there are none.
        dialect: Of the database.
        place: What to call the tables in messages.

    Raises:
        SchemaError: They are newer than this package.
        OldTablesError: They are older, and this process may not change them.
    """
    newest = newest_version(dialect)
    if version > newest:
        raise SchemaError(
            f"{place} have version {version}, this package knows {newest}.",
            remedy="Install a newer dagster-lifeguard.",
            names=[place],
        )
    if 0 < version < newest and not _is_allowed:
        raise OldTablesError(
            f"{place} have version {version}, this package reads {newest}.",
            remedy="Bring them up to date: lifeguard engine enable. A step that claims a slot does "
            "so, too.",
            names=[place],
        )
    return range(version + 1, newest + 1)
