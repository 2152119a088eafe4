"""The account of changes: it is whole, or nothing is changed."""

from __future__ import annotations

import json
import resource
import sys
import threading
from contextlib import contextmanager
from dataclasses import asdict

import httpx
import pytest
from told import Told, pool
from web_server import TOKEN, serving

from dagster_lifeguard.errors import ConfigError
from dagster_lifeguard.web.changes import KEPT_MAX, ChangeLog, PoolChange
from dagster_lifeguard.web.errors import RequestRefusedError

CHANGE = PoolChange(1.0, "somebody", "limit", "orders", 1, 2)
FULL = 5_000_000
BEARER = {"Authorization": f"Bearer {TOKEN}", "Accept": "application/json"}


@contextmanager
def full_disk():
    """Files cannot grow beyond FULL bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (FULL, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture
def path(tmp_path):
    """An account that is as long as a file can be."""
    path = tmp_path / "changes.jsonl"
    path.write_text(json.dumps(asdict(CHANGE)).ljust(FULL - 1) + "\n")
    return path


def test_nothing_is_changed_where_it_cannot_be_written_down(path):
    class Settable(Told):
        def set_limit(self, name, limit):
            self.states = [pool(name, limit)]

    told = Settable(states=[pool("orders", 1)])
    form = {"pool": "orders", "limit": "2"}
    with serving(told, allow_changes=True, change_log=path, token=TOKEN) as url:
        with full_disk():
            answer = httpx.post(f"{url}/change/limit", headers=BEARER, data=form)
            assert answer.status_code == 503
            assert "Nothing was changed" in answer.json()["error"]["message"]
            assert told.states[0].limit == 1
        assert path.stat().st_size == FULL
        assert httpx.post(f"{url}/change/limit", headers=BEARER, data=form).status_code == 200
    assert len(ChangeLog(path).newest()) == 2


def test_who_made_a_change_is_told_that_it_is_not_written_down(path):
    log = ChangeLog(path)
    with full_disk(), pytest.raises(RequestRefusedError, match="was made, but"):
        log.add(CHANGE)
    assert len(log.newest("orders")) == 2


def change(number: int) -> PoolChange:
    return PoolChange(float(number), "somebody", "limit", "orders", 1, number)


def test_pages_may_be_made_while_changes_are():
    changes = ChangeLog()
    for number in range(KEPT_MAX):
        changes.add(change(number))
    stop = threading.Event()

    def go_on():
        while not stop.is_set():
            changes.add(change(0))

    thread = threading.Thread(target=go_on)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    thread.start()
    try:
        for _ in range(300):
            assert len(changes.newest("orders")) == KEPT_MAX
    finally:
        stop.set()
        thread.join()
        sys.setswitchinterval(interval)


@pytest.mark.parametrize("cut", [1, 40, "the end of the line"])
def test_a_line_that_was_cut_off_keeps_no_server_from_starting(tmp_path, caplog, cut):
    path = tmp_path / "changes.jsonl"
    lines = [json.dumps(asdict(change(number))) + "\n" for number in (1, 2)]
    is_whole = not isinstance(cut, int)
    path.write_text(lines[0] + (lines[1][:-1] if is_whole else lines[1][:cut]))
    log = ChangeLog(path)
    kept = [change(2), change(1)] if is_whole else [change(1)]
    assert list(log.newest()) == kept
    assert ("which was cut off" in caplog.text) == (not is_whole)
    log.add(change(3))
    caplog.clear()
    assert list(ChangeLog(path).newest()) == [change(3), *kept]
    assert "cut off" not in caplog.text


def test_room_that_was_tried_and_left_is_cut_off(tmp_path):
    path = tmp_path / "changes.jsonl"
    path.write_text(json.dumps(asdict(CHANGE)) + "\n" + " " * 16_384)
    ChangeLog(path).add(change(3))
    assert len(ChangeLog(path).newest()) == 2


def test_a_file_that_is_no_account_is_refused_and_left_as_it_is(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("mine\n")
    with pytest.raises(ConfigError, match="cannot be used for an account of changes"):
        ChangeLog(path)
    assert path.read_text() == "mine\n"
