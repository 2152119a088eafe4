"""What a server knows of its deployment, from all of its reads."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from dagster_lifeguard.web.limit_origins import LimitOrigins

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dagster_lifeguard.deployment.contract import PoolState, Settings
    from dagster_lifeguard.insight.durations import Durations
    from dagster_lifeguard.insight.simulation.track_record import TrackRecord
    from dagster_lifeguard.web.seen_deployment import SeenDeployment


@dataclass(frozen=True, slots=True)
class Look:
    """Everything that the pages show, at one moment.

    Attributes:
        number: Grows with each change of anything that a page may show.
        at: When the pools were last read.
        settings: The settings of the deployment.
        states: All pools, by name.
        deployment: These pools as a deployment that pages can ask.
        past: Past waits and holds, for percentiles and estimates.
        news_of: For each pool, the number of the look in which it last changed. Under the empty
            name: the number of the look in which something changed that concerns all pools.
        limits: What set each limit.
        record: How well estimates of the last week fitted; None if that is not known yet.
        groups: The asset group of each pool, as far as it is known.
        trouble: Why the deployment could not be read since ``at``; empty if it could.
    """

    number: int
    at: float
    settings: Settings
    states: tuple[PoolState, ...]
    deployment: SeenDeployment
    past: Durations
    news_of: Mapping[str, int]
    limits: LimitOrigins = field(default_factory=LimitOrigins)
    groups: Mapping[str, str] = field(default_factory=dict)
    trouble: str = ""
    record: TrackRecord | None = None

    def has_news(self, pool: str, number: int) -> bool:
        """Whether a pool has changed since the look of this number."""
        return max(self.news_of.get(pool, 0), self.news_of[""]) > number


def news_since(
    before: Look | None, settings: Settings, states: tuple[PoolState, ...], number: int
) -> dict[str, int]:
    """``Look.news_of`` of the look with this number, after the look ``before``."""
    if before is None or before.settings != settings or before.trouble:
        return {"": number}
    old = {state.pool: state for state in before.states}
    found = {"": before.news_of[""]}
    for state in states:
        same = old.pop(state.pool, None) == state
        found[state.pool] = before.news_of.get(state.pool, 0) if same else number
    found.update(dict.fromkeys(old, number))
    return found
