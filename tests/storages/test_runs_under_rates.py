"""Real runs under a rate: they start so far apart, whichever executor asks."""

from __future__ import annotations

from itertools import pairwise

import pytest
from homes import limit

from dagster_lifeguard.errors import ConfigError
from dagster_lifeguard.rate import Rate


def test_runs_at_once_start_no_closer_than_the_rate(make_home, kind):
    home = make_home(kind)
    limit(home, 10)
    with home.instance() as instance:
        instance.event_log_storage.set_rate("orders", Rate(1, 1))
    executors = ("in_process", "multiprocess", "step_delegating")
    processes = [home.materialize("quick", EXECUTOR=executor) for executor in executors]
    for process in processes:
        assert process.wait(240) == 0, process.output()
    with home.instance() as instance:
        ledger = instance.event_log_storage.lifeguard.engine.store.ledger(pool="orders")
        starts = sorted(entry.at for entry in ledger if entry.kind.value == "granted")
        assert len(starts) == len(executors)
        assert all(later - earlier >= 1 - 1e-6 for earlier, later in pairwise(starts))


def test_an_expression_has_no_rate_of_its_own(make_home, kind):
    with (
        make_home(kind).instance() as instance,
        pytest.raises(ConfigError, match=r"'a\+b' is a pool expression"),
    ):
        instance.event_log_storage.set_rate("a+b", Rate(1, 1))
