"""What people ask of the raw tables."""

import dagster as dg

from flights.tables import airlines, airports, flights, weather
from flights.warehouse import Warehouse


@dg.asset(group_name="reports", kinds={"duckdb"}, deps=[flights, airlines])
def delays_by_carrier(warehouse: Warehouse) -> dg.MaterializeResult:
    """How late each carrier departs and arrives."""
    return warehouse.replace_table(
        "delays_by_carrier",
        """
        select carrier, name, count(*) as departures,
               avg(dep_delay) as departure_delay, avg(arr_delay) as arrival_delay
        from flights join airlines using (carrier)
        group by all
        """,
    )


@dg.asset(group_name="reports", kinds={"duckdb"}, deps=[flights, airports])
def delays_by_airport_and_month(warehouse: Warehouse) -> dg.MaterializeResult:
    """How late flights leave each New York airport, month by month."""
    return warehouse.replace_table(
        "delays_by_airport_and_month",
        """
        select airports.name as airport, month, count(*) as departures,
               median(dep_delay) as departure_delay,
               quantile_cont(dep_delay, 0.95) as departure_delay_p95
        from flights join airports on airports.faa = flights.origin
        group by all
        """,
    )


@dg.asset(group_name="reports", kinds={"duckdb"}, deps=[flights, weather])
def delays_by_weather(warehouse: Warehouse) -> dg.MaterializeResult:
    """How wind, rain and fog go with late departures."""
    return warehouse.replace_table(
        "delays_by_weather",
        """
        select 5 * floor(wind_speed / 5) as wind, precip > 0 as rain, visib < 3 as fog,
               count(*) as departures, avg(dep_delay) as departure_delay
        from flights join weather using (origin, time_hour)
        group by all
        """,
    )
