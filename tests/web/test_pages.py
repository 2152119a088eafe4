"""Pages and their JSON over a real instance, as the command serves them."""

from __future__ import annotations

import httpx
import pytest
from homes import Home, free_port, limit
from told import Told, holds, pool, waits
from web_server import serving, start_serving


@pytest.fixture(params=["stock", "engine"])
def home(request, make_home) -> Home:
    home = make_home("sqlite", stock=request.param == "stock")
    limit(home)
    return home


def test_the_overview_and_its_json_tell_the_same(home):
    _, url = start_serving(home)
    page = httpx.get(f"{url}/")
    assert page.status_code == 200
    assert "orders" in page.text
    told = httpx.get(f"{url}/pools.json").json()
    assert [pool["pool"] for pool in told["overview"]["pools"]] == ["orders"]
    assert told["overview"]["engine"] == ("Lifeguard" in (home.path / "dagster.yaml").read_text())


def test_a_port_in_use_is_one_clear_line(home):
    port = free_port()
    start_serving(home, "--port", str(port))
    process = home.start("lifeguard", "serve", "--port", str(port))
    assert process.wait() == 2
    assert f"Nobody can listen on 127.0.0.1, port {port}" in process.output()


def test_a_page_stays_small_however_many_pools_there_are():
    def bytes_of(count: int) -> int:
        states = [pool(f"pool{n:05}", 2, [holds(f"r{n}")], [waits("w")]) for n in range(count)]
        with serving(Told(states=states)) as url:
            page = httpx.get(url, timeout=60)
            assert page.text.count("<tr id=") == 50
            return len(page.content)

    assert bytes_of(5000) < 1.1 * bytes_of(50)
