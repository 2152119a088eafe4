"""The storage on PostgreSQL: Dagster's own database, the engine's tables beside Dagster's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sqlalchemy as db
from dagster_postgres import DagsterPostgresStorage
from dagster_postgres.event_log import PostgresEventLogStorage
from dagster_postgres.run_storage import PostgresRunStorage
from dagster_postgres.schedule_storage import PostgresScheduleStorage

from dagster_lifeguard.compat import storages
from dagster_lifeguard.engine.store.postgres.connection import Statement, connector
from dagster_lifeguard.engine.store.postgres.store import PostgresStore
from dagster_lifeguard.errors import ConfigError
from dagster_lifeguard.storage.config import KEY, StorageOptions, split_options, with_options
from dagster_lifeguard.storage.event_log import PoolMethods
from dagster_lifeguard.storage.runs import PoolsOfRuns

if TYPE_CHECKING:
    from typing_extensions import Self

_WHERE = """SELECT current_database()::text, to_regclass('concurrency_limits')::oid::bigint,
pg_postmaster_start_time()::text"""
"""Of two connections, whether they lead to one table."""


class LifeguardPostgresEventLogStorage(PoolMethods, PostgresEventLogStorage):
    """Dagster's event log on PostgreSQL, with the engine's pools in the same database.

    Also by itself, as ``event_log_storage`` in ``dagster.yaml``, beside ours as ``run_storage``.
    """

    def __init__(
        self, *arguments: Any, options: StorageOptions | None = None, **keywords: Any
    ) -> None:
        super().__init__(*arguments, **keywords)
        self.use_options(options or StorageOptions())

    @classmethod
    def config_type(cls) -> Any:
        return with_options(super().config_type())

    @classmethod
    def from_config_value(cls, inst_data: Any, config_value: Any) -> Self:
        stock, options = split_options(config_value)
        return cls(inst_data=inst_data, options=options, **storages.postgres_arguments(stock))

    def make_store(self) -> PostgresStore:
        options = self._lifeguard_options
        if options.direct_url is not None:
            return PostgresStore(connector(options.direct_url, options.lease_seconds))
        return PostgresStore(storages.postgres_opener(self, options.lease_seconds))

    def require_same_database(self, store: Any) -> None:
        if self._lifeguard_options.direct_url is None:
            return
        with self.index_connection() as connection:
            ours = tuple(connection.execute(db.text(_WHERE)).one())
        connection = store.connection
        connection.acquire()
        try:
            (direct,) = connection.execute([Statement(_WHERE)])
        finally:
            connection.mutex.release()
        if direct != ours:
            raise ConfigError(
                f"{KEY}: direct_url leads to another database than Dagster's own: "
                f"{_told(direct)}, not {_told(ours)}.",
                remedy="Give the address of the server behind the pooler, and the same database.",
                names=[KEY],
            )

    def database_name(self) -> str:
        return self.postgres_url

    def wipe_events(self) -> None:
        # A pool without its limit, even for a moment, would let any number of steps start.
        storages.wipe_all_but_limits(self)


def _told(where: tuple[Any, ...]) -> str:
    database, _, started = where
    return f"the database {database} of a server started at {started}"


class LifeguardPostgresRunStorage(PoolsOfRuns, PostgresRunStorage):
    """Dagster's runs on PostgreSQL; also by itself, as ``run_storage`` in ``dagster.yaml``."""

    @classmethod
    def from_config_value(cls, inst_data: Any, config_value: Any) -> Self:
        return cls(inst_data=inst_data, **storages.postgres_arguments(config_value))


class LifeguardPostgresStorage(DagsterPostgresStorage):
    """Dagster's PostgreSQL storage, whose limits hold.

    On the same database, and configured the same::

        storage:
          custom:
            module: dagster_lifeguard.storage
            class: LifeguardPostgresStorage
            config:
              postgres_db: {...}

    The optional key ``lifeguard`` is described in ``dagster_lifeguard.storage.config``. Each
    process that claims keeps one connection open besides Dagster's own.
    """

    def __init__(
        self,
        postgres_url: str,
        should_autocreate_tables: bool = True,  # noqa: FBT001, FBT002 - as in Dagster
        inst_data: storages.ConfigurableClassData | None = None,
        options: StorageOptions | None = None,
        **token: Any,
    ) -> None:
        self.postgres_url = postgres_url
        self.should_autocreate_tables = should_autocreate_tables
        of_part = (postgres_url, should_autocreate_tables)
        storages.assemble(
            self,
            runs=LifeguardPostgresRunStorage(*of_part, **token),
            event_log=LifeguardPostgresEventLogStorage(*of_part, options=options, **token),
            schedules=PostgresScheduleStorage(*of_part, **token),
            inst_data=inst_data,
        )

    @classmethod
    def config_type(cls) -> Any:
        return with_options(super().config_type())

    @classmethod
    def from_config_value(cls, inst_data: Any, config_value: Any) -> Self:
        stock, options = split_options(config_value)
        return cls(inst_data=inst_data, options=options, **storages.postgres_arguments(stock))
