"""A server in this process, until a signal ends it."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import uvicorn

from dagster_lifeguard.errors import ConfigError
from dagster_lifeguard.web.connections import PromptProtocol, find_cut_off

if TYPE_CHECKING:
    from starlette.applications import Starlette

_BACKLOG = 128
_LAST_SECONDS = 2
"""How long the ending server waits for open pages; they come back to the next server."""


def listen(host: str, port: int) -> socket.socket:
    """Listen on an address; port 0 takes a free port.

    Raises:
        ConfigError: That is not possible.
    """
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            find_cut_off(listener)
            listener.bind(address)
            listener.listen(_BACKLOG)
        except BaseException:
            listener.close()
            raise
    except OSError as error:
        raise ConfigError(
            f"Cannot listen on {host}:{port}: {error.strerror}.",
            remedy="Give a port that is free with --port, and an address of this machine with "
            "--host.",
            names=[host],
        ) from error
    return listener


def make_server(app: Starlette) -> uvicorn.Server:
    """A server for an application; ``run([listener])`` serves until SIGINT or SIGTERM."""
    return uvicorn.Server(
        uvicorn.Config(
            app,
            http=PromptProtocol,
            access_log=False,  # addresses hold names that people chose
            log_config=None,
            server_header=False,
            timeout_graceful_shutdown=_LAST_SECONDS,
            ws="none",
        )
    )
