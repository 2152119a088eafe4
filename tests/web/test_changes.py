"""The account of changes that were made over the page."""

from __future__ import annotations

import sys
import threading

from dagster_lifeguard.web.changes import KEPT_MAX, Change, ChangeLog


def change(number: int) -> Change:
    return Change(float(number), "somebody", "limit", "orders", 1, number)


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
