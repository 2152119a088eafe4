"""Stock to engine and back, and a newer package with newer tables, while runs execute on three hosts.

Each change is made while runs of the way before execute and wait: 30 runs in `make torture`, 15 in
`make test`. The oracle is outside the database: the marks that executions leave.
"""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from changing import POOLS
from homes import eventually, limit
from scale import TIMES

from versions import FIRST, LATER_PACKAGE, SECOND, later

if TYPE_CHECKING:
    from deployment_on_hosts import Deployment
    from marks import Execution

DEFINITIONS = Path(__file__).with_name("changing.py")
VERSIONS = Path(__file__).parents[1] / "versions.py"
HOSTS = itertools.cycle(("one", "two", "three"))
BRIEF = {"orders": 3, "warehouse": 5} if TIMES > 1 else {"orders": 2, "warehouse": 1}


@dataclass
class Fleet:
    """Runs on three hosts, each a process of its own.

    Attributes:
        hosts: Where.
        later: The folder with the SQL of a later package, if there is one.
    """

    hosts: Deployment
    later: Path | None = None
    _numbers: dict[str, itertools.count] = field(
        default_factory=lambda: {pool: itertools.count() for pool in POOLS}
    )

    def __post_init__(self) -> None:
        for pool, slots in POOLS.items():
            limit(self.hosts.home, slots, pool)

    def batch(self, *long: str, later: bool = False) -> Batch:
        """Start ten runs, or five: one in each of these pools that executes until it is let go, and brief ones.

        Args:
            long: The pools.
            later: With the later package.
        """
        begun = Batch(self)
        for pool in long:
            begun.long.append(self._run(f"{pool}_long_{next(self._numbers[pool])}", later=later))
            self.executing(begun.long[-1])
        for pool, count in BRIEF.items():
            for _ in range(count + (pool == "warehouse") * (2 - len(long))):
                begun.brief.append(self._run(f"{pool}_{next(self._numbers[pool])}", later=later))
        return begun

    def _run(self, name: str, *, later: bool) -> str:
        command = ("dagster", "asset", "materialize", "-f", str(DEFINITIONS), "--select", name)
        marks = str(self.hosts.marks.path)
        with self.hosts.network[next(HOSTS)]:
            self.hosts.workers[name] = self.hosts.home.start(
                *self._by(command, later=later), MARKS=marks
            )
        return name

    def _by(self, command: tuple[str, ...], *, later: bool) -> tuple[str, ...]:
        return ("python", str(VERSIONS), str(self.later), *command) if later else command

    def lifeguard(self, *arguments: str, later: bool = False) -> str:
        return self.hosts.home.run(*self._by(("lifeguard", *arguments), later=later))

    def status(self, *, later: bool = False) -> dict:
        return json.loads(self.lifeguard("engine", "status", "--json", later=later))

    def executing(self, name: str) -> None:
        eventually(lambda: self.hosts.watch(name) or self.hosts.marks.executions(name))

    def ended(self, names: list[str]) -> list[str]:
        """Those of the runs whose process has ended, well."""
        found = [name for name in names if self.hosts.workers[name].popen.poll() is not None]
        for name in found:
            self.hosts.ends(name)
        return found

    def assert_never_over_the_limit(self) -> None:
        executions = self.hosts.marks.executions()
        assert {e.name for e in executions} == set(self.hosts.workers)
        assert len(executions) == len(self.hosts.workers) == 3 * (2 + sum(BRIEF.values()))
        for pool, slots in POOLS.items():
            assert _most_at_once([e for e in executions if e.name.startswith(pool)]) <= slots

    def assert_nothing_is_left(self) -> None:
        found = eventually(lambda: (s := self.status()) and not s["processes"] and s)
        assert (found["holders"], found["waiting"], found["waiting_on_stock"]) == ([], 0, 0)
        assert found["unmatched"] == []


