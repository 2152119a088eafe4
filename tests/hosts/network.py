"""Hosts of a test's own, and what is done to the links between them."""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing_extensions import Self

_NETWORK = 0x40000000


class NoNetworkError(Exception):
    """This machine does not let a test make a network."""


class Host:
    """A host; in a ``with`` block the calling thread, and what it starts, is on it.

    Attributes:
        name: Its name.
        address: Its IPv4 address, which exists in this network alone.
    """

    def __init__(self, name: str, address: str, namespace: str) -> None:
        self.name = name
        self.address = address
        self._namespace = os.open(namespace, os.O_RDONLY)
        self._left: list[int] = []

    def __enter__(self) -> Self:
        self._left.append(os.open("/proc/thread-self/ns/net", os.O_RDONLY))
        _enter(self._namespace)
        return self

    def __exit__(self, *error: object) -> None:
        left = self._left.pop()
        _enter(left)
        os.close(left)

    def close(self) -> None:
        os.close(self._namespace)


def _enter(namespace: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(namespace, _NETWORK) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"setns: {os.strerror(number)}")


class Network:
    """Some hosts on one wire.

    Args:
        names: Of the hosts. The first is for the test itself: what it starts there it has to end.

    Raises:
        NoNetworkError: This machine does not let a test make one.
    """

    def __init__(self, *names: str) -> None:
        self._wire = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("wire.py")), *names],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # It outlives an interrupted test for as long as it has to.
        )
        assert self._wire.stdout is not None
        begun = json.loads(self._wire.stdout.readline())
        if "error" in begun:
            self.close()
            raise NoNetworkError(begun["error"])
        self.hosts = {name: Host(name, **found) for name, found in begun["hosts"].items()}

    def __getitem__(self, name: str) -> Host:
        return self.hosts[name]

    def degrade(self, source: str, target: str, *, lose: float = 0.0, delay: float = 0.0) -> None:
        """Say what becomes of packets in one direction; in force when this returns.

        Args:
            source: The host that sends them.
            target: The host that they are for.
            lose: The share of them that is lost.
            delay: How many seconds later each arrives.
        """
        self._tell({"source": source, "target": target, "lose": lose, "delay": delay})

    def cut(self, one: str, other: str) -> None:
        """Lose all packets between two hosts, in both directions and without a word."""
        self.degrade(one, other, lose=1.0)
        self.degrade(other, one, lose=1.0)

    def slow_down(self, one: str, other: str, seconds: float) -> None:
        """Delay all packets between two hosts by so much in each direction."""
        self.degrade(one, other, delay=seconds)
        self.degrade(other, one, delay=seconds)

    def mend(self) -> None:
        """Let everything pass at once, between all hosts."""
        for source in self.hosts:
            for target in self.hosts:
                self.degrade(source, target)

    def lost(self, source: str, target: str) -> int:
        """How many packets were lost in one direction so far."""
        counts = {(one, other): count for one, other, count in self._tell({})}
        return counts.get((source, target), 0)

    def _tell(self, command: dict[str, object]) -> list[tuple[str, str, int]]:
        assert self._wire.stdin is not None
        assert self._wire.stdout is not None
        self._wire.stdin.write(json.dumps(command) + "\n")
        self._wire.stdin.flush()
        return json.loads(self._wire.stdout.readline())

    def close(self) -> None:
        for host in getattr(self, "hosts", {}).values():
            host.close()
        self._wire.communicate()
