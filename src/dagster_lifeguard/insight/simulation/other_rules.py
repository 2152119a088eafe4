"""What past executions would have asked for under other rules."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from dagster import AssetKey

from dagster_lifeguard.engine.rules.pool_expressions import graph_of
from dagster_lifeguard.insight.simulation.arrivals import PARTITION_TAG
from dagster_lifeguard.insight.simulation.doubts import Doubt
from dagster_lifeguard.storage.demands import demand_for
from dagster_lifeguard.texts import number

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from dagster_lifeguard.deployment.contract import PlannedStep
    from dagster_lifeguard.engine.rules.model import Demand
    from dagster_lifeguard.insight.simulation.recording import Recording
    from dagster_lifeguard.policy.assignments import Assignment


class OtherDemands(NamedTuple):
    """What executions would have asked for.

    Attributes:
        demands: By the place of the arrival; None where it would have asked for nothing. An arrival
            that is missing asks for what it did.
        doubts: What is not known.
    """

    demands: Mapping[int, Demand | None]
    doubts: tuple[Doubt, ...]


class Texts(NamedTuple):
    """What rules give each op: a pool, an expression, or None for nothing.

    Attributes:
        of_assets: For the op that makes an asset alone or with others, by the asset as ``a/b``.
        of_steps: For the ops of graph assets, by the key of the step.
    """

    of_assets: Mapping[str, str | None]
    of_steps: Mapping[str, str | None]

    @classmethod
    def given(cls, assignments: Iterable[Assignment]) -> Texts:
        """What these assignments give."""
        assets: dict[str, str | None] = {}
        steps: dict[str, str | None] = {}
        for found in assignments:
            if found.steps == 1:
                assets[found.asset] = next(iter(found.pools), None)
            steps |= dict(found.pool_of_steps)
        return cls(assets, steps)

    def of(self, step_key: str, made: Sequence[str]) -> str | None:
        """The text for a step that makes these assets.

        A step may be one of many that are mapped over what another yields, and end with ``[...]``.
        If a graph held its pools as a whole, all its steps are one execution of its name; it asks
        for what its steps would ask for, if they all ask for the same.

        Raises:
            KeyError: The rules were not asked about it.
        """
        name = step_key.partition("[")[0]
        if name in self.of_steps:
            return self.of_steps[name]
        inside = {text for step, text in self.of_steps.items() if graph_of(step) == name}
        if len(inside) == 1:
            return next(iter(inside))
        return self.of_assets[made[0] if made else ""]


NO_OTHER_DEMANDS = OtherDemands({}, ())


def under_rules(
    recording: Recording,
    texts: Texts,
    planned: Callable[[str], Iterable[PlannedStep]],
) -> OtherDemands:
    """Let each execution ask for what rules give the assets that its step makes.

    One run of each step is looked up. Its other runs are taken to make the same assets.

    Args:
        recording: The past.
        texts: What the rules give each op.
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
        try:
            text = texts.of(arrival.key.step_key, made)
        except KeyError:
            kept += 1
            continue
        partition = arrival.tags.get(PARTITION_TAG)
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
            "no asset of the definitions.",
        )
    if recording.source == "ledger":
        yield Doubt(
            "pools-for-the-first-time",
            "The ledger knows no step that asked for no pool, so what the rules limit for the "
            "first time is not played; try --by event-logs.",
        )
