"""Circles that may come about, beside all that can happen to a few runs of a few assets."""

from __future__ import annotations

from collections import Counter
from itertools import product
from typing import TYPE_CHECKING

from hypothesis import given, settings
from hypothesis import strategies as st

from dagster_lifeguard.inspections.check.circles import MANY, Ask, blocks_itself, circles

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

POOLS = "pqr"

Block = tuple[dict[str, int], ...]
"""What one block after the other asks for, each inside those before it."""


def asks_of(asset: str, block: Block, at_once_max: int) -> list[Ask]:
    held: Counter[str] = Counter()
    found = []
    for wanted in block:
        if held:
            found.append(Ask(asset, dict(held), wanted, at_once_max))
        held.update(wanted)
    return found


def can_get_stuck(blocks: Sequence[Block], limits: Mapping[str, int]) -> bool:
    """Whether executions of these blocks, one of each, can come to where none can go on.

    All orders are tried. At first each holds nothing; it goes in, block by block, or ends.
    """
    start = (0,) * len(blocks)
    seen = {start}
    left = [start]
    while left:
        at = left.pop()
        used: Counter[str] = Counter()
        for block, depth in zip(blocks, at, strict=True):
            for wanted in block[:depth]:
                used.update(wanted)
        following = []
        for index, (block, depth) in enumerate(zip(blocks, at, strict=True)):
            if depth == len(block):
                following.append((*at[:index], 0, *at[index + 1 :]))
            elif all(used[pool] + n <= limits[pool] for pool, n in block[depth].items()):
                following.append((*at[:index], depth + 1, *at[index + 1 :]))
        if not following:
            return True
        for state in following:
            if state not in seen:
                seen.add(state)
                left.append(state)
    return False


demands = st.dictionaries(st.sampled_from(POOLS), st.integers(1, 2), min_size=1, max_size=2)
blocks = st.lists(demands, min_size=1, max_size=3).map(tuple)
limit_sets = st.fixed_dictionaries({pool: st.integers(1, 4) for pool in POOLS})


@settings(max_examples=400)
@given(st.lists(st.tuples(blocks, st.integers(1, 2)), min_size=1, max_size=3), limit_sets)
def test_whoever_can_get_stuck_is_told(assets, limits):
    asks = [
        ask
        for number, (block, at_once) in enumerate(assets)
        for ask in asks_of(f"a{number}", block, at_once)
    ]
    fits = all(n <= limits[pool] for block, _ in assets for d in block for pool, n in d.items())
    if not fits or any(any(blocks_itself(ask, limits)) for ask in asks):
        return  # Told by itself.
    executions = [block for block, at_once in assets for _ in range(at_once)]
    if can_get_stuck(executions, limits):
        assert list(circles(asks, limits))


@settings(max_examples=400)
@given(st.lists(st.tuples(blocks, st.sampled_from([1, 2, MANY])), max_size=5), limit_sets)
def test_each_circle_is_one(assets, limits):
    asks = [
        ask
        for number, (block, at_once) in enumerate(assets)
        for ask in asks_of(f"a{number}", block, at_once)
    ]
    for circle in circles(asks, limits):
        for link, following in zip(circle, circle[1:] + circle[:1], strict=True):
            assert link.pool in link.ask.wanted
            assert link.pool in following.ask.held
            assert link.ask.asset != following.ask.asset or link.ask.at_once_max > 1


def test_one_order_for_all_is_no_circle():
    for first, second in product(range(1, 4), repeat=2):
        asks = [
            *asks_of("a", ({"p": 1}, {"q": first}), MANY),
            *asks_of("b", ({"p": 1}, {"r": 1}, {"q": second}), MANY),
        ]
        assert not list(circles(asks, {"p": 3, "q": 3, "r": 3}))


def test_pools_that_bound_executions_can_leave_enough_for_all():
    asks = [*asks_of("a", ({"p": 1}, {"q": 1}), 1), *asks_of("b", ({"q": 1}, {"p": 1}), 1)]
    assert not list(circles(asks, {"p": 2, "q": 2}))
    ((one, other),) = circles(asks, {"p": 1, "q": 1})
    assert [(one.ask.asset, one.pool), (other.ask.asset, other.pool)] == [("a", "q"), ("b", "p")]


def test_runs_of_one_asset_wait_for_each_other():
    (ask,) = asks_of("a", ({"p": 1}, {"p": 1}), MANY)
    ((link,),) = circles([ask], {"p": 2})
    assert link.pool == "p"
    assert not list(circles([Ask("a", {"p": 1}, {"p": 1}, 1)], {"p": 2}))


def test_a_pool_that_is_paused_or_unlimited_holds_up_nobody_for_ever():
    asks = [*asks_of("a", ({"p": 1}, {"q": 1}), MANY), *asks_of("b", ({"q": 1}, {"p": 1}), MANY)]
    for limit in (0, None):
        assert not list(circles(asks, {"p": 1, "q": limit}))


def test_of_circles_over_the_same_pools_one_is_told():
    asks = [
        ask
        for number in range(50)
        for ask in (
            *asks_of(f"a{number}", ({"p": 1}, {"q": 1}), 1),
            *asks_of(f"b{number}", ({"q": 1}, {"p": 1}), 1),
            *asks_of(f"c{number}", ({"r": 1}, {"s": 1}), 1),
            *asks_of(f"d{number}", ({"s": 1}, {"r": 1}), 1),
        )
    ]
    found = list(circles(asks, dict.fromkeys("pqrs", 1)))
    assert sorted("".join(sorted(link.pool for link in circle)) for circle in found) == ["pq", "rs"]
