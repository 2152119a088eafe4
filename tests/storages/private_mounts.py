"""File systems that only one process and its children see: read-only, or too small.

Root is stopped by no file mode, and nobody but root may mount; in a user namespace and a mount
namespace of its own every process may, and what it mounts is gone with it.
"""

from __future__ import annotations

import pickle
import subprocess
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_UNSHARE = ("unshare", "--user", "--map-root-user", "--mount")


def read_only(path: Path) -> str:
    """Mounts a file or directory on itself so that nobody can write it."""
    return f"mount --bind '{path}' '{path}' && mount -o remount,bind,ro '{path}'"


def tiny(path: Path, megabytes: int) -> str:
    """Mounts an empty file system of this size."""
    return f"mount -t tmpfs -o size={megabytes}m none '{path}'"


def under(mount: str, job: Callable[..., Any], *arguments: object) -> Any:
    """Do a job in a process for which something is mounted; its answer.

    The job is a function of a module, and its arguments and answer can be pickled.
    """
    code = "import private_mounts; private_mounts.serve()"
    done = subprocess.run(
        [*_UNSHARE, "sh", "-c", f'{mount} && exec "$@"', "sh", sys.executable, "-c", code],
        input=pickle.dumps((sys.path, job.__module__, job.__name__, arguments)),
        env=_environment(),
        capture_output=True,
        timeout=600,
        check=False,
    )
    output = done.stderr.decode(errors="replace")
    assert done.returncode == 0, f"no private mount, or the job failed: {output}"
    return pickle.loads(done.stdout)


def _environment() -> dict[str, str]:
    import os

    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(p for p in sys.path if p),
        "PYTHONWARNINGS": "ignore",
    }


def serve() -> None:
    """What the process does: standard output is for the answer alone."""
    import importlib
    import os

    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    path, module, name, arguments = pickle.load(sys.stdin.buffer)
    sys.path[:] = path
    answer = getattr(importlib.import_module(module), name)(*arguments)
    with answers:
        pickle.dump(answer, answers)
