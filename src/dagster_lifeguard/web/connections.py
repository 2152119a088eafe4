"""Silent connections, which are closed after a while.

Each open connection takes memory and a file. A server that waits for all of them can be filled up
by clients that send no request, or that were cut off.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

if TYPE_CHECKING:
    import asyncio

SECONDS = 10
"""The longest time for a request to arrive, and to find a client that is cut off."""

_PROBE_AFTER, _PROBE_EVERY, _PROBES = 4, 2, 3


def find_cut_off(listener: socket.socket) -> None:
    """Let the system close connections whose client is gone; accepted connections inherit this."""
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    options = {
        "TCP_KEEPIDLE": _PROBE_AFTER,
        "TCP_KEEPINTVL": _PROBE_EVERY,
        "TCP_KEEPCNT": _PROBES,
        "TCP_USER_TIMEOUT": int(SECONDS * 1000),
    }
    for name, value in options.items():
        if hasattr(socket, name):  # Not every system knows each.
            listener.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


class PromptProtocol(H11Protocol):
    """HTTP with a bound on how long a request may take to arrive."""

    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._bound()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._bound()

    def connection_lost(self, exc: Exception | None) -> None:
        self._unbound()
        super().connection_lost(exc)

    def _bound(self) -> None:
        """Start the clock for a request that is not complete; stop it for a complete one."""
        if self.conn.their_state not in (h11.IDLE, h11.SEND_BODY):
            self._unbound()
        elif self._deadline is None:
            self._deadline = self.loop.call_later(SECONDS, self.transport.close)

    def _unbound(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
