"""In which order the tests are dealt out to the workers of pytest-xdist.

``--dist worksteal`` gives each worker a row of tests one after the other in the order of the
collection, and whoever is done takes half of what is left at the end of another's row. So each row
begins with files of long tests: at the end all workers have short ones.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pytest

LONGEST = (
    "test_demo.py",
    "storages/test_duplicates_live.py",
    "hosts/test_changes_while_runs_execute.py",
    "storages/test_fair_queue.py",
    "hosts/test_hogs.py",
    "hosts/test_links.py",
    "hosts/test_random_faults.py",
    "races/test_processes.py",
    "races/test_slices.py",
    "races/test_machine.py",
    "costs/test_commands.py",
    "storages/test_executions.py",
    "hosts/test_clocks.py",
    "hosts/test_servers.py",
    "hosts/test_slow_links.py",
    "storages/test_documented_rules.py",
    "storages/test_dead_in_the_queue.py",
    "web/test_prometheus.py",
    "web/test_real_instances.py",
)
"""Files of tests that take many seconds, the longest first."""


def dealt(items: Sequence[pytest.Item], workers: int) -> list[pytest.Item]:
    """The same tests, so that the row of each worker begins with its share of the longest."""
    rows: list[list[pytest.Item]] = [[] for _ in range(workers)]
    rest = list(items)
    for number, name in enumerate(LONGEST):
        rows[number % workers] += [i for i in rest if i.path.as_posix().endswith(f"tests/{name}")]
        rest = [i for i in rest if not i.path.as_posix().endswith(f"tests/{name}")]
    for number, row in enumerate(rows):
        begin, end = (len(items) * n // workers for n in (number, number + 1))
        room = max(0, end - begin - len(row))
        row.extend(rest[:room])
        rest = rest[room:]
    return [item for row in rows for item in row] + rest
