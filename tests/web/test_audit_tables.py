"""Every kind of finding of an audit as CSV: on the page with all its rows, and by the command."""

from __future__ import annotations

import csv
import io

import httpx
import pytest
from click.testing import CliRunner
from homes import Home
from told import Told, pool
from web_server import serving

from dagster_lifeguard.cli import main
from dagster_lifeguard.cli.audit import CSV_TABLES
from dagster_lifeguard.inspections.audit import deployment_audit
from dagster_lifeguard.inspections.audit.audit_result import (
    Audit,
    EarlyStart,
    Excess,
    Lane,
    LongWait,
    Occupant,
    Outlived,
    StaleFence,
)
from dagster_lifeguard.inspections.audit.deployment_audit import AuditReport
from dagster_lifeguard.web.csv_tables import TABLES
from dagster_lifeguard.web.pages import audit as page_of_audit

COUNT = 60
"""More than the page shows."""

ONE, TWO = Occupant("run-1", "step", 1000.0), Occupant("run-2", "step", 1001.0)
FOUND = {
    "excesses": Excess(Lane("pool", "db"), 1, 2, 1001.0, 1005.0, (ONE, TWO)),
    "early": EarlyStart("db", "1/minute", 59.0, TWO),
    "stale": StaleFence("db", 7, 8, ONE, TWO),
    "outlived": Outlived(("db", "api"), "run-1", "step", 7, 1000.0, 1010.0, "STEP_SUCCESS", 1020.0, 10.0),
    "duplicates": Excess(Lane("asset", "a/b", "2026-11-07"), 1, 2, 1001.0, None, (ONE, TWO)),
    "waits": LongWait(700.0, "db", "run-2", "step", 1001.0),
}  # fmt: skip
EXPECTED = {
    "excesses": ("db", "2", "1", "1001.000", "1005.000", "run-1 run-2"),
    "rates": ("db", "1/minute", "1001.000", "59.000", "run-2", "step"),
    "fences": ("db", "7", "8", "1001.000", "run-2", "step", "run-1", "step"),
    "leases": (
        "db api", "run-1", "step", "7", "1000.000", "1010.000", "10.000", "STEP_SUCCESS", "1020.000",
    ),
    "duplicates": ("a/b", "2026-11-07", "2", "1001.000", "", "run-1 run-2"),
    "waits": ("db", "run-2", "step", "700.000", "1001.000"),
}  # fmt: skip


def report(*_, **__) -> AuditReport:
    counts = {
        f"{name.removesuffix('es') if name == 'excesses' else name.removesuffix('s')}_count": COUNT
        for name in FOUND
    }
    found = Audit(
        "ledger", 0.0, 2000.0, 5, 1, **{name: (one,) * COUNT for name, one in FOUND.items()}, **counts
    )  # fmt: skip
    return AuditReport(found, found)


def rows_of(text: str) -> list[tuple[str, ...]]:
    return [tuple(row) for row in csv.reader(io.StringIO(text))][1:]


def test_each_kind_of_finding_has_a_table_on_the_page_with_all_its_rows(monkeypatch):
    assert tuple(TABLES["audit"]) == CSV_TABLES == tuple(EXPECTED)
    monkeypatch.setattr(page_of_audit, "audit", report)
    with serving(Told(states=[pool("db")])) as url:
        text = httpx.get(f"{url}/audit").text
        for table, expected in EXPECTED.items():
            assert f'href="/audit.csv?table={table}"' in text
            found = rows_of(httpx.get(f"{url}/audit.csv?table={table}").text)
            assert found == [expected] * COUNT, table
        assert len(httpx.get(f"{url}/audit.json").json()["limits"]["early"]) == 50
        assert len(httpx.get(f"{url}/audit.json?rows=all").json()["limits"]["early"]) == COUNT


@pytest.mark.parametrize("table", CSV_TABLES)
def test_the_command_prints_one_kind_of_finding(make_home, monkeypatch, table):
    home: Home = make_home("sqlite")
    monkeypatch.setenv("DAGSTER_HOME", str(home.path))
    monkeypatch.setattr(deployment_audit, "audit", report)
    done = CliRunner().invoke(main, ["audit", "--csv", table])
    assert done.exit_code == 1, done.output
    assert rows_of(done.output) == [EXPECTED[table]] * COUNT
    both = CliRunner().invoke(main, ["audit", "--csv", table, "--json"])
    assert (both.exit_code, "not both" in both.output) == (2, True)
