"""The one DuckDB file that every asset of this project writes."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
import duckdb

BESIDE_THE_PROJECT = Path(__file__).resolve().parents[1] / "flights.duckdb"


class Warehouse(dg.ConfigurableResource):
    """A DuckDB file. DuckDB lets only one process at a time open a file for writing."""

    path: str = str(BESIDE_THE_PROJECT)

    @contextmanager
    def connect(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """Open the file for writing; a second process that tries meanwhile gets an IOException."""
        with duckdb.connect(self.path) as connection:
            yield connection

    def replace_table(self, table: str, query: str) -> dg.MaterializeResult:
        """Write a table anew in one transaction, and report its rows to Dagster."""
        with self.connect() as connection:
            connection.execute(f"create or replace table {table} as {query}")
            counted = connection.execute(f"select count(*) from {table}").fetchall()
        return dg.MaterializeResult(metadata={"dagster/row_count": counted[0][0]})
