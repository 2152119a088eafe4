"""Check that a wheel holds every file of the package that git knows: ``make dist`` runs it.

Templates, SQL, GraphQL, static files and the JSON schema are no modules, so that a test on a checkout
would not miss them.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

ROOT = Path(__file__).parents[2]
FOLDERS = {"src/dagster_lifeguard": "dagster_lifeguard", "examples/flights": "dagster_lifeguard/examples/flights"}  # fmt: skip
KINDS = (".css", ".graphql", ".html", ".js", ".json", ".py", ".sql", ".yaml")


def main(wheel: str) -> None:
    tracked = subprocess.run(
        ["git", "ls-files", "-z", *FOLDERS], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split("\0")[:-1]
    wanted = {
        name.replace(folder, inside, 1)
        for name in tracked
        for folder, inside in FOLDERS.items()
        if name.startswith(f"{folder}/") and not name.endswith("/.gitkeep")
    }
    missing = sorted(wanted - set(ZipFile(wheel).namelist()))
    if missing:
        sys.exit(f"{Path(wheel).name} lacks: {', '.join(missing)}")
    counts = {kind: sum(name.endswith(kind) for name in wanted) for kind in KINDS}
    assert all(counts.values()), counts  # else this looked at the wrong folders
    told = ", ".join(f"{count} {kind}" for kind, count in counts.items())
    print(f"{Path(wheel).name} has all {len(wanted)} files of the package: {told}.")


if __name__ == "__main__":
    main(*sys.argv[1:])
