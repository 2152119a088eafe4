"""The alerts for Prometheus: written from one list, and each fires on its cause and on no other."""

from __future__ import annotations

import importlib.util
import json
import subprocess
from pathlib import Path

import pytest
import yaml

from dagster_lifeguard.inspections.alerts.rules import RULES
from debian import program

MONITORING = Path(__file__).parents[2] / "monitoring"
POOL = '{instance="i", job="lifeguard", pool="orders"}'
LOOK = '{instance="i", job="lifeguard"}'


@pytest.fixture(scope="module")
def promtool() -> str:
    return program("promtool", "prometheus")


def test_the_file_is_what_the_rules_say():
    spec = importlib.util.spec_from_file_location("written", MONITORING / "generate_alerts.py")
    written = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(written)
    assert (MONITORING / "alerts.yaml").read_text() == written.text(), (
        "run: python monitoring/generate_alerts.py"
    )


def series(**values: str) -> list[dict[str, str]]:
    """Input of promtool, a sample each 15 s; names without their common beginning."""
    return [
        {
            "series": f"lifeguard_{name}" + (POOL if name.startswith("pool_") else LOOK),
            "values": told,
        }
        for name, told in values.items()
    ]


QUIET = {
    "pool_held_slots": "1x40",
    "pool_limit_slots": "2x40",
    "pool_over_limit_slots": "0x40",
    "pool_leaked_slots": "0x40",
    "pool_waiting_steps": "1x40",
    "pool_queued_runs": "2x40",
    "pool_startable": "0x40",
    "pool_oldest_wait_seconds": "1700x40",
    "up": "1x40",
    "last_look_timestamp_seconds": "0+15x40",
    "audit_findings": "0x40",
}
CASES = {
    "LifeguardPoolOverLimit": [
        ({"pool_over_limit_slots": "0x20 1x20"}, "7m", True),
        # It stays told for a while: whoever looks next may have missed the moment.
        ({"pool_over_limit_slots": "0x8 1x32"}, "9m", True),
        # A lowered limit drains.
        ({"pool_limit_slots": "2x20 1x20", "pool_over_limit_slots": "0x20 1x20"}, "7m", False),
        ({"pool_over_limit_slots": "3x20 1x20"}, "7m", False),
    ],
    "LifeguardSlotExpired": [
        ({"pool_expiries_total": "_x20 1x20"}, "6m", True),
        ({"pool_expiries_total": "3x20 4x20"}, "6m", True),
        ({"pool_expiries_total": "3x40"}, "10m", False),
    ],
    "LifeguardSlotLeaked": [
        ({"pool_leaked_slots": "0x20 2x20"}, "8m", True),
        ({"pool_leaked_slots": "0x20 2x20"}, "6m", False),
    ],
    "LifeguardWaitLong": [
        ({"pool_oldest_wait_seconds": "1700+15x40"}, "5m", True),
        ({"pool_oldest_wait_seconds": "0+15x40"}, "10m", False),
    ],
    "LifeguardQueueStands": [
        ({"pool_startable": "1x40"}, "9m", True),
        ({"pool_startable": "1x40"}, "1m", False),
        ({"pool_startable": "1x10 0 1x29"}, "4m", False),
        # Somebody can go in at every look, and somebody does.
        ({"pool_startable": "1x40", "pool_waiting_steps": "9-1x8 9-1x8 9-1x8 9-1x8"}, "8m", False),
    ],
    "LifeguardLookStale": [
        ({"up": "1x20 0x20"}, "7m", True),
        ({"last_look_timestamp_seconds": "0+15x20 300x20"}, "9m", True),
        ({"up": "1x20 0 1x19"}, "6m", False),
    ],
    "LifeguardAuditFinding": [({"audit_findings": "0x20 1x20"}, "6m", True)],
}


def fires(promtool: str, folder: Path, name: str, values: dict[str, str], at: str) -> bool:
    """Whether an alert fires for these series at a moment."""
    (folder / "alerts.yaml").write_text((MONITORING / "alerts.yaml").read_text())
    told = {
        "rule_files": ["alerts.yaml"],
        "evaluation_interval": "15s",
        "tests": [
            {
                "interval": "15s",
                "input_series": series(**values),
                "alert_rule_test": [{"eval_time": at, "alertname": name, "exp_alerts": []}],
            }
        ],
    }
    (folder / "test.yaml").write_text(yaml.safe_dump(told))
    done = subprocess.run(
        [promtool, "test", "rules", "test.yaml"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    output = done.stdout + done.stderr
    assert done.returncode == 0 or f"alertname: {name}" in output, output
    return done.returncode != 0


def test_each_rule_has_its_cases():
    assert CASES.keys() == {rule.name for rule in RULES}


def test_promtool_understands_the_rules(promtool):
    subprocess.run([promtool, "check", "rules", str(MONITORING / "alerts.yaml")], check=True)


@pytest.mark.parametrize("name", CASES)
def test_a_rule_fires_on_its_cause(promtool, tmp_path, name):
    for changed, at, expected in CASES[name]:
        found = fires(promtool, tmp_path, name, QUIET | changed, at)
        assert found == expected, json.dumps([changed, at])
    assert not fires(promtool, tmp_path, name, QUIET, "9m")
