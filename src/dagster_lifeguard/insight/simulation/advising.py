"""Which limits to set: the smallest that meet a target for waits, found by playing the past."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from dagster_lifeguard.engine.rules.admission import PATIENCE_SECONDS
from dagster_lifeguard.insight.simulation.advice import Advice
from dagster_lifeguard.insight.simulation.answer import simulate
from dagster_lifeguard.insight.simulation.limit_search import Search
from dagster_lifeguard.insight.simulation.other_ways import OtherWays

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from dagster_lifeguard.insight.simulation.advice import Target
    from dagster_lifeguard.insight.simulation.recording import Recording


def advise(
    recording: Recording,
    target: Target,
    *,
    targets: Mapping[str, Target] | None = None,
    budgets: Mapping[str, int] | None = None,
    own_limits: Mapping[str, int] | None = None,
    lower: bool = False,
    patience_seconds: float | None = None,
    on_play: Callable[[int], None] | None = None,
) -> Advice:
    """Find the smallest limits that meet a target.

    Args:
        recording: The past.
        target: For every pool.
        targets: For single pools, instead.
        budgets: The largest limit of single pools. A lock that is named here may be raised.
        own_limits: The limits that are set of pools, to name those that nobody needs.
        lower: Whether limits that are larger than needed are lowered too.
        patience_seconds: How long a ticket lets later ones pass; None: the default.
        on_play: Called before each play with the number of plays so far.
    """
    patience = PATIENCE_SECONDS if patience_seconds is None else patience_seconds
    tell = on_play or (lambda _: None)
    tell(0)
    answer = simulate(recording, {}, patience_seconds=patience)
    search = Search(
        _under_todays_settings(recording), target, targets or {}, budgets or {}, patience, tell
    )
    search.raise_limits()
    search.lower_limits(all_pools=lower)
    pools = tuple(map(search.advice_of, search.pools))
    other_ways = tuple(OtherWays(search).found())
    return Advice(
        answer=answer,
        pools=pools,
        other_ways=other_ways,
        unused=tuple(sorted((own_limits or {}).keys() - recording.pools)),
        never_full=tuple(
            (p.pool, p.settings.limit, p.most)
            for p in pools
            if p.settings.limit is not None and p.settings.limit > 1 and p.most < p.settings.limit
        ),
        plays=search.plays + 1,
    )


def _under_todays_settings(recording: Recording) -> Recording:
    """The same past with what is set for good at its end, as if it had been so all the time."""
    settings = dict(recording.settings)
    settings.update((change.pool, change.settings) for change in recording.changes)
    return replace(recording, settings=settings, changes=())
