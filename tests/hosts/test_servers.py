"""A server that is killed and started again, while a host holds the slot and another waits."""

from __future__ import annotations

import pytest
from scale import some


@pytest.mark.parametrize("kind", some(["script"], "in_process", "multiprocess", "step_delegating"))
@pytest.mark.parametrize("silent", some([False], True))
def test_a_server_that_comes_back_within_the_lease_changes_nothing(deploy, kind, silent):
    hosts = deploy(20.0)
    hosts.begin(kind, "one", "first")
    first = hosts.executes("first")
    hosts.begin("script", "two", "next")
    hosts.waits("next")

    if silent:  # Its host lost its power: nobody is told that connections ended.
        hosts.network.cut("one", "db")
        hosts.network.cut("two", "db")
    hosts.server.kill()
    hosts.server.start()
    hosts.network.mend()

    hosts.beats(first.pid)
    assert [e.name for e in hosts.marks.executions()] == ["first"]
    assert hosts.executes("first").how == "work"
    hosts.go("first")
    hosts.ends("first")
    hosts.go("next")
    hosts.ends("next")
    hosts.assert_one_at_a_time()
