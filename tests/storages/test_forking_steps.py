"""Steps whose code forks, and step processes of every start method that Dagster has."""

from __future__ import annotations

from pathlib import Path

import pytest
from homes import limit

DEFINITIONS = Path(__file__).with_name("forking.py")


@pytest.mark.parametrize("start_method", [None, "spawn", "forkserver"])
def test_children_that_a_step_forks_share_the_limits_of_all(make_home, kind, start_method):
    home = make_home(kind, lease_seconds=60)
    for pool in ("api", "orders", "outer"):
        limit(home, pool=pool)
    environment = {} if start_method is None else {"START_METHOD": start_method}
    run = home.materialize("forking", DEFINITIONS, **environment)
    assert run.wait() == 0, run.output()
    fences = [int(path.read_text()) for path in home.control.glob("child*")]
    assert len(set(fences)) == len(fences) == 20
    with home.instance() as instance:
        engine = instance.event_log_storage.lifeguard.engine
        # All gave theirs back, and what the children committed is there.
        assert engine.busy_pools() == ()
        kinds = [e.kind for e in engine.store.ledger(pool="api", count_max=1000)]
        assert (kinds.count("granted"), kinds.count("released")) == (20, 20)


def test_a_child_that_leaves_its_parents_block_gives_nothing_back(make_home, kind):
    home = make_home(kind, lease_seconds=60)
    limit(home, pool="api")
    run = home.materialize("leaving", DEFINITIONS)
    assert run.wait() == 0, run.output()
