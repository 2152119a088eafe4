"""Hosts whose wall clocks are wrong: only the database's counts.

Not tested: a server whose clock jumps, for no kernel lets a process have a wall clock of its own.
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
from scale import some

SHIFTED = Path(__file__).with_name("shifted_clock")
HOUR = 3600


@pytest.mark.parametrize(
    ("kind", "shift"), some([("script", HOUR)], ("script", -HOUR), ("multiprocess", HOUR))
)
def test_a_wrong_clock_neither_ends_a_lease_nor_keeps_it(deploy, kind, shift):
    hosts = deploy(3.0)
    path = hosts.home.environment["PYTHONPATH"]
    hosts.begin(
        kind, "one", "first",
        PYTHONPATH=os.pathsep.join([str(SHIFTED), path]), SHIFT_SECONDS=str(shift),
    )  # fmt: skip
    first = hosts.executes("first")
    assert abs(first.wall - shift - time.time()) < HOUR / 2
    hosts.begin("script", "two", "next")
    hosts.waits("next")

    hosts.beats(first.pid, 4)
    assert [e.name for e in hosts.marks.executions()] == ["first"]

    os.killpg(hosts.workers["first"].popen.pid, signal.SIGKILL)
    hosts.executes("next")  # And not an hour later.
    hosts.go("next")
    hosts.ends("next")
    hosts.assert_one_at_a_time()
