"""Scripts on three hosts that hold the slot in turns, for a moment each, until a test ends it."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from homes import eventually

if TYPE_CHECKING:
    from collections.abc import Iterable

    from deployment_on_hosts import Deployment

NAMES = {"one": "first", "two": "next", "three": "third"}
"""The scripts, by host."""

TURNS = 3
"""How many more turns are waited for."""


def begin_turns(hosts: Deployment) -> None:
    for host, name in NAMES.items():
        hosts.script(host, "turns", name)
    wait_for_turns(hosts)


def wait_for_turns(hosts: Deployment, on: Iterable[str] = tuple(NAMES)) -> None:
    """Wait until the script on each of these hosts had more turns."""
    before = {host: _turns(hosts, host) for host in on}
    for host, turns in before.items():
        eventually(partial(lambda host, least: _turns(hosts, host) >= least, host, turns + TURNS))


def end_turns(hosts: Deployment) -> None:
    hosts.go("turns")
    for name in NAMES.values():
        hosts.ends(name)


def _turns(hosts: Deployment, host: str) -> int:
    hosts.watch(NAMES[host])
    return sum(e.how == "end" for e in hosts.marks.executions(NAMES[host]))
