"""The versions of the documentation that stand side by side in one directory.

Each version is a directory that is complete in itself. ``versions.js`` beside them lists all
versions and their pages, for the selector. It is a script and no JSON, because a page that is
opened as a file may load a script but not fetch JSON.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from packaging.version import Version

if TYPE_CHECKING:
    from pathlib import Path

UNRELEASED = "dev"
_REDIRECT = """\
<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>dagster-lifeguard</title>
<meta http-equiv="refresh" content="0; url={name}/index.html">
<a href="{name}/index.html">dagster-lifeguard {name}</a>
</html>
"""


def names(site: Path) -> list[str]:
    """Return the versions in a directory: releases, the newest first, then the unreleased one."""
    found = [page.parent.name for page in site.glob("*/index.html")]
    releases = sorted((name for name in found if name != UNRELEASED), key=Version, reverse=True)
    return [*releases, *(name for name in found if name == UNRELEASED)]


def list_versions(site: Path) -> None:
    """Write what all versions share: the list of them, and a page that leads to the newest."""
    found = [
        {
            "name": name,
            "pages": sorted(
                page.relative_to(site / name).as_posix() for page in (site / name).rglob("*.html")
            ),
        }
        for name in names(site)
    ]
    text = f"window.lifeguardVersions = {json.dumps(found)};\n"
    site.joinpath("versions.js").write_text(text, encoding="utf-8")
    site.joinpath("index.html").write_text(_REDIRECT.format(name=found[0]["name"]), "utf-8")
