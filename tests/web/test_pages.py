"""Pages and their JSON over a real instance, as the command serves them."""

from __future__ import annotations

import re

import httpx
import pytest
from homes import Home, eventually, free_port, limit

PORT_LINE = re.compile(r"on (http://\S+?)/")


@pytest.fixture(params=["stock", "engine"])
def home(request, make_home) -> Home:
    home = make_home("sqlite", stock=request.param == "stock")
    limit(home)
    return home


def started(home: Home, *options: str, **environment: str) -> str:
    """The address of ``lifeguard serve``, once it answers."""
    process = home.start("lifeguard", "serve", "--port", "0", *options, **environment)

    def up() -> str | None:
        assert process.popen.poll() is None, process.output()
        found = PORT_LINE.search(process.output())
        try:
            well = found and httpx.get(f"{found[1]}/healthz").status_code == 200
        except httpx.TransportError:
            return None
        return found[1] if well and found else None

    return eventually(up)


def test_the_overview_and_its_json_tell_the_same(home):
    url = started(home)
    page = httpx.get(f"{url}/")
    assert page.status_code == 200
    assert "orders" in page.text
    told = httpx.get(f"{url}/pools.json").json()
    assert [pool["pool"] for pool in told["overview"]["pools"]] == ["orders"]
    assert told["overview"]["engine"] == ("Lifeguard" in (home.path / "dagster.yaml").read_text())


def test_a_port_in_use_is_one_clear_line(home):
    port = free_port()
    started(home, "--port", str(port))
    process = home.start("lifeguard", "serve", "--port", str(port))
    assert process.wait() == 2
    assert f"Nobody can listen on 127.0.0.1, port {port}" in process.output()
