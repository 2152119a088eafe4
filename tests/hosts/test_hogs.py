"""User code that lets no other thread of its process go on, not even the heartbeat."""

from __future__ import annotations

import pytest
from scale import some


@pytest.mark.parametrize("lease", some([3.0], 10.0))
def test_code_that_holds_the_interpreter_stops_before_its_successor_begins(deploy, lease):
    hosts = deploy(lease)
    hosts.script("one", "hog", "first", str(int(4 * lease)))
    hosts.executes("first")
    hosts.begin("script", "two", "next")

    hosts.executes("next")

    hosts.stops("first")
    hosts.go("next")
    hosts.ends("next")
    hosts.ends("first", well=False)
    hosts.assert_one_at_a_time()
