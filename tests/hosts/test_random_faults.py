"""Workers on three hosts that take turns while whatever can happen to a network happens."""

from __future__ import annotations

import os
import random
from functools import partial

import pytest
from homes import eventually
from scale import TIMES, some

NAMES = {"one": "first", "two": "next", "three": "third"}
FAULTS = 4
TURNS = 3
"""How often the others get the slot while a fault lasts, and everybody after the last."""


@pytest.mark.parametrize("number", range(TIMES))
def test_hosts_take_turns_whatever_happens_to_the_network(deploy, number):
    seed = int(os.environ.get("LIFEGUARD_SEED") or random.SystemRandom().randrange(10**6))
    print(f"LIFEGUARD_SEED={seed}")  # noqa: T201 - shown where it fails
    chance = random.Random(seed)
    hosts = deploy(3.0)
    for host, name in NAMES.items():
        hosts.script(host, "turns", name)
    _wait_for_turns(hosts, NAMES.values())

    well = set(NAMES)
    for _ in range(FAULTS):
        fault = chance.choice([_cut, _lose_questions, _lose_answers, _lose_many, _slow, _kill])
        # At least one host is left alone.
        struck = chance.sample(sorted(well), chance.randrange(1, len(well)))
        print(fault.__name__, struck)  # noqa: T201
        for host in struck:
            fault(hosts, host)
        well -= set(struck)
        _wait_for_turns(hosts, [NAMES[host] for host in well])
        if len(well) == 1 or chance.random() < 0.5:  # Else it lasts beside the next.
            hosts.network.mend()
            well = set(NAMES)
            _wait_for_turns(hosts, NAMES.values())

    hosts.network.mend()
    _wait_for_turns(hosts, NAMES.values())
    hosts.home.go("turns")
    for name in NAMES.values():
        hosts.ends(name)
    hosts.assert_one_at_a_time()


@pytest.mark.parametrize("delay", some([], 2.0, 5.0))
def test_a_host_on_a_slow_link_lets_the_others_take_turns(deploy, delay):
    """While it asks for the slot, it has the pool's lock for as long as its answers take."""
    hosts = deploy(30.0)
    for host, name in NAMES.items():
        hosts.script(host, "turns", name)
    _wait_for_turns(hosts, NAMES.values())

    hosts.network.degrade("one", "db", delay=delay)
    hosts.network.degrade("db", "one", delay=delay)

    _wait_for_turns(hosts, ["next", "third"])
    hosts.network.mend()
    _wait_for_turns(hosts, NAMES.values())
    hosts.home.go("turns")
    for name in NAMES.values():
        hosts.ends(name)
    hosts.assert_one_at_a_time()


def _wait_for_turns(hosts, names) -> None:
    """Wait until each of these had more turns."""
    before = {name: _turns(hosts, name) for name in names}
    for name, turns in before.items():
        eventually(partial(lambda name, least: _turns(hosts, name) >= least, name, turns + TURNS))


def _turns(hosts, name: str) -> int:
    hosts.watch(name)
    return sum(e.how == "end" for e in hosts.marks.executions(name))


def _cut(hosts, host: str) -> None:
    hosts.network.cut(host, "db")


def _lose_questions(hosts, host: str) -> None:
    hosts.network.degrade(host, "db", lose=1.0)


def _lose_answers(hosts, host: str) -> None:
    hosts.network.degrade("db", host, lose=1.0)


def _lose_many(hosts, host: str) -> None:
    hosts.network.degrade(host, "db", lose=0.3)
    hosts.network.degrade("db", host, lose=0.3)


def _slow(hosts, host: str) -> None:
    hosts.network.degrade(host, "db", delay=0.2)
    hosts.network.degrade("db", host, delay=0.2)


def _kill(hosts, host: str) -> None:
    hosts.server.kill()
    hosts.server.start()
