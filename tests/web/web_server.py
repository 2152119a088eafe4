"""Servers for tests: the application in this process over any deployment, or as a process."""

from __future__ import annotations

import re
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

    from homes import Home, Process

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


def start_serving(home: Home, *options: str, **environment: str) -> tuple[Process, str]:
    """Start `lifeguard serve`; its process, and its address once it has seen its deployment."""
    process = home.start("lifeguard", "serve", "--port", "0", *options, **environment)

    def address() -> str | None:
        assert process.popen.poll() is None, process.output()
        found = re.search(r"on (http://\S+)/", process.output())
        return found[1] if found and _answers(found[1], (200,)) else None

    return process, eventually(address)


def _answers(url: str, statuses: tuple[int, ...] = (200, 503)) -> bool:
    try:
        return httpx.get(f"{url}/healthz").status_code in statuses
    except httpx.TransportError:
        return False
