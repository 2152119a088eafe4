"""Materialises assets in many runs at once, each in a process of its own.

As many calls of ``dagster asset materialize`` would, but that Dagster is imported once and then forked.

Arguments: the file of the definitions, and for each run an asset, ``key`` or ``key@partition``.
"""

from __future__ import annotations

import os
import sys

from dagster._cli import cli


def main(definitions: str, *runs: str) -> int:
    children = [_fork(definitions, *run.split("@")) for run in runs]
    return max(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children)


def _fork(definitions: str, key: str, *partition: str) -> int:
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        options = ["--partition", *partition] if partition else []
        cli.main(["asset", "materialize", "-f", definitions, "--select", key, *options])
    except SystemExit as end:
        code = int(end.code or 0)
    finally:
        sys.stdout.flush()
        os._exit(code)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
