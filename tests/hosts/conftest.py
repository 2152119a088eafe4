from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
import scale
from database import HostServer
from deployment_on_hosts import Deployment
from marks import Marks
from network import Network, NoNetworkError
from preloaded import preloaded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

collect_ignore = [] if scale.TIMES > 1 else ["test_long_outages.py"]

HOSTS = ("desk", "db", "one", "two", "three")


@pytest.fixture
def network() -> Iterator[Network]:
    """Hosts on one wire. The test itself is on the host ``desk``, whose links are left alone."""
    preloaded(os.getpid())  # What forks the workers is on no host, whose processes end with it.
    try:
        network = Network(*HOSTS)
    except NoNetworkError as error:
        pytest.skip(f"This machine does not let a test make a network of its own: {error}.")
    try:
        with network["desk"]:
            yield network
    finally:
        network.close()


@pytest.fixture
def deploy(network, make_home, tmp_path) -> Iterator[Callable[..., Deployment]]:
    """Makes the deployment: a server on ``db``, one pool of limit 1, no workers yet."""
    servers = []

    def make(lease_seconds: float, **settings) -> Deployment:
        servers.append(HostServer(network["db"]))
        home = make_home("postgres", server=servers[0].url, lease_seconds=lease_seconds, **settings)
        return Deployment(network, servers[0], home, Marks(tmp_path / "marks"))

    yield make
    for server in servers:
        server.delete()
