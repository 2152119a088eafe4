"""Build the documentation as a static site: ``python -m website.build [--version 0.2.0]``.

The site needs no server and fetches nothing from elsewhere. The build fails if a page is missing
from the navigation, if a link or an anchor leads nowhere, or if a page would fetch something from
elsewhere.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import tomli

from website import checking, versions
from website.staging import DOCS, OWN, ROOT, Staging, StagingError, place_of

HERE = ROOT / "website"


class BuildError(Exception):
    """The site was not built, or has the problems that the message lists."""


def build(version: str, into: Path, scratch: Path) -> Path:
    """Build one version into ``into/version``, list all versions there, and return its directory.

    Args:
        version: The number of a release, or ``dev``.
        into: The directory of all versions. Other versions in it stay as they are.
        scratch: A directory for what lies between; what is in it is lost.

    Raises:
        BuildError: A page is not in the navigation, a link is broken, or Zensical failed.
    """
    staging = Staging(scratch / "pages")
    try:
        staging.make()
    except StagingError as error:
        raise BuildError(str(error)) from error
    missing = not_in_navigation()
    if missing:
        raise BuildError(f"website/zensical.toml: not in nav: {', '.join(missing)}")
    config = scratch / "zensical.toml"
    config.write_text(_config(version), encoding="utf-8")
    shutil.rmtree(scratch / "theme", ignore_errors=True)
    shutil.copytree(HERE / "theme", scratch / "theme")
    shutil.rmtree(scratch / "built", ignore_errors=True)
    command = (sys.executable, "-m", "zensical", "build", "--clean", "--strict")
    done = subprocess.run(
        (*command, "--config-file", str(config)),
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if done.returncode != 0:
        raise BuildError(done.stdout.partition("Traceback")[0])
    target = into / version
    shutil.rmtree(target, ignore_errors=True)
    # These two need to know the address of the site. There is none: it may lie anywhere.
    without = shutil.ignore_patterns("404.html", "sitemap.xml*")
    shutil.copytree(scratch / "built", target, ignore=without)
    versions.list_versions(into)
    found = checking.problems(target)
    if found:
        raise BuildError("\n".join(found))
    return target


def not_in_navigation() -> list[str]:
    """Return the pages of ``docs/`` and of the site itself that the navigation leaves out."""
    pages = {place_of(page) for folder in (DOCS, OWN) for page in folder.rglob("*.md")}
    return sorted(pages - set(navigation()))


def navigation() -> list[str]:
    """Return the pages in the order of the navigation."""
    project = tomli.loads(HERE.joinpath("zensical.toml").read_text(encoding="utf-8"))["project"]

    def pages(entry: Any) -> list[str]:
        if isinstance(entry, str):
            return [entry]
        entries = entry.values() if isinstance(entry, dict) else entry
        return [page for each in entries for page in pages(each)]

    return pages(project["nav"])


def _config(version: str) -> str:
    text = HERE.joinpath("zensical.toml").read_text(encoding="utf-8")
    settings = {"docs_dir": "pages", "site_dir": "built", "copyright": f"Version {version}"}
    lines = "".join(f"{key} = {json.dumps(value)}\n" for key, value in settings.items())
    text = text.replace("[project]\n", f"[project]\n{lines}", 1)
    text = text.replace("[project.theme]\n", '[project.theme]\ncustom_dir = "theme"\n', 1)
    text = text.replace("[project.extra]\n", f'[project.extra]\nlifeguard = "{version}"\n', 1)
    paths = json.dumps([str(ROOT / "src")])
    return f"{text}\n[project.plugins.mkdocstrings.handlers.python]\npaths = {paths}\n"


def main() -> None:
    """Build, and print where the site is."""
    parser = argparse.ArgumentParser(description="Build the documentation as a static site.")
    parser.add_argument(
        "--version",
        default=versions.UNRELEASED,
        help="number of the release, such as 0.2.0; the default is dev, for what is unreleased",
    )
    parser.add_argument(
        "--into",
        type=Path,
        default=ROOT / "site",
        help="directory of all versions; the default is site",
    )
    options = parser.parse_args()
    if not re.fullmatch(r"\d+\.\d+\.\d+\w*|dev", options.version):
        parser.error(f"{options.version} is neither a number such as 0.2.0 nor dev")
    try:
        target = build(options.version, options.into.resolve(), ROOT / "build" / "website")
    except BuildError as error:
        sys.exit(f"The site was not built.\n{error}")
    print(f"The site is in {target}; open {target / 'index.html'}")  # noqa: T201


if __name__ == "__main__":
    main()
