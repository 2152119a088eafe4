"""What is safe to free, and by what that is judged."""

from __future__ import annotations

import pytest
from told import BY_RUN, NOW, Told, holds, pool, run, waits

from dagster_lifeguard.deployment.contract import LifeSign
from dagster_lifeguard.errors import DeploymentError
from dagster_lifeguard.insight.freeing import find_freeable
from dagster_lifeguard.insight.subject import pool_or_run


def session(*, alive: bool) -> LifeSign:
    return LifeSign("session", "process host:1", alive, "12 s of its lease left")


def worker(alive: bool | None) -> LifeSign:
    return LifeSign("run-worker", "Launcher", alive, "says so")


def judged(status: str | None, *signs: LifeSign) -> bool | None:
    runs = [] if status is None else [run("a", status, ended=NOW - 5)]
    told = Told([pool("db", 1, [holds("a")])], runs, signs={("a", "step"): list(signs)})
    (found,) = find_freeable(told, pool_or_run(told, "db"), NOW)
    assert all(sign.detail in " ".join(found.evidence) for sign in signs)
    assert found.is_safe == (found.alive is False)
    return found.alive


@pytest.mark.parametrize("status", ["SUCCESS", "FAILURE", "CANCELED"])
def test_nobody_works_for_a_run_that_is_over(status):
    assert judged(status) is False
    assert judged(status, worker(None)) is False
    assert judged(status, worker(True)) is True, "it was only marked as over"


def test_of_a_run_that_was_deleted_nobody_can_tell():
    assert judged(None) is None
    assert judged(None, worker(None)) is None
    assert judged(None, worker(False)) is False
    assert judged(None, session(alive=False)) is False


def test_a_process_that_says_it_lives_is_believed_first():
    assert judged("FAILURE", session(alive=True)) is True
    assert judged(None, session(alive=True)) is True
    assert judged("STARTED", session(alive=False), session(alive=True), worker(None)) is True


def test_who_fell_silent_is_not_alive():
    assert judged("STARTED", session(alive=False), worker(None)) is False


def test_without_a_session_the_launcher_is_asked():
    assert judged("STARTED", worker(True)) is True
    assert judged("STARTED", worker(False)) is False
    assert judged("STARTED", worker(None)) is None
    assert judged("STARTED") is None


class TestWhatIsMeant:
    TOLD = Told(
        [
            pool("api", 2, [holds("aaa", "one"), holds("bbb", "one")], [waits("aaa", "two")]),
            pool("db", 5, [holds("aaa", "one", slots=2)], [waits("ccc", "one")]),
        ],
        [run("aaa"), run("bbb"), run("ccc")],
    )

    def found(self, text):
        meant = find_freeable(self.TOLD, pool_or_run(self.TOLD, text), NOW)
        return [(f.run_id, f.step_key, f.holds, f.waits) for f in meant]

    def test_a_run_with_all_it_holds_and_waits_for(self):
        assert self.found("aa") == [
            ("aaa", "one", (("api", 1), ("db", 2)), ()),
            ("aaa", "two", (), ("api",)),
        ]
        assert self.found("cc") == [("ccc", "one", (), ("db",))]

    def test_a_step(self):
        assert self.found("aaa:two") == [("aaa", "two", (), ("api",))]
        assert self.found("aaa:three") == []

    def test_of_a_pool_who_holds(self):
        assert [(run_id, held) for run_id, _, held, _ in self.found("api")] == [
            ("aaa", (("api", 1),)),
            ("bbb", (("api", 1),)),
        ]

    def test_under_granularity_run_there_is_nothing_to_free(self):
        told = Told([pool("db", 1, [holds("a", "")])], [run("a")], told_settings=BY_RUN)
        with pytest.raises(DeploymentError) as refusal:
            find_freeable(told, pool_or_run(told, "db"), NOW)
        assert "cancel the run" in refusal.value.remedy
