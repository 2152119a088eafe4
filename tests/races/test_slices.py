"""The bookkeeping of a long torture, and a short one from end to end."""

from __future__ import annotations

import itertools
import json
import os
import signal
import time

import pytest
import torture
from slices import DATABASES, SIZES, Game, State, games, seed_of


def test_each_slice_has_a_seed_of_its_own_that_follows_from_the_main_one():
    slices = list(itertools.product((1, 2), DATABASES, range(500)))
    seeds = [seed_of(*one) for one in slices]

    assert len(set(seeds)) == len(seeds)
    assert seeds == [seed_of(*one) for one in slices]


@pytest.mark.parametrize("claims", [1, 300, 5_000])
def test_a_slice_grants_what_it_was_asked_for_and_little_more(claims):
    for seed in range(200):
        played = games(seed, claims)
        assert played == games(seed, claims)
        # Of each of the three counted games the last round may be more than was needed.
        assert claims <= sum(game.grants for game in played) <= claims + 3 * (max(SIZES) + 1)


def test_slices_are_not_all_alike():
    drawn = {(g.job, g.processes, g.limit) for seed in range(200) for g in games(seed, 300)}

    assert {size for job, size, _ in drawn if job == "hammer"} == set(SIZES)
    assert {limit for job, _, limit in drawn if job == "claim_together"} == {1, 2, 3, 5}


def test_what_was_done_is_read_again_as_it_was_written(tmp_path):
    state = State(7, 300)
    state.add("sqlite", 310, 2.0, [])
    state.add("sqlite", 120, 2.0, ["hammer: 1 over"])
    state.add("postgres", 305, 1.0, [])
    state.write(tmp_path / "kept" / "state.json")

    assert State.read(tmp_path / "kept" / "state.json") == state
    assert State.read(tmp_path / "missing.json") is None


def test_a_broken_slice_is_kept_with_its_seed_and_its_claims_are_not_counted():
    state = State(7, 300)
    state.add("sqlite", 310, 2.0, [])
    state.add("sqlite", 120, 2.0, ["hammer: 1 over"])

    assert (state.done["sqlite"].slices, state.done["sqlite"].claims) == (2, 310)
    assert [(entry["number"], entry["seed"]) for entry in state.broken] == [
        (1, seed_of(7, "sqlite", 1))
    ]


def test_what_is_left_is_told_at_the_speed_so_far():
    state = State(7, 100)
    assert state.seconds_left(DATABASES, 1_000) is None
    state.add("sqlite", 100, 2.0, [])
    assert state.seconds_left(DATABASES, 1_000) is None
    state.add("postgres", 100, 1.0, [])
    assert state.seconds_left(DATABASES, 1_000) == 9 * 2.0 + 9 * 1.0
    assert state.seconds_left(("postgres",), 100) == 0


class Rehearsed:
    """An arena in which each slice grants what it should, until one breaks or is interrupted."""

    def __init__(self, broken=(), interrupted=None):
        self.broken, self.interrupted = broken, interrupted
        self.played, self.killed, self.fleet = [], False, self

    def kill(self):
        os.kill(os.getpid(), signal.SIGINT)  # Who is impatient presses Ctrl-C again.
        self.killed = True

    def close(self):
        pass

    def control(self, database):
        return 50

    def play_slice(self, database, seed, claims):
        if len(self.played) == self.interrupted:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(60)  # Ended by the signal.
        self.played.append(seed)
        if seed in self.broken:
            return claims // 2, ["hammer: 1 over"]
        return sum(game.grants for game in games(seed, claims)), []


@pytest.fixture
def rehearse(tmp_path, monkeypatch):
    def run(*options, **arena):
        made = Rehearsed(**arena)
        monkeypatch.setattr(torture, "Arena", lambda: made)
        code = torture.main([*options, "--state", str(tmp_path / "state.json")])
        return code, made

    return run


def test_an_interrupted_torture_goes_on_after_the_last_whole_slice(rehearse, capsys):
    once = ("--claims", "1200", "--slice", "300")
    code, first = rehearse(*once, "--seed", "7", interrupted=3)
    assert (code, first.killed, len(first.played)) == (torture.INTERRUPTED, True, 3)
    code, second = rehearse("--claims", "1200")
    assert (code, len(second.played)) == (0, 5)

    every = {seed_of(7, database, number) for database in DATABASES for number in range(4)}
    assert {*first.played, *second.played} == every
    code, third = rehearse("--claims", "1200")
    assert (code, third.played) == (0, [])
    granted = sum(game.grants for seed in every for game in games(seed, 300))
    assert f"seed 7: {granted:,} claims granted and checked, 0 slices broken" in (
        capsys.readouterr().out
    )


def test_a_broken_slice_fails_the_whole_also_when_it_goes_on(rehearse, tmp_path, capsys):
    bad = seed_of(7, "sqlite", 0)
    code, _ = rehearse(
        "--claims", "600", "--slice", "300", "--seed", "7", "--database", "sqlite", broken={bad}
    )
    assert code == 1
    assert f"BROKEN slice sqlite:0, seed {bad}" in capsys.readouterr().out
    assert json.loads((tmp_path / "state.json").read_text())["broken"][0]["seed"] == bad
    code, _ = rehearse("--claims", "600", "--database", "sqlite")
    assert code == 1

    code, again = rehearse("--rerun", "sqlite:0", broken={bad})
    assert (code, again.played) == (1, [bad])
    code, again = rehearse("--rerun", "sqlite:1", broken={bad})
    assert (code, again.played) == (0, [seed_of(7, "sqlite", 1)])


def test_another_seed_needs_a_fresh_start(rehearse, capsys):
    once = ("--claims", "300", "--slice", "300", "--seed", "7")
    rehearse(*once)
    with pytest.raises(SystemExit) as ended:
        rehearse("--claims", "300", "--seed", "8")
    assert ended.value.code == 2
    assert "--fresh" in capsys.readouterr().err
    code, arena = rehearse("--claims", "300", "--slice", "300", "--seed", "8", "--fresh")
    assert (code, arena.played) == (0, [seed_of(8, database, 0) for database in DATABASES])


@pytest.fixture(scope="module")
def arena():
    made = torture.Arena()
    yield made
    made.close()


@pytest.mark.parametrize("database", DATABASES)
def test_a_real_slice_counts_what_the_oracle_saw(arena, database):
    claims, broken = arena.play_slice(database, 7, 60)

    assert broken == []
    # The turns with the stock storage come on top.
    assert claims > sum(game.grants for game in games(7, 60))
    assert arena.fleet.oracle.inside.value == 0


def test_a_slice_finds_an_engine_that_lets_in_too_many(arena, monkeypatch):
    change_pool = torture.Engine.change_pool

    def lets_in_one_more(engine, pool, limit):
        change_pool(engine, pool, limit=limit + 1)

    monkeypatch.setattr(torture.Engine, "change_pool", lets_in_one_more)
    _, broken = arena.play("sqlite", Game("claim_together", 4, 1, 20, 0.001, 7))

    assert broken == ["claim_together: 80 over"]  # Each of four processes sees it in each round.
