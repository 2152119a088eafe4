"""Which of Dagster's own tests are run, on which databases."""

from __future__ import annotations

from dataclasses import dataclass

SQLITE = "sqlite"
POSTGRES = "postgres"
BOTH = (SQLITE, POSTGRES)
WRITTEN = {SQLITE: "SQLite", POSTGRES: "PostgreSQL"}


@dataclass(frozen=True)
class Suite:
    """A set of Dagster's tests on one database.

    Attributes:
        topic: What the tests are about.
        database: Where the instances of the tests store.
        tests: Files, or classes and functions in them, as pytest takes them.
    """

    topic: str
    database: str
    tests: tuple[str, ...]

    @property
    def name(self) -> str:
        return f"{self.topic}, {WRITTEN[self.database]}"


STORAGE_TESTS = "dagster_tests/storage_tests"

SUITES = (
    *(
        Suite(topic, database, (test,))
        for topic, test in {
            "command line": "dagster_tests/cli_tests/command_tests/test_concurrency_command.py",
            "slots after a run": "dagster_tests/daemon_tests/test_concurrency_daemon.py",
            "GraphQL": "dagster_graphql_tests/graphql/test_instance.py",
            "concurrency context": "dagster_tests/execution_tests/misc_execution_tests/"
            "test_instance_concurrency_context.py",
            "run queue daemon": "dagster_tests/daemon_tests/test_queued_run_coordinator_daemon.py",
        }.items()
        for database in BOTH
    ),
    Suite("run storage", SQLITE, (f"{STORAGE_TESTS}/test_run_storage.py::TestSqliteRunStorage",)),
    Suite("run storage", POSTGRES, ("dagster_postgres_tests/test_run_storage.py",)),
    Suite(
        "event log storage",
        SQLITE,
        (f"{STORAGE_TESTS}/test_event_log.py::TestSqliteEventLogStorage",),
    ),
    Suite("event log storage", POSTGRES, ("dagster_postgres_tests/test_event_log.py",)),
)
