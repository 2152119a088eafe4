"""A real Prometheus beside a real server: each alert fires once its cause is made, and every query
of the dashboard has an answer."""

from __future__ import annotations

import json
import re
import subprocess
import time
from contextlib import closing, contextmanager
from importlib import resources
from pathlib import Path

import httpx
import pytest
import yaml
from homes import eventually, free_port, limit, stopped
from told import Told, executed, pool, run
from web_server import serving

from dagster_lifeguard.compat.health import RunQueue
from dagster_lifeguard.deployment import history
from dagster_lifeguard.deployment.contract import HoldingStep, WaitingStep
from dagster_lifeguard.deployment.open import open_deployment
from dagster_lifeguard.engine.rules.model import EntryKind
from dagster_lifeguard.errors import DeploymentError
from dagster_lifeguard.inspections.alerts.rules import RULES
from dagster_lifeguard.web import deployment_reader
from debian import program

ALERTS = Path(__file__).parents[2] / "monitoring" / "alerts.yaml"
SHORTER = (
    (r"\[\d+(?:s|m)\]", "[3s]"),
    (r"offset 1m", "offset 2s"),
    (r"offset 10m", "offset 4s"),
    (r" for: \d+s", " for: 1s"),
    (r"> 1800", "> 2"),
    (r"> 60", "> 3"),
)
"""Minutes as seconds: a test does not wait for them."""


class Reachable(Told):
    is_gone = False

    def pools(self, names=None):
        if self.is_gone:
            raise DeploymentError("told is out of reach.", remedy="Wait.")
        return super().pools(names)


