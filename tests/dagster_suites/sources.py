"""Fetches the source distributions of the installed Dagster, which hold its tests."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import tempfile
from importlib.metadata import version
from pathlib import Path

PACKAGES = ("dagster", "dagster-postgres", "dagster-graphql")


def installed() -> dict[str, str]:
    """The packages whose tests are run, with the versions that this environment has."""
    return {package: version(package) for package in PACKAGES}


def tests_of(versions: dict[str, str], cache: Path) -> Path:
    """A folder with the packages of tests, fetched and unpacked once."""
    folder = cache / "-".join(["tests", *versions.values()])
    if folder.exists():
        return folder
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as made:
        downloads, tests = Path(made) / "downloads", Path(made) / "tests"
        tests.mkdir()
        _download(versions, downloads)
        for archive in downloads.iterdir():
            _unpack(archive, tests)
        for package in versions:
            if not (tests / _tests_package(package)).is_dir():
                sys.exit(
                    f"The source distribution of {package} comes without tests; update Dagster."
                )
        tests.rename(folder)
    return folder


def _download(versions: dict[str, str], folder: Path) -> None:
    # pip asks a source distribution for its metadata, in an environment that it makes for that.
    command = [sys.executable, "-m", "pip", "download", "--disable-pip-version-check", "--quiet"]
    exactly = [f"{package}=={number}" for package, number in versions.items()]
    subprocess.run(
        [*command, "--no-deps", "--no-binary", ",".join(versions), "--dest", str(folder), *exactly],
        check=True,
    )


def _unpack(archive: Path, folder: Path) -> None:
    """Only the tests: Dagster itself is what is installed."""
    with tarfile.open(archive) as opened:
        for member in opened.getmembers():
            path = member.name.partition("/")[2]
            if path.partition("/")[0] in {_tests_package(package) for package in PACKAGES}:
                member.name = path
                opened.extract(member, folder, filter="data")


def _tests_package(package: str) -> str:
    return f"{package.replace('-', '_')}_tests"
