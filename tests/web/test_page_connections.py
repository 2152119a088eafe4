"""Connections of which nothing comes any more are closed; those that are in use stay."""

from __future__ import annotations

import socket
from urllib.parse import urlsplit

import httpx
import pytest
from told import Told, pool
from web_server import serving

from dagster_lifeguard.web import connections


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(connections, "SECONDS", 0.5)
    told = Told(states=[pool("orders", 1)])
    with serving(told) as url:
        yield told, url


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"GET / HT",
        b"GET / HTTP/1.1\r\nHost: localhost\r\n",
        b"POST /login HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\ntok",
        b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\nGET /hea",
    ],
)
def test_a_request_that_is_never_whole_is_not_waited_for(server, sent):
    parts = urlsplit(server[1])
    with socket.create_connection((parts.hostname, parts.port)) as client:
        client.sendall(sent)
        while client.recv(4096):
            pass  # Answers to what was whole; then the server hangs up.


def test_a_page_stays_open_for_longer(server):
    told, url = server
    with httpx.stream("GET", f"{url}/live?page=/", timeout=60) as open_page:
        lines = open_page.iter_lines()
        with httpx.Client(base_url=url) as idle:
            for number in range(4):
                told.states = [*told.states, pool(f"news{number}", 1)]
                while f"news{number}" not in next(lines):
                    pass
                assert idle.get("/healthz").status_code == 200


def test_a_peer_that_is_cut_off_is_looked_for(server):
    """What the system does then is its own; it is told to, for each connection."""
    listener = socket.socket()
    connections.find_cut_off(listener)
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    with listener, socket.create_connection(listener.getsockname()):
        accepted, _ = listener.accept()
        with accepted:
            assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            timeout = accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)
            assert timeout == connections.SECONDS * 1000
            probes = [
                accepted.getsockopt(socket.IPPROTO_TCP, getattr(socket, name))
                for name in ("TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT")
            ]
            assert probes[0] + probes[1] * probes[2] == 10
