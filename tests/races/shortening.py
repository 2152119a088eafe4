"""From many steps that break a promise to the few that do."""

from __future__ import annotations

from world import BrokenPromiseError, play


def broken(steps):
    """What steps break; None if they break nothing."""
    try:
        play(steps)
    except BrokenPromiseError as found:
        return found
    return None


def shorten(steps, fails, tries_max=2000):
    """The fewest steps that still fail, as far as leaving out parts of them finds.

    Args:
        steps: They fail.
        fails: Whether steps fail.
        tries_max: How often that is tried.
    """
    size = len(steps) // 2
    while size:
        start = 0
        while start < len(steps) and tries_max:
            tries_max -= 1
            fewer = steps[:start] + steps[start + size :]
            if fails(fewer):
                steps = fewer
            else:
                start += size
        size //= 2
    return steps


def shortest(steps):
    """The fewest steps found that break something as these do, and what."""
    found = broken(steps)
    assert found is not None
    # A group of steps that are done at once ends after its place.
    steps = shorten(steps[: found.place + 6], lambda fewer: broken(fewer) is not None)
    return steps, broken(steps)
