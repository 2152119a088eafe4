"""The pytest plugin under which Dagster's own tests make their instances on our storages.

Dagster's tests make instances with ``instance_for_test``. It is the only thing of Dagster's that is
replaced: the instance that it makes is given another ``storage`` in its ``dagster.yaml``, if the
test did not ask for some storage that has nothing to do with pools. For the control on SQLite nothing
is replaced; for the control on PostgreSQL the instance is given Dagster's own storage there.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
import uuid
from collections import Counter
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import sqlalchemy as db
from dagster._core import instance_for_test as home
from dagster._core import test_utils

ORDER = json.loads(os.environ["DAGSTER_SUITES"])
"""The keys ``storage`` (stock or lifeguard), ``database``, ``server`` (the address of PostgreSQL),
``results`` (a file) and ``not_run`` (regular expressions)."""

LIFEGUARD = ORDER["storage"] == "lifeguard"
ON_ANOTHER = LIFEGUARD or ORDER["database"] != "sqlite"
"""Whether the tests are run on another storage than they were written for."""

COUNTING = "ConcurrencyEnabledSqliteTestEventLogStorage"
"""Dagster's SQLite storage that counts how often a claim is checked."""

OTHER_STORAGES = {"event_log_storage", "run_storage", "schedule_storage"}


# ---- instances -------------------------------------------------------------------------------------


class Instances:
    """The instances on our storages that are open, and whether the test under way had one."""

    def __init__(self) -> None:
        self.open = 0
        self.met = False

    def next_test(self) -> None:
        self.met = self.open > 0

    @contextmanager
    def opened(self):
        self.open, self.met = self.open + 1, True
        try:
            yield
        finally:
            self.open -= 1


instances = Instances()
_stock_instance_for_test = home.instance_for_test


@contextmanager
def instance_for_test(overrides=None, set_dagster_home=True, temp_dir=None, **options):
    with ExitStack() as stack:
        if not temp_dir:
            folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
            temp_dir = stack.enter_context(folder)
        overrides = dict(overrides or {})
        counting = _take_counting(overrides)
        # What another instance stored there is to be found by the next.
        storage = _storage(overrides, counting["base_dir"] if counting else temp_dir)
        if storage is not None:
            overrides["storage"] = storage
            if LIFEGUARD:
                stack.enter_context(instances.opened())
        instance = stack.enter_context(
            _stock_instance_for_test(overrides, set_dagster_home, temp_dir, **options)
        )
        if counting is not None:
            _count_checks(instance.event_log_storage, counting.get("sleep_interval"))
        yield instance


if ON_ANOTHER:
    for module in (home, test_utils, dg):
        module.instance_for_test = instance_for_test  # Before a test imports it.
test_utils.ensure_dagster_tests_import = lambda: None  # They are on the path.


def _take_counting(overrides: dict[str, Any]) -> dict[str, Any] | None:
    """Take the counting storage out of the settings: any storage can be made to count."""
    if overrides.get("event_log_storage", {}).get("class") != COUNTING:
        return None
    return overrides.pop("event_log_storage")["config"]


def _storage(overrides: dict[str, Any], folder: str) -> dict[str, Any] | None:
    """The stanza ``storage`` for an instance, or None if the test asked for another one."""
    if OTHER_STORAGES & overrides.keys():
        return None
    ((kind, config),) = overrides.get("storage", _default_storage(folder)).items()
    if not LIFEGUARD or kind not in {"sqlite", "postgres"}:
        return {kind: config}
    name = f"Lifeguard{kind.capitalize()}Storage"
    return {"custom": {"module": "dagster_lifeguard.storage", "class": name, "config": config}}


def _default_storage(folder: str) -> dict[str, Any]:
    if ORDER["database"] == "sqlite":
        return {"sqlite": {"base_dir": folder}}
    return {"postgres": {"postgres_url": _database_of(folder)}}


