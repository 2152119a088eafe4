"""The long run of worlds, made short."""

from __future__ import annotations

import pytest
import worlds
from breaks import a_fence_is_used_again


@pytest.fixture
def run(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(worlds, "STEPS", 600)

    def run(*options):
        code = worlds.main([*options, "--state", str(tmp_path / "world.json")])
        return code, capsys.readouterr().out

    return run


def test_worlds_are_played_in_slices_and_go_on_where_they_stopped(run):
    once = ("--claims", "80", "--slice", "40", "--seed", "7")
    code, out = run(*once)
    assert (code, out.count("world  slice")) == (0, 2)
    code, out = run("--claims", "120")
    assert (code, out.count("world  slice 3 of 3")) == (0, 1)
    assert "world, seed 7: " in out
    code, again = run("--rerun", "world:2")
    assert (code, again) == (0, "")
    code, fresh = run(*once, "--fresh")
    assert (code, fresh.count("world  slice")) == (0, 2)


def test_a_broken_world_is_told_as_few_steps_and_fails_the_whole(run):
    with a_fence_is_used_again():
        code, out = run("--claims", "40", "--slice", "40", "--seed", "7")
        assert code == 1
        assert "S2: fence" in out
        assert "play([(" in out
        assert run("--rerun", "world:0")[0] == 1
    assert run("--claims", "40")[0] == 1
    assert run("--rerun", "world:0")[0] == 0


@pytest.mark.parametrize("option", [("--database", "sqlite"), ("--rerun", "sqlite:17")])
def test_what_is_for_a_database_plays_no_world(run, option):
    assert run(*option) == (0, "")
