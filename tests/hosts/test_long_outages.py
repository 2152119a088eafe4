"""Servers and answers that stay away for longer than the lease: minutes, for ``make torture``."""

from __future__ import annotations

import pytest
from turns import begin_turns, end_turns, wait_for_turns


@pytest.mark.parametrize(("delay", "lease"), [(2.0, 4.0), (5.0, 10.0), (5.0, 15.0)])
def test_a_holder_whose_answers_come_too_late_stops_before_its_successor_begins(
    deploy, delay, lease
):
    hosts = deploy(lease)
    hosts.begin("script", "one", "first")
    first = hosts.executes("first")
    hosts.beats(first.pid)
    hosts.begin("script", "two", "next")
    hosts.waits("next")

    hosts.network.slow_down("one", "db", delay)

    hosts.executes("next")
    assert hosts.stops("first").how == "interrupted"
    hosts.go("next")
    hosts.ends("next")
    hosts.network.mend()
    hosts.ends("first", well=False)
    hosts.assert_one_at_a_time()


@pytest.mark.parametrize("kind", ["script", "multiprocess"])
def test_a_server_that_stays_away_for_longer_than_the_lease_ends_the_holder(deploy, kind):
    hosts = deploy(4.0)
    hosts.begin(kind, "one", "first")
    first = hosts.executes("first")
    hosts.beats(first.pid)
    hosts.begin("script", "two", "next")
    hosts.waits("next")

    hosts.server.kill()

    assert hosts.stops("first").how == "interrupted"
    hosts.server.start()
    hosts.executes("next")
    hosts.go("next")
    hosts.ends("next")
    hosts.ends("first", well=False)
    hosts.assert_one_at_a_time()


@pytest.mark.parametrize("delay", [2.0, 5.0])
def test_a_host_on_a_slow_link_lets_the_others_take_turns(deploy, delay):
    """While it asks for the slot, it has the pool's lock for as long as its answers take."""
    hosts = deploy(30.0)
    begin_turns(hosts)

    hosts.network.slow_down("one", "db", delay)

    wait_for_turns(hosts, ["two", "three"])
    hosts.network.mend()
    wait_for_turns(hosts)
    end_turns(hosts)
    hosts.assert_one_at_a_time()
