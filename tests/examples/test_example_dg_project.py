"""The example of a dg project, played by its README, with real dbt and dlt: ``make test-dg``."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.request
from collections import defaultdict
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from pages import ROOT, read_blocks, same
from preloaded import usual_signals

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

for module in ("dagster_dg_cli", "dagster_dbt", "dagster_dlt"):
    pytest.importorskip(module, reason="make test-dg installs it")

EXAMPLE = ROOT / "examples" / "dg_project"


class Shop:
    """A copy of the example, and a shell in its directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        shutil.copytree(EXAMPLE, directory, ignore=shutil.ignore_patterns("target", "logs"))
        self.environment = os.environ | {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            # Stands for the installation of the project, which would be one for all tests.
            "PYTHONPATH": os.pathsep.join([str(directory / "src"), str(ROOT / "src")]),
            "DAGSTER_DISABLE_TELEMETRY": "1",
            "DBT_SEND_ANONYMOUS_USAGE_STATS": "false",
            "DLT_DATA_DIR": str(directory / "dlt"),
            "RUNTIME__DLTHUB_TELEMETRY": "false",
            "COLUMNS": "80",
            "NO_COLOR": "1",
        }

    def follow_readme(self) -> None:
        for block in read_blocks(self.directory / "README.md"):
            assert block.language == "console"
            for command, shown in block.commands():
                word, _, rest = command.partition(" ")
                if word == "export":
                    name, _, value = rest.partition("=")
                    self.environment[name] = value.replace("$PWD", str(self.directory))
                elif word != "pip":  # the environment of this test has it all
                    printed = self.run(command)
                    assert not shown or same(shown, printed), printed

    def run(self, command: str) -> str:
        done = subprocess.run(
            command.split(),
            cwd=self.directory,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def granted(self) -> list[set[str]]:
        """The pools that each run was granted, in the order of the runs."""
        database = self.directory / "dagster_home" / "history" / "runs" / "index.db"
        pools: defaultdict[str, set[str]] = defaultdict(set)
        with sqlite3.connect(database) as connection:
            for run, pool in connection.execute(
                "SELECT run_id, pool FROM lifeguard_ledger WHERE kind = 'granted' ORDER BY entry"
            ):
                pools[run].add(pool)
        return list(pools.values())


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    shop = Shop(tmp_path_factory.mktemp("example") / "shop")
    shop.follow_readme()
    return shop


def test_a_run_of_a_single_dbt_model_asks_for_its_pools_alone(shop: Shop) -> None:
    assert shop.granted() == [
        {"shop_api"},
        {"stg_customers", "stg_orders", "staging"},
        {"revenue", "finance"},
    ]


def test_dagsters_pages_show_the_pool_of_each_asset(shop: Shop) -> None:
    with dg_dev(shop) as ask:
        nodes = ask("{assetNodes {assetKey {path} isExecutable pools}}")["assetNodes"]
    pools = {"/".join(node["assetKey"]["path"]): node["pools"] for node in nodes}
    executable = {"/".join(n["assetKey"]["path"]) for n in nodes if n["isExecutable"]}
    assert {asset for asset in executable if not pools[asset]} == set()
    assert len(executable) == 9
    assert pools["board_report"] == ["board_report"]
    assert pools["raw/orders"] == ["shop_api"]
    (of_dbt,) = pools["revenue"]
    assert "{of:revenue}finance" in of_dbt
    assert pools["stg_orders"] == [of_dbt]


@contextmanager
def dg_dev(shop: Shop) -> Iterator[Callable[[str], Any]]:
    """Start Dagster's webserver, daemon and code server, as a user does, and ask its GraphQL."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    log = shop.directory / "dev.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            ["dg", "dev", "--port", str(port)],
            cwd=shop.directory,
            env=shop.environment,
            stdout=output,
            stderr=output,
            start_new_session=True,
            preexec_fn=usual_signals,  # noqa: PLW1509
        )

    def ask(query: str) -> Any:
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/graphql",
            data=json.dumps({"query": query}).encode(),
            headers={"content-type": "application/json"},
        )
        with urllib.request.urlopen(request) as answer:
            return json.load(answer)["data"]

    try:
        while True:
            assert process.poll() is None, log.read_text()
            try:
                ask("{version}")
                break
            except OSError:
                time.sleep(0.5)
        yield ask
    finally:
        os.killpg(process.pid, signal.SIGINT)  # as Ctrl-C does
        process.wait()
