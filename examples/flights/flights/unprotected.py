"""The project as Dagster ships: any number of runs may write the DuckDB file at once."""

import dagster as dg

from flights import reports, tables
from flights.warehouse import Warehouse

# One run is one process, hence one writer of the file: DuckDB locks out other processes, not
# other connections of the same process. What is left to prevent is two runs at once.
refresh = dg.define_asset_job("refresh", executor_def=dg.in_process_executor)

defs = dg.Definitions(
    assets=dg.load_assets_from_modules([tables, reports]),
    jobs=[refresh],
    resources={"warehouse": Warehouse()},
    executor=dg.in_process_executor,
)
