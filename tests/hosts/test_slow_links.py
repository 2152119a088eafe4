"""Links on which everything arrives, but late."""

from __future__ import annotations

import pytest
from scale import some


@pytest.mark.parametrize(("delay", "lease"), some([(0.3, 6.0)], (2.0, 15.0), (5.0, 60.0)))
def test_a_holder_whose_answers_come_in_time_goes_on(deploy, delay, lease):
    hosts = deploy(lease)
    hosts.begin("script", "one", "first")
    first = hosts.executes("first")
    hosts.begin("script", "two", "next")
    hosts.waits("next")

    hosts.network.slow_down("one", "db", delay)

    hosts.beats(first.pid, 4)  # More than a lease later, for three of them are sent in one.
    assert [e.name for e in hosts.marks.executions()] == ["first"]
    assert hosts.executes("first").how == "work"
    hosts.go("first")
    hosts.executes("next")
    hosts.go("next")
    hosts.ends("next")
    hosts.ends("first")
    hosts.assert_one_at_a_time()
