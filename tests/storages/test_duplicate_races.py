"""Two processes that submit the same at one instant: one of the two runs stays, never none."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from contests import Site, create, site
from homes import eventually

SUBMITTER = str(Path(__file__).with_name("submitter.py"))


@pytest.fixture(scope="module", params=["sqlite", "postgres-engine"])
def at(request: pytest.FixtureRequest, tmp_path_factory):
    kind, _, engine = request.param.partition("-")
    postgres = lambda: request.getfixturevalue("postgres_url")  # noqa: E731
    with site(kind, tmp_path_factory.mktemp("site"), postgres, stock=not engine) as found:
        yield found


class Contest:
    """Two runs of one asset, each with a process that is about to submit it."""

    def __init__(self, at: Site, control: Path, asset: str, lock: str) -> None:
        for run in at.unfinished():
            at.instance.report_run_canceled(run)
        self._at, self._control = at, control
        self.runs = {name: create(at.instance, asset) for name in ("one", "two")}
        self.processes = {
            name: at.home.start(
                "python", SUBMITTER, str(at.home.path), run_id, str(control), name, lock
            )
            for name, run_id in self.runs.items()
        }

    def comes_to(self, name: str, where: str) -> None:
        process = self.processes[name]

        def there() -> bool:
            assert process.popen.poll() is None, process.output()
            return (self._control / f"{name}.{where}").exists()

        eventually(there)

    def let_go(self, name: str, *places: str) -> None:
        for where in places:
            (self._control / f"{name}.{where}.go").touch()

    def statuses(self) -> dict[str, str]:
        for process in self.processes.values():
            assert process.wait() == 0, process.output()
        return {name: self._at.status(run_id) for name, run_id in self.runs.items()}


@pytest.mark.parametrize(("asset", "kept"), [("once", "one"), ("latest", "two"), ("fresh", "two")])
def test_who_comes_second_sees_the_first(at: Site, tmp_path: Path, asset: str, kept: str):
    contest = Contest(at, tmp_path, asset, "locked")
    contest.let_go("one", "asks")
    contest.comes_to("one", "looked")  # and found nothing; it has the lock
    contest.comes_to("two", "asks")
    contest.let_go("two", "asks", "looked")  # at the same instant, as far as it can tell
    contest.let_go("one", "looked")
    statuses = contest.statuses()
    assert Counter(statuses.values()) == {"QUEUED": 1, "CANCELED": 1}
    assert statuses[kept] == "QUEUED"
    (dropped,) = contest.runs.keys() - {kept}
    assert at.duplicate_of(contest.runs[dropped]) == contest.runs[kept]


def test_without_the_lock_both_would_stay(at: Site, tmp_path: Path):
    """That the order of events above is one which the lock is there for."""
    contest = Contest(at, tmp_path, "once", "unlocked")
    for name in contest.runs:
        contest.let_go(name, "asks")
        contest.comes_to(name, "looked")
    for name in contest.runs:
        contest.let_go(name, "looked")
    assert contest.statuses() == {"one": "QUEUED", "two": "QUEUED"}


def test_a_process_that_dies_with_the_lock_gives_it_up(at: Site, tmp_path: Path):
    contest = Contest(at, tmp_path, "once", "locked")
    contest.let_go("one", "asks")
    contest.comes_to("one", "looked")
    contest.let_go("two", "asks", "looked")
    contest.processes["one"].end()
    assert contest.processes["two"].wait() == 0, contest.processes["two"].output()
    assert at.status(contest.runs["two"]) == "QUEUED"
    assert at.status(contest.runs["one"]) == "NOT_STARTED"


def test_many_at_once(at: Site, tmp_path: Path):
    for run in at.unfinished():
        at.instance.report_run_canceled(run)
    runs = [create(at.instance, "once") for _ in range(3)]
    processes = []
    for number, run_id in enumerate(runs):
        for where in ("asks", "looked"):
            (tmp_path / f"{number}.{where}.go").touch()
        processes.append(
            at.home.start(
                "python", SUBMITTER, str(at.home.path), run_id, str(tmp_path), str(number), "locked"
            )
        )
    for process in processes:
        assert process.wait() == 0, process.output()
    assert Counter(at.status(run_id) for run_id in runs) == {"QUEUED": 1, "CANCELED": 2}
    (kept,) = (run_id for run_id in runs if at.status(run_id) == "QUEUED")
    assert {at.duplicate_of(run_id) for run_id in runs if run_id != kept} == {kept}
