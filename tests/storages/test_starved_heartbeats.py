"""A step that holds Python's interpreter lock for longer than its lease: no heartbeat gets out."""

from __future__ import annotations

from pathlib import Path

from homes import Home, eventually, holders, limit, owners

DEFINITIONS = Path(__file__).with_name("starved.py")


def let_threads_run(home: Home) -> None:
    """End the call that holds the interpreter lock."""
    with home.control.joinpath("greedy.pipe").open("wb"):
        pass


def test_a_step_that_starves_its_own_heartbeat_is_ended_as_soon_as_threads_run(make_home, kind):
    home = make_home(kind, lease_seconds=3)
    limit(home)
    first = home.materialize("greedy", DEFINITIONS)
    home.started(asset="greedy")
    successor = home.materialize("second", DEFINITIONS)
    ((next_id, _),) = home.started(asset="second").items()
    assert first.popen.poll() is None
    let_threads_run(home)
    assert first.wait() != 0
    assert "was silent for longer than its lease" in first.output()
    with home.instance() as instance:
        assert holders(instance) == [(next_id, "second")]
    home.go("second")
    assert successor.wait() == 0, successor.output()


def test_a_run_worker_keeps_the_slot_of_a_step_that_starves_its_own_heartbeat(make_home, kind):
    """Where the step has a process of its own, two processes own its slot."""
    home = make_home(kind, lease_seconds=3)
    limit(home)
    first = home.materialize("greedy", DEFINITIONS, EXECUTOR="multiprocess")
    ((run_id, _),) = home.started(asset="greedy").items()
    with home.instance() as instance:
        eventually(lambda: len(owners(instance, run_id, "greedy")) == 1)
        assert holders(instance) == [(run_id, "greedy")]
        let_threads_run(home)
        eventually(lambda: len(owners(instance, run_id, "greedy")) == 2)
    home.go("greedy")
    assert first.wait() == 0, first.output()
