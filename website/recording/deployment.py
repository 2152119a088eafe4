"""A deployment that is busy while it is recorded: a home, runs in processes, and the page."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.request import urlopen

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

SHOP = Path(__file__).with_name("shop")
RUNNERS = 7
_DAGSTER_YAML = """\
telemetry: {enabled: false}
concurrency:
  pools: {default_limit: 1}
"""


@dataclass(frozen=True)
class Busy:
    """A home in which runs execute.

    Attributes:
        environment: With ``DAGSTER_HOME``, and with our command on the path.
        scratch: A directory that is removed with the home.
    """

    environment: Mapping[str, str]
    scratch: Path


@contextmanager
def busy() -> Iterator[Busy]:
    """Make a home on the engine, set its limits, and execute runs in it until the block ends."""
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="recorded-")))
        home = scratch / "dagster_home"
        home.mkdir()
        home.joinpath("dagster.yaml").write_text(_DAGSTER_YAML, encoding="utf-8")
        environment = with_command({**os.environ, "DAGSTER_HOME": str(home)})
        for command in (("engine", "enable", "--yes"), ("apply", "--yes")):
            subprocess.run(
                ("lifeguard", *command),
                check=True,
                cwd=SHOP,
                env=environment,
                stdout=subprocess.DEVNULL,
            )
        for number in range(RUNNERS):
            stack.enter_context(
                _process((sys.executable, "runs.py", str(number)), SHOP, environment, scratch)
            )
        yield Busy(environment, scratch)


@contextmanager
def served(deployment: Busy) -> Iterator[str]:
    """Serve the page of a deployment, and yield its address."""
    log = deployment.scratch / "serve.log"
    words = ("lifeguard", "serve", "--port", "0", "--allow-changes")
    with _process(words, SHOP, deployment.environment, deployment.scratch, log) as process:
        while True:
            assert process.poll() is None, log.read_text(encoding="utf-8")
            found = re.search(r"on (http://\S+)/", log.read_text(encoding="utf-8"))
            if found and _is_healthy(found[1]):
                break
            time.sleep(0.2)
        yield found[1]


def with_command(environment: Mapping[str, str]) -> dict[str, str]:
    """Return an environment in which ``lifeguard`` is the command of this Python."""
    folder = str(Path(sys.executable).parent)
    return {**environment, "PATH": f"{folder}{os.pathsep}{environment.get('PATH', '')}"}


@contextmanager
def _process(
    words: tuple[str, ...],
    within: Path,
    environment: Mapping[str, str],
    scratch: Path,
    log: Path | None = None,
) -> Iterator[subprocess.Popen[bytes]]:
    with (log or scratch / f"{words[-1]}.log").open("wb") as output:
        process = subprocess.Popen(
            words, cwd=within, env=dict(environment), stdout=output, stderr=subprocess.STDOUT
        )
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _is_healthy(address: str) -> bool:
    try:
        with urlopen(f"{address}/healthz") as answer:  # noqa: S310
            return bool(answer.status == 200)  # noqa: PLR2004
    except OSError:
        return False
