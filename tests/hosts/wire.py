"""A network in one process: hosts that are network namespaces, and the wire between them.

    python wire.py NAME...

Each host has a loopback and one TUN device with an address; this process carries each packet from
device to device, or loses it, or keeps it back, as it is told for each direction. So nothing but
TUN is asked of the kernel: no bridge, no packet filter, no module. The namespaces have no names and
are gone with the last process in them. When standard input ends, every process that is still on a
host is killed, so nothing is left whatever ended the test; but not on the first host, which is for
the test itself.

Prints one line of JSON, ``{"hosts": {NAME: {"address": ..., "namespace": path}}}`` or
``{"error": text}``. Then each line of standard input is a command, and answered by one line with
the number of packets that were lost so far in each direction, ``[[SOURCE, TARGET, COUNT], ...]``::

    {"source": NAME, "target": NAME, "lose": 0.0 to 1.0, "delay": seconds}

"""

from __future__ import annotations

import ctypes
import fcntl
import heapq
import itertools
import json
import os
import random
import select
import signal
import socket
import struct
import sys
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

_NEW_NETWORK = 0x40000000
_SET_TUN = 0x400454CA
_TUN_WITHOUT_HEADERS = 0x0001 | 0x1000
_SET_FLAGS, _SET_ADDRESS, _SET_NETMASK = 0x8914, 0x8916, 0x891C
_UP_AND_RUNNING = 0x1 | 0x40
_PACKET_MAX = 1 << 16


class Host:
    """A namespace of its own, with an address on the wire."""

    def __init__(self, number: int) -> None:
        self.address = f"10.77.0.{number}"
        _leave_network()
        self.namespace = os.open("/proc/self/ns/net", os.O_RDONLY)
        self.device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        fcntl.ioctl(self.device, _SET_TUN, struct.pack("16sH22x", b"wire", _TUN_WITHOUT_HEADERS))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
            _configure(control, b"wire", _SET_ADDRESS, _address(self.address))
            _configure(control, b"wire", _SET_NETMASK, _address("255.255.255.0"))
            for device in (b"wire", b"lo"):
                _configure(control, device, _SET_FLAGS, struct.pack("H22x", _UP_AND_RUNNING))


def _leave_network() -> None:
    """Go into a network namespace that is new and empty."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_NEW_NETWORK) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"unshare: {os.strerror(number)}")


def _configure(control: socket.socket, device: bytes, what: int, value: bytes) -> None:
    fcntl.ioctl(control, what, struct.pack("16s24s", device, value))


def _address(text: str) -> bytes:
    return struct.pack("HH4s16x", socket.AF_INET, 0, socket.inet_aton(text))


class Wire:
    """Carries packets between the devices of hosts."""

    def __init__(self, hosts: dict[str, Host]) -> None:
        self._names = {socket.inet_aton(host.address): name for name, host in hosts.items()}
        self._hosts = hosts
        self._lose: dict[tuple[str, str], float] = {}
        self._delay: dict[tuple[str, str], float] = {}
        self._kept: list[tuple[float, int, bytes, tuple[str, str]]] = []
        self._lost: Counter[tuple[str, str]] = Counter()
        self._numbers = itertools.count()
        self._random = random.Random(1)

    def carry(self) -> None:
        """Until standard input ends."""
        poll = select.poll()
        names = {host.device: name for name, host in self._hosts.items()}
        for descriptor in (*names, sys.stdin.fileno()):
            poll.register(descriptor, select.POLLIN)
        while True:
            for descriptor, _ in poll.poll(self._pause_ms()):
                if descriptor in names:
                    self._take(names[descriptor])
                elif not self._command():
                    return
            now = time.monotonic()
            while self._kept and self._kept[0][0] <= now:
                _, _, packet, direction = heapq.heappop(self._kept)
                self._deliver(packet, direction)

    def _pause_ms(self) -> float | None:
        return max(0.0, self._kept[0][0] - time.monotonic()) * 1000 + 1 if self._kept else None

    def _take(self, source: str) -> None:
        while True:
            try:
                packet = os.read(self._hosts[source].device, _PACKET_MAX)
            except BlockingIOError:
                return
            target = self._names.get(packet[16:20]) if packet[0] >> 4 == 4 else None
            if target is None:
                continue  # A broadcast, or IPv6.
            direction = source, target
            delay = self._delay.get(direction, 0.0)
            if delay:
                due = time.monotonic() + delay
                heapq.heappush(self._kept, (due, next(self._numbers), packet, direction))
            else:
                self._deliver(packet, direction)

    def _deliver(self, packet: bytes, direction: tuple[str, str]) -> None:
        if self._random.random() < self._lose.get(direction, 0.0):
            self._lost[direction] += 1
            return
        try:
            os.write(self._hosts[direction[1]].device, packet)
        except BlockingIOError:
            self._lost[direction] += 1

    def _command(self) -> bool:
        line = sys.stdin.readline()
        if not line:
            return False
        command = json.loads(line)
        if command:
            direction = command["source"], command["target"]
            self._lose[direction], self._delay[direction] = command["lose"], command["delay"]
        _say([[*direction, count] for direction, count in self._lost.items()])
        return True


def _end_all(hosts: list[Host]) -> None:
    """Kill every process but this one that is on one of the hosts."""
    namespaces = {os.fstat(host.namespace).st_ino for host in hosts}
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            is_there = (process / "ns" / "net").stat().st_ino in namespaces
            if is_there and int(process.name) != os.getpid():
                os.kill(int(process.name), signal.SIGKILL)


def _say(what: object) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


def main() -> None:
    try:
        hosts = {name: Host(number) for number, name in enumerate(sys.argv[1:], 1)}
    except (OSError, AttributeError) as error:  # Forbidden, no TUN, or not Linux.
        _say({"error": str(error)})
        return
    descriptors = f"/proc/{os.getpid()}/fd"
    _say(
        {
            "hosts": {
                name: {"address": host.address, "namespace": f"{descriptors}/{host.namespace}"}
                for name, host in hosts.items()
            }
        }
    )
    try:
        Wire(hosts).carry()
    finally:
        _end_all(list(hosts.values())[1:])


if __name__ == "__main__":
    main()
