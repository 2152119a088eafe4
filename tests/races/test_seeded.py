"""The whole engine by seed: nothing breaks, and what breaks is found, shortened and played again."""

from __future__ import annotations

import logging

import pytest
from breaks import BREAKS, ONLY_AT_ONCE, a_fence_is_used_again, no_pool_is_locked
from promises import shares
from shortening import broken, shortest
from steps import steps_of
from world import BrokenPromiseError, play

SEEDS = range(50)
"""They grant 28,000 claims. ``make torture`` plays other seeds, for 10,000,000."""
STEPS = 6_000


@pytest.fixture(autouse=True)
def _quiet():
    """Thousands of lost leases are logged here."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize("seed", SEEDS)
def test_no_promise_is_broken(seed):
    steps = steps_of(seed, STEPS)
    if broken(steps) is not None:
        fewest, found = shortest(steps)
        pytest.fail(f"seed {seed} breaks: {found}\nplay({fewest})")


def test_much_happens_in_a_seed():
    world = play(steps_of(6, STEPS))
    kinds = {kind for kind, *_ in world.oracle.told}
    assert {"granted", "released", "expired", "limit"} <= kinds
    assert world.claims > STEPS / 10
    assert world.granted > STEPS / 20
    assert world.baton.switches > STEPS / 10


def test_the_same_seed_ends_in_the_same_way():
    first, second = (play(steps_of(5, 3_000)).oracle.told for _ in range(2))
    assert len(first) > 300
    assert first == second
    assert play(steps_of(6, 3_000)).oracle.told != first


def test_a_share_is_what_the_team_holds_and_its_earlier_tickets_ask_for():
    tickets = [(0, 1, "a", 2), (0, 2, "b", 1), (0, 3, "a", 1), (1, 4, "a", 1), (0, None, "b", 1)]
    assert shares(tickets, {"a": 1, "b": 0}) == [(0, 2), (0, 0), (0, 4), (-1, 1), (0, 1)]


# ---- breaks on purpose ---------------------------------------------------------------------------


def first_found(first_seed):
    """The first seed from there on that breaks, and what."""
    for seed in range(first_seed, first_seed + 20):
        found = broken(steps_of(seed, STEPS))
        if found is not None:
            return seed, found
    pytest.fail("not found")


@pytest.mark.parametrize("made", BREAKS, ids=lambda made: made.__name__)
def test_a_break_on_purpose_is_found(made):
    word, first_seed = BREAKS[made]
    with made():
        _, found = first_found(first_seed)
    assert word in str(found)


@pytest.mark.parametrize("made", ONLY_AT_ONCE, ids=lambda made: made.__name__)
def test_some_breaks_are_found_only_where_steps_are_done_at_once(made):
    with made():
        seed, _ = first_found(BREAKS[made][1])
        one_by_one = [step for step in steps_of(seed, STEPS) if step[0] != "together"]
        assert broken(one_by_one) is None


@pytest.mark.parametrize(
    ("made", "word"), [(a_fence_is_used_again, "S2"), (no_pool_is_locked, "held")]
)
def test_what_breaks_is_shortened_and_played_again(made, word):
    with made():
        seed, found = first_found(0)
        fewest, why = shortest(steps_of(seed, STEPS))
        assert len(fewest) <= 8 < found.place
        assert word in str(why)
        with pytest.raises(BrokenPromiseError, match=word):
            play(fewest)
    play(fewest)
