"""Workers on three hosts that take turns while whatever can happen to a network happens."""

from __future__ import annotations

import os
import random

import pytest
from scale import TIMES
from turns import NAMES, begin_turns, end_turns, wait_for_turns

FAULTS = 4


@pytest.mark.parametrize("number", range(TIMES))
def test_hosts_take_turns_whatever_happens_to_the_network(deploy, number):
    seed = int(os.environ.get("LIFEGUARD_SEED") or random.SystemRandom().randrange(10**6))
    print(f"LIFEGUARD_SEED={seed}")  # noqa: T201 - shown where it fails
    chance = random.Random(seed)
    hosts = deploy(3.0)
    begin_turns(hosts)
    well = set(NAMES)
    for _ in range(FAULTS):
        fault = chance.choice([_cut, _lose_questions, _lose_answers, _lose_many, _slow, _kill])
        # At least one host is left alone.
        struck = chance.sample(sorted(well), chance.randrange(1, len(well)))
        print(fault.__name__, struck)  # noqa: T201
        for host in struck:
            fault(hosts, host)
        well -= set(struck)
        wait_for_turns(hosts, well)
        if len(well) == 1 or chance.random() < 0.5:  # Else it lasts beside the next.
            hosts.network.mend()
            well = set(NAMES)
            wait_for_turns(hosts)

    hosts.network.mend()
    wait_for_turns(hosts)
    end_turns(hosts)
    hosts.assert_one_at_a_time()


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
    hosts.network.slow_down(host, "db", 0.2)


def _kill(hosts, host: str) -> None:
    hosts.server.kill()
    hosts.server.start()
