"""Metrics: what they say, that they stay few, and that the dashboard asks for what there is."""

from __future__ import annotations

import json
import re
from contextlib import closing
from importlib import resources

import httpx
import pytest
from homes import DEFINITIONS, eventually, kill, limit
from prometheus_client.parser import text_string_to_metric_families
from told import SETTINGS, Told, executed, holds, pool, waits
from web_server import serving

from dagster_lifeguard.compat.health import RunQueue
from dagster_lifeguard.deployment.instance import InstanceDeployment
from dagster_lifeguard.deployment.open import open_deployment
from dagster_lifeguard.insight.simulation.track_record import TrackRecord
from dagster_lifeguard.web import deployment_reader
from dagster_lifeguard.web.expiries import Expiries
from dagster_lifeguard.web.metrics import LABELS_MAX, OTHER, Metrics


def samples(text: str) -> dict[tuple[str, str], float]:
    return {
        (sample.name, sample.labels.get("pool", "") + sample.labels.get("le", "")): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def metrics_of(told: Told, **options) -> dict[tuple[str, str], float]:
    with serving(told, **options) as url:
        eventually(lambda: "lifeguard_up 1.0" in httpx.get(f"{url}/metrics").text)
        return samples(httpx.get(f"{url}/metrics").text)


def test_gauges_tell_each_pool_as_it_was_seen():
    found = metrics_of(
        Told(
            states=[
                pool("orders", 1, [holds("a"), holds("b")], [waits("c"), waits("d")]),
                pool("free", None),
            ]
        )
    )
    for name, value in (("held", 2), ("limit", 1), ("over_limit", 1)):
        assert found[f"lifeguard_pool_{name}_slots", "orders"] == value
    assert found["lifeguard_pool_waiting_steps", "orders"] == 2
    assert found["lifeguard_pool_oldest_wait_seconds", "orders"] > 0
    assert found["lifeguard_pool_held_slots", "free"] == 0
    assert ("lifeguard_pool_limit_slots", "free") not in found
    assert found["lifeguard_pools", ""] == 2


def test_how_often_estimates_held_is_told_once_it_is_known(monkeypatch):
    told = Told(
        states=[pool("orders", 1, [holds("a")], [waits("b")])],
        asset_pools={"sales/orders": ("orders",)},
    )
    record = TrackRecord(0.0, waits=200, held=156)
    monkeypatch.setattr(deployment_reader, "read_record", lambda *_: record)
    with serving(told, window=3600) as url:
        name = "lifeguard_estimates_held_ratio"
        eventually(lambda: name in httpx.get(f"{url}/metrics").text)
        found = samples(httpx.get(f"{url}/metrics").text)
        assert found[name, ""] == 0.78
        assert found["lifeguard_estimates_judged_waits", ""] == 200
        for path in ("pools/orders", "assets/sales/orders"):
            page = httpx.get(f"{url}/{path}").text
            assert "of 200 waits of the last week, 78 % started within the estimated range" in page
        assert httpx.get(f"{url}/pools/orders.json").json()["record"]["held"] == 156
    assert not [name for name, _ in metrics_of(told, window=0) if "estimates" in name]


def test_ten_thousand_pools_are_few_series():
    states = [pool(f"pool{n:05}", 2) for n in range(10_000)]
    for n in range(0, 10_000, 20):
        states[n] = pool(f"pool{n:05}", 2, [holds(f"r{n}")], [waits(f"w{n}")])
    found = metrics_of(Told(states=states))
    labels = {label for name, label in found if name == "lifeguard_pool_held_slots"}
    assert len(labels) == LABELS_MAX + 1
    held = {label: v for (name, label), v in found.items() if name == "lifeguard_pool_held_slots"}
    assert sum(held.values()) == 500
    assert held[OTHER] == 500 - LABELS_MAX
    assert found["lifeguard_pool_limit_slots", OTHER] == 2 * (10_000 - LABELS_MAX)


def test_without_a_window_no_history_is_read_and_only_gauges_are_told():
    class Forgetful(Told):
        def history(self, since, until=None, *, latest=None, queued=True):
            raise AssertionError("the history was read")

    found = metrics_of(Forgetful(states=[pool("orders", 1, [holds("a")])]), window=0)
    assert found["lifeguard_pool_held_slots", "orders"] == 1
    names = {name for name, _ in found if name.startswith("lifeguard_")}
    assert not [n for n in names if re.search(r"_(wait|hold)_seconds_|grants|expiries", n)]


def test_what_was_executed_is_counted_once():
    metrics = Metrics(labels_max=2)
    going_on = executed("r", {"step": "orders"}, 4.0, waited=20.0, ended=False)
    over = executed("r", {"step": "orders"}, 4.0, waited=20.0)
    metrics.executed(None, going_on, SETTINGS)
    metrics.executed(going_on, over, SETTINGS)
    metrics.executed(over, over, SETTINGS)
    for name in ("two", "three", "four"):
        metrics.executed(None, executed(name, {"step": name}, 1.0), SETTINGS)
    metrics.expired(["orders", "four", "four"])
    found = samples(metrics.render().decode())
    assert found["lifeguard_pool_grants_total", "orders"] == 1
    assert found["lifeguard_pool_wait_seconds_sum", "orders"] == 20.0
    assert found["lifeguard_pool_hold_seconds_sum", "orders"] == 4.0
    assert found["lifeguard_pool_hold_seconds_count", "orders"] == 1
    assert found["lifeguard_pool_grants_total", OTHER] == 2
    assert found["lifeguard_pool_expiries_total", "orders"] == 1
    assert found["lifeguard_pool_expiries_total", OTHER] == 2


def test_the_dashboard_asks_only_for_what_there_is():
    file = resources.files("dagster_lifeguard.web") / "grafana.json"
    dashboard = json.loads(file.read_text())
    asked = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", [])]
    assert len(asked) >= 8
    names = {name for text in asked for name in re.findall(r"\b(?:lifeguard|process)_\w+", text)}
    counted = Metrics()
    counted.executed(None, executed("r", {"step": "orders"}, 1.0), SETTINGS)
    counted.expired(["orders"])
    names -= {name for name, _ in samples(counted.render().decode())}
    told = Told(
        states=[pool("orders", 1, [holds("a")], [waits("b")])],
        told_queue=RunQueue(-1, (), heeds_pools=True, buffer=0),
    )
    with serving(told) as url:
        # The queue and the audit have looks of their own, after the first at the pools.
        eventually(lambda: names <= {n for n, _ in samples(httpx.get(f"{url}/metrics").text)})
    assert {panel["title"] for panel in dashboard["panels"]}


def test_slots_taken_back_from_the_dead_are_counted(make_home, monkeypatch):
    home = make_home("sqlite", lease_seconds=2.0)
    monkeypatch.setenv("DAGSTER_HOME", str(home.path))
    limit(home)
    with closing(open_deployment()) as deployment, serving(deployment) as url:

        def expiries() -> float:
            found = samples(httpx.get(f"{url}/metrics").text)
            return found.get(("lifeguard_pool_expiries_total", "orders"), 0.0)

        def is_counted() -> bool:
            home.run("dagster", "asset", "materialize", "-f", str(DEFINITIONS), "--select", "quick")
            found = samples(httpx.get(f"{url}/metrics").text)
            return ("lifeguard_pool_grants_total", "orders") in found

        # What was over before the first look at the history and at the ledger is not counted.
        eventually(is_counted)
        process = home.materialize("held")
        ((_, pid),) = home.started().items()
        kill(pid)
        process.end()
        with home.instance() as instance:
            log = instance.event_log_storage
            eventually(lambda: log.claim_concurrency_slot("orders", "next", "step").is_claimed)
        eventually(lambda: expiries() == 1)


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_an_expiry_is_counted_once_whenever_its_commit_comes_and_whatever_the_clock_says(
    make_home, kind
):
    home = make_home(kind)
    limit(home)

    def insert(connection, pool: str, at: float) -> None:
        connection.exec_driver_sql(
            "INSERT INTO lifeguard_ledger (at, kind, pool, run_id, step_key, slots, fence, session)"
            f" VALUES ({at}, 'expired', '{pool}', 'run', 'step', 1, 1, '')"
        )

    with home.instance() as instance:
        log, deployment = instance.event_log_storage, InstanceDeployment(instance, "home")
        assert log.claim_concurrency_slot("orders", "a", "step").is_claimed  # Makes the tables.
        expiries = Expiries()
        with log.index_transaction() as connection:
            insert(connection, "before", 100.0)
        assert expiries.read(deployment) == []
        with log.index_transaction() as connection:
            insert(connection, "first", 100.0)
            insert(connection, "stepped back", 98.0)
        assert expiries.read(deployment) == ["first", "stepped back"]
        if kind == "postgres":  # SQLite has one writer.
            with log.index_transaction() as late:
                insert(late, "late", 101.0)
                with log.index_transaction() as connection:
                    insert(connection, "larger", 102.0)
                assert expiries.read(deployment) == ["larger"]
            assert expiries.read(deployment) == ["late"]
        assert expiries.read(deployment) == []
