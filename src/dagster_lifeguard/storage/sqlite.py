"""The storage on SQLite: Dagster's own files, the engine's tables beside Dagster's pools."""

from __future__ import annotations

import os
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dagster_lifeguard.compat import storages
from dagster_lifeguard.engine.forks import using_files
from dagster_lifeguard.engine.store.sqlite.store import SqliteStore
from dagster_lifeguard.storage.config import StorageOptions, split_options, with_options
from dagster_lifeguard.storage.event_log import PoolMethods
from dagster_lifeguard.storage.runs import PoolsOfRuns

if TYPE_CHECKING:
    from collections.abc import Iterator

    from typing_extensions import Self


class LifeguardSqliteEventLogStorage(PoolMethods, storages.SqliteEventLogStorage):
    """Dagster's event log on SQLite, with the engine's pools in its ``index.db``.

    Also by itself, as ``event_log_storage`` in ``dagster.yaml``, beside ours as ``run_storage``.
    """

    def __init__(
        self,
        base_dir: str,
        inst_data: storages.ConfigurableClassData | None = None,
        options: StorageOptions | None = None,
    ) -> None:
        super().__init__(base_dir, inst_data=inst_data)
        self.use_options(options or StorageOptions())

    @classmethod
    def config_type(cls) -> Any:
        return with_options(super().config_type())

    @classmethod
    def from_config_value(cls, inst_data: Any, config_value: Any) -> Self:
        stock, options = split_options(config_value)
        return cls(inst_data=inst_data, options=options, **stock)

    def make_store(self) -> SqliteStore:
        return SqliteStore(storages.sqlite_index_path(self))

    def database_name(self) -> str:
        return os.path.realpath(storages.sqlite_index_path(self))

    # No handle on these files may be open while the process forks: see ``forks``.

    @contextmanager
    def index_connection(self) -> Iterator[Any]:
        with using_files(), super().index_connection() as connection:
            yield connection

    @contextmanager
    def run_connection(self, run_id: str | None = None) -> Iterator[Any]:
        with using_files(), super().run_connection(run_id) as connection:
            yield connection

    def has_table(self, table_name: str) -> bool:
        with using_files():
            return super().has_table(table_name)


class LifeguardSqliteRunStorage(PoolsOfRuns, storages.SqliteRunStorage):
    """Dagster's runs on SQLite; also by itself, as ``run_storage`` in ``dagster.yaml``."""

    @classmethod
    def from_config_value(cls, inst_data: Any, config_value: Any) -> Self:
        return cls.from_local(inst_data=inst_data, **config_value)

    @contextmanager
    def connect(self) -> Iterator[Any]:
        with using_files(), super().connect() as connection:
            yield connection


class LifeguardSqliteStorage(storages.DagsterSqliteStorage):
    """Dagster's SQLite storage, whose limits hold.

    On the same files, and configured the same::

        storage:
          custom:
            module: dagster_lifeguard.storage
            class: LifeguardSqliteStorage
            config:
              base_dir: {env: DAGSTER_HOME}

    The optional key ``lifeguard`` is described in ``dagster_lifeguard.storage.config``.
    """

    def __init__(
        self,
        base_dir: str,
        inst_data: storages.ConfigurableClassData | None = None,
        options: StorageOptions | None = None,
    ) -> None:
        self.base_dir = base_dir
        directories = storages.SqliteDirectories.of(base_dir)
        storages.assemble(
            self,
            runs=LifeguardSqliteRunStorage.from_local(directories.runs),
            event_log=LifeguardSqliteEventLogStorage(directories.event_logs, options=options),
            schedules=storages.SqliteScheduleStorage.from_local(directories.schedules),
            inst_data=inst_data,
        )

    @classmethod
    def config_type(cls) -> Any:
        return with_options(super().config_type(), has_server=False)

    @classmethod
    def from_config_value(cls, inst_data: Any, config_value: Any) -> Self:
        stock, options = split_options(config_value)
        return cls.from_local(inst_data=inst_data, options=options, **stock)

    @classmethod
    def from_local(
        cls, base_dir: str, inst_data: Any = None, options: StorageOptions | None = None
    ) -> Self:
        """The storage in a directory, which is made if it is missing."""
        Path(base_dir).mkdir(parents=True, exist_ok=True)
        return cls(base_dir, inst_data=inst_data, options=options)
