"""User code that lets no other thread of its process go on, or hardly."""

from __future__ import annotations

import pytest
from scale import some


# Threads of busy code on a busy machine run late; the reserve for that is a part of the lease.
@pytest.mark.parametrize("lease", some([20.0], 4.0, 10.0))
def test_busy_code_on_a_host_that_is_cut_off_stops_before_its_successor_begins(deploy, lease):
    hosts = deploy(lease)
    hosts.begin("script", "one", "first", BUSY="1")
    first = hosts.executes("first")
    hosts.beats(first.pid)
    hosts.begin("script", "two", "next")
    hosts.waits("next")

    hosts.network.cut("one", "db")

    hosts.executes("next")
    assert hosts.stops("first").how == "interrupted"
    hosts.go("next")
    hosts.ends("next")
    hosts.network.mend()
    hosts.ends("first", well=False)
    hosts.assert_one_at_a_time()


@pytest.mark.parametrize("lease", some([3.0], 10.0))
def test_code_that_held_the_interpreter_for_too_long_is_interrupted_after_it(deploy, lease):
    """Before, nothing in its process can notice: what it writes meanwhile only a fence refuses."""
    hosts = deploy(lease)
    hosts.script("one", "hold", "first", HOGS_SECONDS=str(int(4 * lease)))
    hosts.executes("first")
    hosts.begin("script", "two", "next")

    following = hosts.executes("next")

    first = hosts.stops("first")
    assert first.how == "interrupted"
    assert first.fence < following.fence
    hosts.ends("first", well=False)
    assert hosts.executes("next").how == "work"
    hosts.go("next")
    hosts.ends("next")
