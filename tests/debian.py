"""Programs that Debian has and tests need."""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest


def program(name: str, package: str) -> str:
    """The path of a program; installed as root where it is missing, else the test is skipped."""
    found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if found is None and os.geteuid() == 0 and shutil.which("apt-get") is not None:
        subprocess.run(["apt-get", "update", "-qq"], check=True)
        install = ["apt-get", "install", "-y", "-qq", "--no-install-recommends"]
        subprocess.run([*install, "-o", "DPkg::Lock::Timeout=300", package], check=True)
        found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if found is None:
        pytest.skip(f"{name} is missing. Install it: apt-get install {package}")
    return found
