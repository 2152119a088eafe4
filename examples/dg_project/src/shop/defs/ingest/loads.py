"""Two tables of a shop's API, loaded by dlt into DuckDB."""

import os

import dlt


@dlt.source
def shop():
    @dlt.resource(write_disposition="replace")
    def orders():
        yield [
            {"id": 1, "customer_id": 1, "amount": 30},
            {"id": 2, "customer_id": 2, "amount": 12},
            {"id": 3, "customer_id": 1, "amount": 8},
        ]

    @dlt.resource(write_disposition="replace")
    def customers():
        yield [{"id": 1, "name": "Ada"}, {"id": 2, "name": "Grace"}]

    return orders, customers


shop_source = shop()
shop_pipeline = dlt.pipeline(
    "shop",
    destination=dlt.destinations.duckdb(os.environ.get("SHOP_DUCKDB", "shop.duckdb")),
    dataset_name="raw",
)
