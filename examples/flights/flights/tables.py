"""The raw tables, one asset each."""

import dagster as dg

from flights.source import csv_file
from flights.warehouse import Warehouse


def load(warehouse: Warehouse, table: str) -> dg.MaterializeResult:
    with csv_file(table) as path:
        return warehouse.replace_table(table, f"select * from read_csv('{path}', nullstr='NA')")


# The big table goes first: a run that cannot have the file should fail early, not half-way.
@dg.asset(group_name="raw", kinds={"duckdb"}, op_tags={"dagster/priority": "1"})
def flights(warehouse: Warehouse) -> dg.MaterializeResult:
    """336,776 departures from the three airports of New York."""
    return load(warehouse, "flights")


@dg.asset(group_name="raw", kinds={"duckdb"})
def airlines(warehouse: Warehouse) -> dg.MaterializeResult:
    """16 carriers and their names."""
    return load(warehouse, "airlines")


@dg.asset(group_name="raw", kinds={"duckdb"})
def airports(warehouse: Warehouse) -> dg.MaterializeResult:
    """1,458 airports and where they are."""
    return load(warehouse, "airports")


@dg.asset(group_name="raw", kinds={"duckdb"})
def planes(warehouse: Warehouse) -> dg.MaterializeResult:
    """3,322 aircraft by tail number."""
    return load(warehouse, "planes")


@dg.asset(group_name="raw", kinds={"duckdb"})
def weather(warehouse: Warehouse) -> dg.MaterializeResult:
    """26,115 hours of weather at the three airports."""
    return load(warehouse, "weather")
