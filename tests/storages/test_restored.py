"""A database that comes back as of an earlier moment: what is lost, and what the fences say then."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from homes import eventually

from dagster_lifeguard import LifeguardClient
from places import PostgresPlace
from servers import own_server

PAGE = Path(__file__).parents[2] / "docs" / "operating" / "backups.md"
HOLDER = """
import sys, time
from dagster_lifeguard import LifeguardClient
with LifeguardClient.from_url(sys.argv[1], "holder", default_limit=1) as client:
    with client.slots("orders") as held:
        print(held.fence, flush=True)
        while True:
            time.sleep(0.1)
"""


@pytest.fixture
def server():
    with own_server() as server:
        yield server


def taken(url: str) -> int:
    """Take the slot as another process would, and give it back; its fence."""
    client = LifeguardClient.from_url(url, default_limit=1)
    with client, client.slots("orders", timeout=120) as held:
        return held.fence


def test_grants_since_the_backup_are_lost_and_their_holders_are_ended(server, tmp_path):
    assert taken(server.url) == 1
    backup = server.backed_up()
    log = tmp_path / "holder.log"
    with log.open("wb") as output:
        holder = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", HOLDER, server.url],
            stdout=subprocess.PIPE, stderr=output, text=True,
        )  # fmt: skip
    try:
        fence = int(holder.stdout.readline())
        assert fence == 2
        server.lose_all_since(backup)

        # The database knows of no holder, so another one goes in, and gets the same number.
        assert taken(server.url) == fence
        # The one that lost its slot learns it with its next heartbeat.
        assert eventually(lambda: holder.poll() is not None)
        assert "It is terminated." in log.read_text()
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()

    # What the page says to do before anything starts.
    (statement,) = re.findall(r"^(UPDATE lifeguard_pools .*);$", PAGE.read_text(), re.MULTILINE)
    PostgresPlace(server.url).sql(statement)
    assert taken(server.url) > 1_000_000
