"""What past executions would have asked for under other rules."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from dagster import AssetKey

from dagster_lifeguard.insight.simulation.arrivals import PARTITION_TAG
from dagster_lifeguard.insight.simulation.doubts import Doubt
from dagster_lifeguard.storage.demands import demand_for
from dagster_lifeguard.texts import number

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from dagster_lifeguard.deployment.contract import PlannedStep
    from dagster_lifeguard.engine.rules.model import Demand
    from dagster_lifeguard.insight.simulation.recording import Recording


class OtherDemands(NamedTuple):
    """What executions would have asked for.

    Attributes:
        demands: By the place of the arrival; None where it would have asked for nothing. An arrival
            that is missing asks for what it did.
        doubts: What is not known.
    """

    demands: Mapping[int, Demand | None]
    doubts: tuple[Doubt, ...]


NO_OTHER_DEMANDS = OtherDemands({}, ())


def under_rules(
    recording: Recording,
    texts: Mapping[str, str | None],
    planned: Callable[[str], Iterable[PlannedStep]],
) -> OtherDemands:
    """Let each execution ask for what rules give the assets that its step makes.

    One run of each step is looked up. Its other runs are taken to make the same assets.

    Args:
        recording: The past.
        texts: The pool that the rules give the op of each asset, as ``a/b``: a pool, an expression
            or None. An asset whose ops are several, or that no rule was asked about, is missing.
        planned: Looks up what a run plans.
    """
    assets: dict[str, tuple[str, ...]] = {}
    for arrival in reversed(recording.arrivals):
        if arrival.key.step_key not in assets:
            assets[arrival.key.step_key] = ()
            for step in planned(arrival.key.run_id):
                assets[step.step_key] = step.assets
    demands: dict[int, Demand | None] = {}
    kept = 0
    for place, arrival in enumerate(recording.arrivals):
        made = assets[arrival.key.step_key]
        if not made or made[0] not in texts:
            kept += 1
            continue
        text, partition = texts[made[0]], arrival.tags.get(PARTITION_TAG)
        keys = map(AssetKey.from_user_string, made)
        demands[place] = (
            None
            if text is None
            else demand_for(text, keys, None if partition is None else (partition,))
        )
    return OtherDemands(demands, tuple(_doubts(recording, kept)))


def _doubts(recording: Recording, kept: int) -> Iterable[Doubt]:
    if kept:
        yield Doubt(
            "rules-not-played",
            f"{number(kept, 'execution')} of {len(recording.arrivals):,} "
            f"{'asks' if kept == 1 else 'ask'} for the pools that they asked for: their step makes "
            "no asset of the definitions, or belongs to a graph asset.",
        )
    if recording.source == "ledger":
        yield Doubt(
            "pools-for-the-first-time",
            "The ledger knows no step that asked for no pool, so what the rules limit for the "
            "first time is not played; try --by event-logs.",
        )