def _count_checks(event_log: Any, sleep_interval: float | None) -> None:
    """Make an event log storage count what Dagster's counting one counts.

    Dagster's storages check a claim within each call that claims, and ours decide it there.
    """

    class Counting(type(event_log)):
        def check_concurrency_claim(self, concurrency_key, run_id, step_key):
            self.checks[step_key] += 1
            return with_interval(super().check_concurrency_claim(concurrency_key, run_id, step_key))

        def claim_concurrency_slot(self, concurrency_key, run_id, step_key, priority=None):
            self.checks[step_key] += LIFEGUARD
            claim = super().claim_concurrency_slot
            return with_interval(claim(concurrency_key, run_id, step_key, priority))

        def get_check_calls(self, step_key):
            return self.checks[step_key]

        def get_records_for_run(self, run_id, *arguments, **options):
            self.reads[run_id] += 1
            return super().get_records_for_run(run_id, *arguments, **options)

        def get_records_for_run_calls(self, run_id):
            return self.reads[run_id]

    def with_interval(status):
        return status.with_sleep_interval(float(sleep_interval)) if sleep_interval else status

    event_log.checks, event_log.reads = Counter(), Counter()
    event_log.__class__ = Counting


# ---- PostgreSQL, without docker --------------------------------------------------------------------


@cache
def _database_of(folder: str) -> str:
    """A database for what would be stored in a folder."""
    return _new_database()


def _new_database() -> str:
    name = f"test_{uuid.uuid4().hex}"
    url = db.make_url(ORDER["server"]).set(drivername="postgresql+psycopg2")
    server = db.create_engine(url, isolation_level="AUTOCOMMIT", poolclass=db.pool.NullPool)
    with server.connect() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name}")
    return url.set(database=name).render_as_string(hide_password=False)


@pytest.fixture
def postgres_conn_str() -> str:
    """A database for each test: what cleans Dagster's tables does not know of ours."""
    return _new_database()


@pytest.fixture(autouse=True)
def _storages_made_by_hand(request, monkeypatch) -> None:
    """A few tests make an event log storage by its class, without an instance."""
    if not (LIFEGUARD and hasattr(request.module, "PostgresEventLogStorage")):
        return
    from dagster_lifeguard.storage.config import StorageOptions
    from dagster_lifeguard.storage.postgres import LifeguardPostgresEventLogStorage as Ours

    def clean(conn_string, should_autocreate_tables=True):
        storage = Ours(conn_string, should_autocreate_tables)
        storage.use_options(StorageOptions())
        instances.met = True
        return storage

    monkeypatch.setattr(request.module, "PostgresEventLogStorage", Ours)
    monkeypatch.setattr(Ours, "create_clean_storage", staticmethod(clean))


@pytest.fixture(autouse=True)
def _launcher_made_once(request) -> None:
    """An instance makes its launcher when it is first asked, and not safely for threads.

    Where the run queue launches with threads, two make one each, and the test that counts what was
    launched sees only what the second did.
    """
    if {"instance", "daemon"} <= set(request.fixturenames):
        assert request.getfixturevalue("instance").run_launcher


# ---- results ---------------------------------------------------------------------------------------


def _write(test: str, outcome: str, text: str = "", *, ours: bool = False) -> None:
    line = {"test": test, "outcome": outcome, "text": text, "ours": ours}
    with Path(ORDER["results"]).open("a") as stream:
        stream.write(json.dumps(line) + "\n")


def _is_worker() -> bool:
    return "PYTEST_XDIST_WORKER" in os.environ


def pytest_collection_modifyitems(config, items) -> None:
    left = [item for item in items if _is_not_run(item.nodeid)]
    items[:] = [item for item in items if item not in left]
    config.hook.pytest_deselected(items=left)
    if os.environ.get("PYTEST_XDIST_WORKER", "gw0") == "gw0":  # Each worker collects all.
        for item in left:
            _write(item.nodeid, "not run")


def _is_not_run(test: str) -> bool:
    return any(re.fullmatch(pattern, test) for pattern in ORDER["not_run"])


@pytest.hookimpl(tryfirst=True)  # Before the fixtures.
def pytest_runtest_setup() -> None:
    instances.next_test()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    report.ours = instances.met
    return report


def pytest_runtest_logreport(report) -> None:
    if _is_worker():
        return
    if report.when == "call" or not report.passed:
        _write(report.nodeid, report.outcome, str(report.longrepr or ""), ours=report.ours)


def pytest_collectreport(report) -> None:
    if report.failed and not _is_worker():
        _write(report.nodeid, "failed", str(report.longrepr))
