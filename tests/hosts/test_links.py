"""Links that are cut: for longer than the lease, for shorter, and in one direction alone."""

from __future__ import annotations

import pytest
from homes import eventually
from scale import some

BOTH = [("one", "db"), ("db", "one")]
QUESTIONS, ANSWERS = BOTH[:1], BOTH[1:]


@pytest.mark.parametrize(
    ("kind", "lost", "lease"),
    some(
        [("multiprocess", BOTH, 4.0), ("script", ANSWERS, 4.0), ("talking", BOTH, 4.0)],
        ("in_process", BOTH, 4.0),
        ("step_delegating", BOTH, 4.0),
        ("script", BOTH, 10.0),
        ("script", QUESTIONS, 4.0),
        ("multiprocess", BOTH, 30.0),
        ("multiprocess", ANSWERS, 10.0),
        ("multiprocess", QUESTIONS, 4.0),
        ("talking", ANSWERS, 4.0),
    ),
)
def test_a_host_that_is_cut_off_stops_before_its_successor_begins(deploy, kind, lost, lease):
    hosts = deploy(lease)
    hosts.begin(kind, "one", "first")
    first = hosts.executes("first")
    hosts.beats(first.pid)
    hosts.begin("script", "two", "next")
    hosts.waits("next")

    for source, target in lost:
        hosts.network.degrade(source, target, lose=1.0)

    hosts.executes("next")
    first = hosts.stops("first")
    hosts.go("next")
    hosts.ends("next")
    hosts.network.mend()
    hosts.ends("first", well=False)
    hosts.assert_one_at_a_time()
    # Blocked in a write to the event log, it is interrupted in vain, and then killed.
    assert first.how == ("work" if kind == "talking" else "interrupted")


@pytest.mark.parametrize(
    "kind", some(["script"], "in_process", "multiprocess", "step_delegating", "talking")
)
def test_a_cut_that_is_shorter_than_the_lease_ends_nothing(deploy, kind):
    hosts = deploy(9.0)
    hosts.begin(kind, "one", "first")
    first = hosts.executes("first")
    hosts.begin("script", "two", "next")
    hosts.waits("next")

    # A heartbeat is lost, and the first attempts to send it anew.
    before = hosts.network.lost("one", "db")
    hosts.network.cut("one", "db")
    eventually(lambda: hosts.network.lost("one", "db") >= before + 3)
    hosts.network.mend()

    hosts.beats(first.pid)  # So that its lease is longer than it was before.
    assert [e.name for e in hosts.marks.executions()] == ["first"]
    assert hosts.executes("first").how == "work"
    hosts.go("first")
    hosts.ends("first")
    hosts.go("next")
    hosts.ends("next")
    hosts.assert_one_at_a_time()