@dataclass
class Batch:
    """Some runs that began together.

    Attributes:
        long: Those that execute until they are let go.
        brief: The others.
    """

    fleet: Fleet
    long: list[str] = field(default_factory=list)
    brief: list[str] = field(default_factory=list)

    def of(self, pool: str) -> list[str]:
        return [name for name in self.brief if name.startswith(pool)]

    def go(self) -> None:
        for name in self.long:
            self.fleet.hosts.go(name)

    def ends(self) -> None:
        """Wait until all its runs have ended, well."""
        names = [*self.long, *self.brief]
        eventually(lambda: len(self.fleet.ended(names)) == len(names))


def _most_at_once(executions: list[Execution]) -> int:
    return max(sum(e.begun <= at.begun < e.last for e in executions) for at in executions)


def _nudge(fleet: Fleet) -> None:
    """Dagster's own storage can leave a step waiting for a free slot until another asks: ask."""
    with fleet.hosts.home.instance() as instance:
        instance.event_log_storage.assign_pending_steps(list(POOLS))


def test_from_stock_to_the_engine_and_back(deploy):
    fleet = Fleet(deploy(30.0, stock=True))
    before = fleet.batch("orders", "warehouse")
    eventually(lambda: fleet.ended(before.of("warehouse")))
    eventually(lambda: fleet.status()["waiting_on_stock"] >= BRIEF["orders"])

    assert "Steps of running runs that hold slots: " in fleet.lifeguard("engine", "enable", "--yes")
    during = fleet.batch("warehouse")
    eventually(lambda: fleet.ended(during.of("warehouse")))
    eventually(lambda: fleet.status()["waiting"] == BRIEF["orders"])
    found = fleet.status()
    assert found["is_ours"]
    assert {(h["world"], h["step_key"]) for h in found["holders"]} >= {
        *(("stock", name) for name in before.long),
        *(("engine", name) for name in during.long),
    }
    assert len(found["processes"]) >= 1 + BRIEF["orders"]
    assert {(p["package"], p["tables"]) for p in found["processes"]} == {
        (found["package"], found["tables"])
    }
    assert found["waiting_on_stock"] >= BRIEF["orders"]
    before.go()
    eventually(lambda: len(fleet.ended(during.of("orders"))) == BRIEF["orders"])

    assert "Processes that still use it: " in fleet.lifeguard("engine", "disable", "--yes")
    after = fleet.batch()
    eventually(lambda: fleet.status()["waiting_on_stock"] >= len(after.brief))
    assert not any(fleet.hosts.marks.executions(name) for name in after.brief)
    found = fleet.status()
    assert not found["is_ours"]
    assert [h["step_key"] for h in found["holders"] if h["world"] == "engine"] == during.long
    during.go()
    during.ends()
    for batch in (before, after):
        eventually(
            lambda batch=batch: _nudge(fleet) or len(fleet.ended(batch.brief)) == len(batch.brief)
        )
        batch.ends()
    fleet.assert_never_over_the_limit()
    fleet.assert_nothing_is_left()


def test_a_newer_package_with_newer_tables_and_older_workers_that_begin_after_it(deploy, tmp_path):
    fleet = Fleet(deploy(30.0), later(tmp_path / "later"))
    before = fleet.batch("orders", "warehouse")
    eventually(lambda: fleet.ended(before.of("warehouse")))
    eventually(lambda: fleet.status()["waiting"] == BRIEF["orders"])
    assert fleet.status()["tables"] == FIRST

    newer = fleet.batch("warehouse", later=True)
    eventually(lambda: fleet.ended(newer.of("warehouse")))
    older = fleet.batch()
    eventually(lambda: fleet.ended(older.of("warehouse")))
    eventually(lambda: fleet.status()["waiting"] == 3 * BRIEF["orders"])
    for by_later in (False, True):
        found = fleet.status(later=by_later)
        assert (found["tables"], found["usable_from"]) == (SECOND, FIRST)
        assert found["tables_known"] == (SECOND if by_later else FIRST)
        assert {(p["package"], p["tables"]) for p in found["processes"]} == {
            (fleet.status()["package"], FIRST),
            (LATER_PACKAGE, SECOND),
        }
    assert "newer than this package's 1, which may use them" in fleet.lifeguard("engine", "status")
    for batch in (before, newer):
        batch.go()
    for batch in (before, newer, older):
        batch.ends()
    fleet.assert_never_over_the_limit()
    fleet.assert_nothing_is_left()
