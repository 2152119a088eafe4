"""The guards of tables: who is let in, who is refused, who waits, and what is no guard at all."""

from __future__ import annotations

import threading

import duckdb
import psycopg2
import pytest
import sqlalchemy as db

from dagster_lifeguard.client.fencing import duckdb as duckdb_fencing
from dagster_lifeguard.client.fencing import postgres as postgres_fencing
from dagster_lifeguard.errors import ConfigError, LateWriterError
from places import new_postgres


@pytest.fixture
def url(postgres_url):
    """A schema of its own."""
    return new_postgres(postgres_url).url


@pytest.fixture
def connect(url):
    """Makes connections to one schema of PostgreSQL."""
    made = []

    def make():
        made.append(psycopg2.connect(url))
        return made[-1]

    yield make
    for connection in made:
        connection.close()


class Postgres:
    def __init__(self, connection) -> None:
        self.connection = connection

    def guard(self, table: str, fence: int) -> None:
        postgres_fencing.guard_table(self.connection, table, fence)

    def sql(self, text: str):
        with self.connection.cursor() as cursor:
            cursor.execute(text)
            return cursor.fetchall() if cursor.description else []

    def __getattr__(self, name: str):
        return getattr(self.connection, name)


class DuckDb:
    def __init__(self) -> None:
        self.connection = duckdb.connect()
        self.connection.begin()

    def guard(self, table: str, fence: int) -> None:
        duckdb_fencing.guard_table(self.connection, table, fence)

    def sql(self, text: str):
        return self.connection.execute(text).fetchall()

    def commit(self) -> None:
        self.connection.commit()
        self.connection.begin()

    def rollback(self) -> None:
        self.connection.rollback()
        self.connection.begin()


@pytest.fixture(params=["postgres", "duckdb"])
def database(request):
    if request.param == "duckdb":
        return DuckDb()
    return Postgres(request.getfixturevalue("connect")())


class TestBoth:
    def test_a_smaller_fence_is_refused_and_any_other_let_in(self, database):
        for fence in (3, 3, 7):
            database.guard("orders", fence)
            database.commit()
        with pytest.raises(LateWriterError, match=r"written with fence 7, .* late with fence 6"):
            database.guard("orders", 6)
        database.rollback()
        database.guard("orders", 7)

    def test_what_is_rolled_back_was_not_seen(self, database):
        database.guard("orders", 3)
        database.commit()
        database.guard("orders", 9)
        database.rollback()
        database.guard("orders", 4)

    def test_each_table_has_its_own(self, database):
        database.guard("orders", 9)
        database.guard("revenue", 1)
        with pytest.raises(LateWriterError, match="orders"):
            database.guard("orders", 8)

    def test_a_name_with_its_schema_is_the_same_table(self, database):
        ((schema,),) = database.sql("SELECT current_schema()")
        database.guard(f"{schema}.orders", 9)
        with pytest.raises(LateWriterError, match=f"{schema}.orders was written"):
            database.guard("orders", 8)

    def test_another_schema_keeps_its_own_fences(self, database):
        database.sql('CREATE SCHEMA "the ""other"" one"')
        database.guard("orders", 9)
        database.guard('the "other" one.orders', 1)
        found = database.sql('SELECT sink, fence FROM "the ""other"" one".lifeguard_fences')
        assert found == [("orders", 1)]
        database.rollback()

    @pytest.mark.parametrize("name", ["", ".orders", "a.", "a.b.c"])
    def test_what_is_no_table(self, database, name):
        with pytest.raises(ConfigError, match="is not the name of a table"):
            database.guard(name, 1)


class TestPostgres:
    def test_a_guard_outside_a_transaction_is_an_error(self, connect):
        connection = connect()
        connection.autocommit = True
        with pytest.raises(ConfigError, match="not in a transaction"):
            postgres_fencing.guard_table(connection, "orders", 1)

    def test_over_sqlalchemy(self, url):
        database = db.create_engine(db.make_url(url).set(drivername="postgresql+psycopg2"))
        with database.begin() as connection:
            postgres_fencing.guard_table(connection, "orders", 5)
        with pytest.raises(LateWriterError), database.begin() as connection:
            postgres_fencing.guard_table(connection, "orders", 4)
        with (
            database.connect().execution_options(isolation_level="AUTOCOMMIT") as connection,
            pytest.raises(ConfigError, match="not in a transaction"),
        ):
            postgres_fencing.guard_table(connection, "orders", 6)
        database.dispose()

    @pytest.mark.parametrize("isolation", ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"])
    def test_a_late_guard_waits_for_the_other_and_is_refused(self, connect, isolation):
        first, late, watcher = Postgres(connect()), Postgres(connect()), Postgres(connect())
        first.guard("orders", 1)
        first.commit()
        late.connection.set_session(isolation_level=isolation)
        first.guard("orders", 3)
        outcome = []

        def guard() -> None:
            try:
                late.guard("orders", 2)
            except (LateWriterError, psycopg2.errors.SerializationFailure) as error:
                outcome.append(type(error))
            else:
                outcome.append(None)

        thread = threading.Thread(target=guard)
        thread.start()
        waits = f"SELECT 1 FROM pg_locks WHERE pid = {late.info.backend_pid} AND NOT granted"
        while not watcher.sql(waits):
            watcher.rollback()
            assert thread.is_alive()
        assert outcome == []
        first.commit()
        thread.join()
        refused = {
            "READ COMMITTED": LateWriterError,
            "REPEATABLE READ": psycopg2.errors.SerializationFailure,
            "SERIALIZABLE": psycopg2.errors.SerializationFailure,
        }
        assert outcome == [refused[isolation]]

    def test_two_that_make_the_table_of_fences_at_once(self, connect):
        """The second waits for the first, and then finds the table."""
        first, second, watcher = Postgres(connect()), Postgres(connect()), Postgres(connect())
        first.guard("orders", 1)
        thread = threading.Thread(target=second.guard, args=("revenue", 1))
        thread.start()
        waits = f"SELECT 1 FROM pg_locks WHERE pid = {second.info.backend_pid} AND NOT granted"
        while not watcher.sql(waits):
            watcher.rollback()
            assert thread.is_alive()
        first.commit()
        thread.join()
        second.commit()
        assert watcher.sql("SELECT sink FROM lifeguard_fences ORDER BY sink") == [
            ("orders",),
            ("revenue",),
        ]


class TestDuckDb:
    def test_a_guard_outside_a_transaction_is_an_error(self):
        with pytest.raises(ConfigError, match="not in a transaction"):
            duckdb_fencing.guard_table(duckdb.connect(), "orders", 1)

    def test_of_two_at_once_one_fails(self):
        database = duckdb.connect()
        one, other = database.cursor(), database.cursor()
        one.begin()
        duckdb_fencing.guard_table(one, "orders", 1)
        one.commit()
        one.begin()
        other.begin()
        duckdb_fencing.guard_table(one, "orders", 3)
        with pytest.raises(duckdb.Error, match="onflict"):
            duckdb_fencing.guard_table(other, "orders", 2)
        one.commit()
