"""What a play of the past does not know."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from dagster_lifeguard.texts import number

if TYPE_CHECKING:
    from collections.abc import Iterable


class Doubt(NamedTuple):
    """Something that is not known, or was left out.

    Attributes:
        code: A code for programs.
        message: The code in a sentence.
        pools: The pools concerned; empty: all pools.
    """

    code: str
    message: str
    pools: tuple[str, ...] = ()


def general_doubts(unended: int) -> Iterable[Doubt]:
    """The doubts of any recording, of which so many executions had not ended."""
    yield Doubt(
        "durations-as-recorded",
        "Steps last as long as they did. Code that slows down under load is not simulated.",
    )
    if unended:
        yield Doubt(
            "unfinished",
            f"{number(unended, 'execution')} had not ended and "
            f"{'is' if unended == 1 else 'are'} taken to end now.",
        )