@contextmanager
def prometheus(folder: Path, target: str):
    """A Prometheus that scrapes a server each second, as its address."""
    rules = ALERTS.read_text()
    for pattern, shorter in SHORTER:
        rules, count = re.subn(pattern, shorter, rules)
        assert count, pattern
    (folder / "alerts.yaml").write_text(rules)
    config = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": ["alerts.yaml"],
        "scrape_configs": [{"job_name": "lifeguard", "static_configs": [{"targets": [target]}]}],
    }
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    port = free_port()
    process = subprocess.Popen(
        [
            program("prometheus", "prometheus"),
            f"--config.file={folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{port}",
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


def answer(url: str, path: str, **query: str) -> dict:
    try:
        response = httpx.get(f"{url}/api/v1/{path}", params=query, timeout=60)
    except httpx.TransportError:  # It begins.
        return {}
    if response.status_code == 503:  # The same.
        return {}
    told = response.json()
    assert told["status"] == "success", told
    return told["data"]


def firing(url: str) -> set[tuple[str, str]]:
    found = answer(url, "alerts").get("alerts", [])
    return {
        (alert["labels"]["alertname"].removeprefix("Lifeguard"), alert["labels"].get("pool", ""))
        for alert in found
        if alert["state"] == "firing"
    }


@pytest.fixture
def told() -> Reachable:
    now = time.time()
    held = [HoldingStep("a", "step", since=now)]
    past = [executed(f"x{n}", {"step": "orders"}, 4.0, waited=2.0) for n in range(2)]
    return Reachable(
        states=[pool("orders", 2, held), pool("quiet", 1)],
        all_runs=[run("a")],
        past=past,
        told_queue=RunQueue(-1, (), heeds_pools=True, buffer=0),
    )


def test_each_alert_fires_once_its_cause_is_made(told, tmp_path):
    now = time.time()
    with serving(told) as server, prometheus(tmp_path, server.removeprefix("http://")) as url:
        eventually(lambda: answer(url, "query", query="lifeguard_up == 1").get("result"))
        assert firing(url) == set()

        # It is held by a run that is over, beside more than the limit allows.
        told.all_runs = [run("a", "FAILURE"), run("b"), run("c"), run("w")]
        told.states = [
            pool("orders", 2, [HoldingStep(name, "step", since=now) for name in "abc"]),
            pool("stands", 1, [], [WaitingStep("w", "step", since=time.time())]),
            pool("quiet", 1),
        ]
        wanted = {
            ("PoolOverLimit", "orders"),
            ("SlotLeaked", "orders"),
            ("QueueStands", "stands"),
            ("WaitLong", "stands"),
        }
        eventually(lambda: wanted <= firing(url))
        assert not {name for name, of in firing(url) if of == "quiet"}

        told.is_gone = True
        eventually(lambda: ("LookStale", "") in firing(url))
        told.is_gone = False
        eventually(lambda: ("LookStale", "") not in firing(url))


def test_a_lost_lease_and_a_step_that_goes_on_fire_their_alerts(make_home, monkeypatch, tmp_path):
    """On a real engine: a step is stopped until another takes its slot, and works on after that."""
    monkeypatch.setattr(deployment_reader, "AUDIT_PAUSE_SECONDS", 0.5)
    home = make_home("sqlite", lease_seconds=3, on_lease_lost="warn")
    monkeypatch.setenv("DAGSTER_HOME", str(home.path))
    limit(home)
    with (
        closing(open_deployment()) as deployment,
        serving(deployment) as server,
        prometheus(tmp_path, server.removeprefix("http://")) as url,
        home.instance() as instance,
    ):
        # An audit is over, and it found nothing.
        eventually(
            lambda: answer(url, "query", query="lifeguard_audit_findings == 0").get("result")
        )
        first = home.materialize("held", EXECUTOR="multiprocess")
        ((run_id, step_pid),) = home.started().items()
        with stopped(instance, run_id, "held", {first.popen.pid, step_pid}):
            successor = home.materialize("second")
            home.started(asset="second")
        eventually(lambda: ("SlotExpired", "orders") in firing(url))
        assert ("AuditFinding", "") not in firing(url)

        (lost,) = instance.event_log_storage.lifeguard.engine.store.entries(kind=EntryKind.EXPIRED)
        began = history.read_runs(instance, [run_id])[0].steps[0].started
        # Until it has been at work for longer than it held its slot, which proves what it did.
        eventually(lambda: time.time() > began + lost.seconds)
        for process, asset in ((first, "held"), (successor, "second")):
            home.go(asset)
            assert process.wait() == 0, process.output()
        eventually(lambda: ("AuditFinding", "") in firing(url))


def test_each_rule_is_fired_by_its_cause():
    """A rule that is added to the alerts has to be fired above too."""
    rules = {rule.name.removeprefix("Lifeguard") for rule in RULES}
    fired = set(re.findall(r'\("([A-Z]\w+)", "\w*"\)', Path(__file__).read_text()))
    assert rules == fired


def test_the_dashboard_asks_for_each_metric_and_is_answered(told, tmp_path):
    dashboard = json.loads((resources.files("dagster_lifeguard.web") / "grafana.json").read_text())
    asked = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    with serving(told) as server, prometheus(tmp_path, server.removeprefix("http://")) as url:

        def counted() -> bool:
            # A run that ended while the server looked is counted, so that all counters are there.
            told.past = [*told.past, executed(f"n{len(told.past)}", {"step": "orders"}, 4.0)]
            return "lifeguard_pool_grants_total{" in httpx.get(f"{server}/metrics").text

        eventually(counted)
        there = set(
            re.findall(
                r"^# TYPE (lifeguard_\w+)", httpx.get(f"{server}/metrics").text, re.MULTILINE
            )
        )
        there = {name for name in there if not name.endswith("_created")}
        text = " ".join(asked)
        assert [name for name in sorted(there) if name not in text] == []
        for query in asked:
            filled = query.replace("$instance", ".*").replace("$pool", ".*")
            if "expiries" in filled:
                answer(url, "query", query=filled)  # Only the engine takes slots back.
                continue
            eventually(lambda q=filled: answer(url, "query", query=q).get("result"))
