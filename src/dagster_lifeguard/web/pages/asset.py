"""One asset: its pools, the steps that wait to make it, and its past executions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dagster_lifeguard.deployment.history import Outcome
from dagster_lifeguard.engine.rules.shown_names import terms_text
from dagster_lifeguard.errors import UnknownNameError
from dagster_lifeguard.insight.dropped import LAST_MAX, RUNS_MAX, Dropped, dropped_of
from dagster_lifeguard.insight.durations import Sample, terms_of_asset
from dagster_lifeguard.insight.explanation import explain
from dagster_lifeguard.insight.subject import asset_or_run
from dagster_lifeguard.insight.timeline import Phase, timeline_of_asset
from dagster_lifeguard.web.pages.window import BARS_MAX, PARTS, readable
from dagster_lifeguard.web.plots import Plot, asset_plots

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from dagster_lifeguard.deployment.contract import Deployment, Settings
    from dagster_lifeguard.insight.durations import Durations, Spread
    from dagster_lifeguard.insight.explanation import Explanation
    from dagster_lifeguard.insight.simulation.track_record import TrackRecord
    from dagster_lifeguard.insight.timeline import Bar, Timeline
    from dagster_lifeguard.web.pages.window import Window

RIVALS_MAX = 20
"""The most other assets of a pool on the page."""

STEPS_MAX = 20
"""The most steps in full."""


@dataclass(frozen=True, slots=True)
class AssetPage:
    """One asset.

    Attributes:
        name: The asset as ``a/b``.
        pools: What steps that make it ask for, as an expression; empty for nothing.
        explanation: What its unfinished runs wait for.
        window: What is shown.
        timeline: What made it in the window, and the first that wait to.
        executions: How long it took in the window, where it went well; None if it never did.
        failed: How many attempts of it failed in the window.
        waits: How long those waited that made it in the window, 0 for one that did not have to.
        plots: The charts of the window.
        rivals: For each of its pools, the other assets that ask for it; the first ``RIVALS_MAX``.
        rival_counts: For each of its pools, how many there are in all.
        dropped: The runs of it that were dropped in the window, as another run does their work.
        record: How well estimates of the last week fitted, of all pools; None if that is not known.
    """

    name: str
    pools: str
    explanation: Explanation
    window: Window
    timeline: Timeline
    executions: Spread | None
    failed: int
    waits: Spread | None
    plots: tuple[Plot, ...]
    rivals: Mapping[str, tuple[str, ...]]
    rival_counts: Mapping[str, int]
    dropped: Dropped
    record: TrackRecord | None = None


def asset_page(
    deployment: Deployment,
    name: str,
    past: Durations,
    window: Window,
    now: float,
    record: TrackRecord | None = None,
) -> AssetPage:
    """The page of an asset. ``past`` is for percentiles and estimates.

    Raises:
        UnknownNameError: There is no such asset.
    """
    subject = asset_or_run(deployment, name)
    if subject.kind != "asset":
        raise UnknownNameError(
            f"{name} is no asset but a {subject.kind}.",
            remedy=f"See it at /runs/{name}",
            names=[name],
        )
    since, until = window.bounds(now)
    found = timeline_of_asset(
        deployment, name, since=since, until=min(until, now), count_max=BARS_MAX
    )
    settings, assets = deployment.settings(), deployment.assets()
    terms = list(terms_of_asset(name, assets.get(name, ()), settings))
    rivals = _rivals(name, {term.name for term in terms}, assets, settings)
    return AssetPage(
        name=name,
        pools=terms_text(terms),
        explanation=explain(deployment, subject, settings, past, now),
        window=window,
        timeline=readable(found, window, since, until),
        executions=_spread(found.bars, Phase.EXECUTING),
        failed=sum(bool(bar.failures) for bar in found.bars),
        waits=_spread(found.bars, Phase.WAITING),
        plots=asset_plots(found.bars, since, until, PARTS),
        rivals={pool: others[:RIVALS_MAX] for pool, others in rivals.items()},
        rival_counts={pool: len(others) for pool, others in rivals.items()},
        dropped=dropped_of(
            deployment,
            name,
            since=since,
            until=until,
            last_max=RUNS_MAX if window.shows_all else LAST_MAX,
        ),
        record=record,
    )


def _rivals(
    name: str, pools: Collection[str], assets: Mapping[str, tuple[str, ...]], settings: Settings
) -> dict[str, tuple[str, ...]]:
    """The other assets that ask for each of these pools, sorted."""
    found: dict[str, list[str]] = {pool: [] for pool in sorted(pools)}
    for asset, texts in sorted(assets.items()):
        if asset != name:
            for pool in {
                term.name for term in terms_of_asset(asset, texts, settings)
            } & found.keys():
                found[pool].append(asset)
    return {pool: tuple(others) for pool, others in found.items()}


def _spread(bars: Iterable[Bar], phase: Phase) -> Spread | None:
    """How long a phase lasted of those that were over and went well."""
    return Sample.of(
        sum(span.ended - span.started for span in bar.spans if span.phase is phase)
        for bar in bars
        if bar.result == Outcome.SUCCESS.value
    ).spread()
