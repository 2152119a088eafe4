"""Use the installed wheel as a stranger would, away from the checkout: ``make dist`` runs it.

It runs in an environment that has the wheel and what the wheel asks for, and nothing else.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import dagster_lifeguard
from dagster_lifeguard import storage


def main() -> None:
    assert Path(dagster_lifeguard.__file__).is_relative_to(sys.prefix), dagster_lifeguard.__file__
    for name in ("", "Run", "EventLog"):
        assert getattr(storage, f"LifeguardSqlite{name}Storage")
    with tempfile.TemporaryDirectory() as home:
        version = run(home, "lifeguard", "--version")
        assert json.loads(run(home, "lifeguard", "schema"))["properties"]["rules"]
        run(home, "lifeguard", "init", "--yes")
        run(home, "lifeguard", "engine", "enable", "--yes")
        run(home, "dagster", "instance", "concurrency", "set", "warehouse", "8")
        shown = json.loads(run(home, "lifeguard", "status", "warehouse", "--json"))
        assert shown["summary"]["limit"] == 8, shown
    print(f"{version.strip()} works from the wheel: its schema, the engine on SQLite, a limit.")


def run(home: str, command: str, *arguments: str) -> str:
    done = subprocess.run(
        [Path(sys.executable).with_name(command), *arguments],
        cwd=home,
        env=os.environ | {"DAGSTER_HOME": home},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, (command, arguments, done.stdout, done.stderr)
    return done.stdout


if __name__ == "__main__":
    main()
