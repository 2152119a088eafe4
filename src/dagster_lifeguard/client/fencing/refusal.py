"""The error for a late writer."""

from __future__ import annotations

from dagster_lifeguard.errors import LateWriterError


def late(sink: str, fence: int, seen: int) -> LateWriterError:
    """The error for a writer whose fence is smaller than the largest that its sink has seen."""
    return LateWriterError(
        f"{sink} was written with fence {seen}, and this writer comes late with fence {fence}: "
        "nothing was written.",
        remedy="Its slots went to another step while it was silent for longer than its lease; run "
        "it again if its result is needed. If the pool is a new one, whose fences begin anew, make "
        "the sink forget: see docs/how-to/refuse-late-writers.md.",
        names=[sink],
    )
