"""Programs that Debian has and tests need."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

_PATH = f"{os.environ.get('PATH', '')}:/usr/sbin"


def program(name: str, package: str) -> str:
    """The path of a program; installed as root where it is missing, else the test is skipped."""
    found = find_program(name, package)
    if found is None:
        pytest.skip(f"{name} is missing. Install it: apt-get install {package}")
    return found


def find_program(name: str, package: str) -> str | None:
    """The path of a program, installed where it is missing and that is allowed, else nothing.

    Raises:
        subprocess.CalledProcessError: It could not be installed.
    """
    found = shutil.which(name, path=_PATH)
    if found is None and os.geteuid() == 0 and shutil.which("apt-get") is not None:
        with _one_at_a_time():
            if shutil.which(name, path=_PATH) is None:
                _install(package)
        found = shutil.which(name, path=_PATH)
    return found


def _install(package: str) -> None:
    subprocess.run(["apt-get", "update", "-qq"], check=True)
    install = ["apt-get", "install", "-y", "-qq", "--no-install-recommends"]
    subprocess.run([*install, "-o", "DPkg::Lock::Timeout=300", package], check=True)


@contextmanager
def _one_at_a_time() -> Iterator[None]:
    """Let one worker of the tests install: ``apt-get update`` does not wait for another."""
    path = Path(tempfile.gettempdir()) / "lifeguard-tests-install.lock"
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
