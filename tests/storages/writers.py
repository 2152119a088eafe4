"""Assets that write one sink, each guarded by its fence, and that say what their fences are."""

import os

import dagster as dg
from deployed import CONTROL, EXECUTORS, _begin, _wait_to_go

from dagster_lifeguard import fence
from dagster_lifeguard.client.fencing import duckdb as duckdb_fencing
from dagster_lifeguard.client.fencing import postgres as postgres_fencing
from dagster_lifeguard.client.fencing.files import fenced_file
from dagster_lifeguard.client.fencing.objects import put_object

PLACE = os.environ.get("PLACE", "")


def to_postgres(context, text: str) -> None:
    import psycopg2

    connection = psycopg2.connect(PLACE)
    try:
        with connection, connection.cursor() as cursor:
            postgres_fencing.guard_table(connection, "sink", fence(context))
            cursor.execute("DELETE FROM sink")
            cursor.execute("INSERT INTO sink VALUES (%s)", [text])
    finally:
        connection.close()


def to_duckdb(context, text: str) -> None:
    import duckdb

    with duckdb.connect(PLACE) as connection:
        connection.begin()
        duckdb_fencing.guard_table(connection, "sink", fence(context))
        connection.execute("CREATE OR REPLACE TABLE sink AS SELECT ? AS text", [text])
        connection.commit()


def to_file(context, text: str) -> None:
    with fenced_file(PLACE, fence(context)) as draft:
        draft.write_text(text)


def to_object(context, text: str) -> None:
    from obstore.store import S3Store

    store = S3Store(
        "bucket",
        endpoint=PLACE,
        access_key_id="nobody",
        secret_access_key="nothing",
        region="nowhere",
        client_options={"allow_http": True},
    )
    put_object(store, "sink", text.encode(), fence(context))


WRITE = {"postgres": to_postgres, "duckdb": to_duckdb, "file": to_file, "object": to_object}


def writer(name: str) -> dg.AssetsDefinition:
    @dg.asset(name=name, pool="orders")
    def write(context: dg.AssetExecutionContext) -> None:
        _begin(name, context.run.run_id)
        _wait_to_go(name)
        WRITE[os.environ["SINK"]](context, name)

    return write


class FenceOfOutput(dg.IOManager):
    def handle_output(self, context: dg.OutputContext, obj: int) -> None:
        CONTROL.joinpath("fences").write_text(f"{obj} {fence(context)}")

    def load_input(self, context: dg.InputContext) -> None: ...


@dg.asset(pool="orders", io_manager_key="fences", retry_policy=dg.RetryPolicy(max_retries=1))
def telling(context: dg.AssetExecutionContext) -> int:
    found = fence(context)
    if context.retry_number == 0:
        CONTROL.joinpath("fence").write_text(str(found))
        raise ValueError("once more, with another grant")
    return found


defs = dg.Definitions(
    assets=[writer("early"), writer("late"), telling],
    resources={"fences": FenceOfOutput()},
    executor=EXECUTORS[os.environ.get("EXECUTOR", "in_process")],
)
