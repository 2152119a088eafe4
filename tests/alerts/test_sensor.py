"""The sensor: it tells each alert once, by the same rules as Prometheus."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import dagster as dg
import pytest
from homes import limit
from told import (
    Told,
    pool,
    run,
)

from dagster_lifeguard import build_pool_alert_sensor
from dagster_lifeguard.compat.health import RunQueue
from dagster_lifeguard.deployment.contract import HoldingStep, WaitingStep
from dagster_lifeguard.errors import ConfigError, LifeguardError
from dagster_lifeguard.inspections.alerts import conditions
from dagster_lifeguard.inspections.alerts.conditions import Memory, look
from dagster_lifeguard.inspections.alerts.rules import RULES


class Clock:
    def __init__(self) -> None:
        self.now = 2_000_000.0

    def time(self) -> float:
        return self.now


class Watch:
    """Looks again and again, each time with what the look before left, as text."""

    def __init__(self, monkeypatch, told: Told) -> None:
        self.told, self.clock, self.text = told, Clock(), ""
        monkeypatch.setattr(conditions, "time", self.clock)

    def after(self, seconds: float) -> list[tuple[str, str]]:
        self.clock.now += seconds
        alerts, memory = look(
            self.told, Memory.read(self.text), wait_seconds=1800, audited_seconds=0
        )
        self.text = memory.text()
        return [(alert.rule.removeprefix("Lifeguard"), alert.pool) for alert in alerts]

    def holds(self, name: str, **more) -> HoldingStep:
        return HoldingStep(name, "step", since=self.clock.now, **more)


@pytest.fixture
def watch(monkeypatch):
    told = Told(told_queue=RunQueue(-1, (), heeds_pools=True, buffer=0))
    return Watch(monkeypatch, told)


def test_a_step_that_went_in_over_the_limit_is_told_once_and_a_drain_is_not(watch):
    told = watch.told
    told.all_runs = [run(name) for name in "abc"]
    told.states = [pool("orders", 1, [watch.holds("a")])]
    assert watch.after(0) == []
    told.states = [pool("orders", 1, [watch.holds("a"), watch.holds("b")])]
    assert watch.after(60) == [("PoolOverLimit", "orders")]
    assert watch.after(60) == []
    told.states = [pool("orders", 1, [watch.holds("a")])]
    assert watch.after(60) == []
    told.states = [pool("orders", 2, [watch.holds("a"), watch.holds("b")])]
    assert watch.after(60) == []
    told.states = [pool("orders", 1, [watch.holds("a"), watch.holds("b")])]  # It was lowered.
    assert [watch.after(60) for _ in range(3)] == [[], [], []]
    told.states = [pool("orders", 1, [watch.holds(name) for name in "abc"])]
    assert watch.after(60) == [("PoolOverLimit", "orders")]


def test_a_leaked_slot_is_told_after_a_while_and_again_when_it_comes_back(watch):
    watch.told.all_runs = [run("a", "FAILURE")]
    leaked = [pool("orders", 1, [watch.holds("a")])]
    watch.told.states = leaked
    assert watch.after(0) == []
    assert watch.after(121) == [("SlotLeaked", "orders")]
    assert watch.after(60) == []
    watch.told.states = [pool("orders", 1)]
    assert watch.after(60) == []
    watch.told.states = leaked
    assert [watch.after(60), watch.after(121)] == [[], [("SlotLeaked", "orders")]]


@pytest.mark.parametrize("place", ["pool", "queue"])
def test_a_long_wait_is_told_wherever_it_is(watch, place):
    began = watch.clock.now
    watch.told.all_runs = [run("holder")]
    waiting = [WaitingStep("w", "step", since=began)] if place == "pool" else []
    if place == "queue":
        queued = run("w", "QUEUED", pools=frozenset({"orders"}), created=began)
        watch.told.all_runs.append(queued)
    watch.told.states = [pool("orders", 1, [watch.holds("holder")], waiting)]
    assert watch.after(1790) == []
    assert watch.after(20) == []
    assert watch.after(60) == [("WaitLong", "orders")]
    assert watch.after(600) == []


def test_a_queue_that_stands_is_told_and_one_that_moves_is_not(watch):
    def wait(*names: str) -> None:
        watch.told.all_runs = [run(name) for name in names]
        line = [WaitingStep(name, "step", since=watch.clock.now) for name in names]
        watch.told.states = [pool("orders", 1, [], line)]

    for count in (2, 1) * 8:
        wait(*"ab"[:count])
        assert watch.after(60) == []
    told = [alert for _ in range(10) for alert in watch.after(60)]
    assert told == [("QueueStands", "orders")]


def test_a_queue_behind_a_full_pool_does_not_stand(watch):
    watch.told.all_runs = [run("a"), run("b")]
    line = [WaitingStep("b", "step", since=watch.clock.now)]
    watch.told.states = [pool("orders", 1, [watch.holds("a")], line)]
    assert [alert for _ in range(15) for alert in watch.after(60)] == []


def test_runs_that_no_daemon_launches_stand(watch):
    queued = run("b", "QUEUED", pools=frozenset({"orders"}), created=watch.clock.now)
    watch.told.all_runs = [queued]
    watch.told.states = [pool("orders", 1)]
    told = [alert for _ in range(10) for alert in watch.after(60)]
    assert told == [("QueueStands", "orders")]


def test_every_rule_of_the_sensor_is_tested_here_or_on_a_real_instance():
    tested = {
        "PoolOverLimit",
        "SlotLeaked",
        "WaitLong",
        "QueueStands",
        "SlotExpired",
        "AuditFinding",
    }
    assert {r.name.removeprefix("Lifeguard") for r in RULES if r.sensor} == tested


@pytest.mark.parametrize("text", [None, "", "no json", "[]", '{"other": 1}'])
def test_a_cursor_of_another_version_is_an_empty_one(text):
    assert Memory.read(text) == Memory()


def ticks(sensor, instance, cursor=None):
    context = dg.build_sensor_context(instance=instance, cursor=cursor)
    found = sensor(context)
    assert isinstance(found, dg.SkipReason)
    return context.cursor, found.skip_message


def test_on_a_real_instance_a_dead_holder_and_a_failing_receiver(make_home):
    home = make_home("sqlite")
    limit(home)
    got = []
    sensor = build_pool_alert_sensor(got.append, audited_seconds=0)
    with home.instance() as instance:
        log = instance.event_log_storage
        assert log.claim_concurrency_slot("orders", "a", "step").is_claimed
        cursor, _ = ticks(sensor, instance)
        with log.index_transaction() as connection:
            connection.exec_driver_sql(
                "INSERT INTO lifeguard_ledger "
                "(at, kind, pool, run_id, step_key, slots, fence, session)"
                " VALUES (1.0, 'expired', 'orders', 'a', 'step', 1, 1, '')"
            )

        def broken(alert):
            raise ConnectionError("nobody there")

        with pytest.raises(ConnectionError):
            ticks(build_pool_alert_sensor(broken, audited_seconds=0), instance, cursor)
        cursor, message = ticks(sensor, instance, cursor)
        assert [alert.rule for alert in got] == ["LifeguardSlotExpired"]
        assert "took back slots" in message
        ticks(sensor, instance, cursor)
        assert len(got) == 1


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Of what apprise imports.
def test_addresses_are_for_apprise():
    pytest.importorskip("apprise")
    with pytest.raises(ConfigError, match="Address 2 of 2") as refused:
        build_pool_alert_sensor(["json://localhost:9/", "no-such-service://secret"])
    assert "secret" not in str(refused.value)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Of what apprise imports.
def test_a_webhook_gets_an_alert_and_one_that_fails_is_tried_again(home):
    pytest.importorskip("apprise")
    got = []
    statuses = [500, 200]

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            got.append(json.loads(body))
            self.send_response(statuses[len(got) - 1])
            self.end_headers()

        def log_message(self, *arguments):
            pass

    with HTTPServer(("127.0.0.1", 0), Receiver) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"json://127.0.0.1:{server.server_address[1]}/"
        sensor = build_pool_alert_sensor(address, wait_seconds=-1, audited_seconds=0)
        with dg.DagsterInstance.get() as instance:
            log = instance.event_log_storage
            log.set_concurrency_slots("orders", 0)
            log.claim_concurrency_slot("orders", "a", "step")
            cursor, _ = ticks(sensor, instance)
            # It has to last for a minute; the cursor says since when it does.
            memory = Memory.read(cursor)
            memory.since = {key: since - 100 for key, since in memory.since.items()}
            with pytest.raises(LifeguardError, match="could not be sent"):
                ticks(sensor, instance, memory.text())
            cursor, message = ticks(sensor, instance, memory.text())
            ticks(sensor, instance, cursor)
        server.shutdown()
    assert len(got) == 2
    assert "Pool orders: the longest wait" in message
    assert got[1]["title"] == message
    assert "lifeguard status" in got[1]["message"]
