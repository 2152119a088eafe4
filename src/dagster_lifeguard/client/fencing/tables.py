"""What the guards of tables share: where a database keeps the fences, and the one statement.

Beside the tables of a schema stands one table more, ``lifeguard_fences``, with a row for each table
that was ever guarded. A writer's transaction writes its fence there first.
"""

from __future__ import annotations

from typing import NamedTuple

from dagster_lifeguard.errors import ConfigError


class Sink(NamedTuple):
    """A table, spelled as the database spells it.

    Attributes:
        schema: None for the schema in which the connection would create it.
        name: Without the schema.
    """

    schema: str | None
    name: str

    @classmethod
    def parse(cls, table: str) -> Sink:
        """The sink of ``table`` or ``schema.table``.

        Raises:
            ConfigError: A part is empty, or there are more than two.
        """
        parts = table.split(".")
        if not all(parts) or len(parts) > 2:  # noqa: PLR2004 - schema and table
            raise ConfigError(
                f"{table!r} is not the name of a table.",
                remedy="Write table or schema.table, without quotes.",
                names=[table],
            )
        return cls(parts[0] if parts[1:] else None, parts[-1])


def fences_in(schema: str) -> str:
    """The table of fences of a schema, as SQL."""
    return '"' + schema.replace('"', '""') + '".lifeguard_fences'


def create_fences(fences: str) -> str:
    """The statement that makes a table of fences where there is none."""
    return (
        f"CREATE TABLE IF NOT EXISTS {fences} "
        "(sink varchar NOT NULL PRIMARY KEY, fence bigint NOT NULL)"
    )


def write_fence(fences: str, placeholder: str) -> str:
    """The statement that writes a fence (sink, fence), and returns no row to a late writer."""
    return (
        f"INSERT INTO {fences} AS seen (sink, fence) "  # noqa: S608 - a quoted name
        f"VALUES ({placeholder}, {placeholder}) "
        "ON CONFLICT (sink) DO UPDATE SET fence = excluded.fence "
        "WHERE seen.fence <= excluded.fence RETURNING fence"
    )


def read_fence(fences: str, placeholder: str) -> str:
    """The statement that reads the largest fence that a sink has seen."""
    return f"SELECT fence FROM {fences} WHERE sink = {placeholder}"  # noqa: S608 - a quoted name


def not_in_a_transaction(table: str) -> ConfigError:
    """The error for a guard that would protect nothing."""
    return ConfigError(
        f"The guard of {table} is not in a transaction, so it cannot guard what is written next.",
        remedy="Begin a transaction, guard the table, write, commit. Without autocommit.",
        names=[table],
    )
