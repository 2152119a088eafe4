"""Servers for tests: the application in this process, over whatever deployment a test has."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

import httpx
from homes import eventually

from dagster_lifeguard.web.app import Serving, make_app
from dagster_lifeguard.web.security import Access
from dagster_lifeguard.web.serving import listen, make_server

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dagster_lifeguard.deployment.contract import Deployment

TOKEN = "a token of more than sixteen characters"


@contextmanager
def serving(
    deployment: Deployment,
    *,
    token: str | None = None,
    port: int = 0,
    names: tuple[str, ...] = (),
    **options,
) -> Iterator[str]:
    """The address of a server that has seen its deployment."""
    with listen("127.0.0.1", port) as listener:
        port = listener.getsockname()[1]
        access = Access.of("127.0.0.1", port, token, names)
        app = make_app(deployment, Serving(access, **options))
        server = make_server(app)
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        url = f"http://127.0.0.1:{port}"
        try:
            eventually(lambda: _answers(url))
            yield url
        finally:
            server.should_exit = True
            thread.join()


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/healthz").status_code in (200, 503)
    except httpx.TransportError:
        return False
