"""What a person means by a name: an asset, a run, a step or a pool; or what it may have been."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from dagster_lifeguard.engine.rules.pool_naming import safe_value
from dagster_lifeguard.engine.rules.shown_names import nearest, pool_named, pool_text
from dagster_lifeguard.errors import UnknownNameError
from dagster_lifeguard.insight.durations import terms_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from dagster_lifeguard.deployment.contract import Deployment, Run

_RUNS_SHOWN = 5
_STEPS_SHOWN = 3
_LIST_POOLS = "List all pools with: lifeguard status --all"


@dataclass(frozen=True, slots=True)
class Subject:
    """What is meant.

    Attributes:
        kind: What it is.
        name: The asset as ``a/b``, or the pool; empty for a run or step.
        run: The run, or the run of the step.
        step_key: The step; None for all steps of a run.
        texts: Of an asset: what stands in ``op.pool`` of its ops.
        never_ran: Of an asset: whether only the definitions tell it, and no run has planned it.
    """

    kind: Literal["asset", "pool", "run", "step"]
    name: str = ""
    run: Run | None = None
    step_key: str | None = None
    texts: tuple[str, ...] = ()
    never_ran: bool = False


def asset_or_run(deployment: Deployment, text: str) -> Subject:
    """The asset, run or step that is meant; a run by the beginning of its id.

    Raises:
        UnknownNameError: None is, or several runs are.
    """
    assets = deployment.assets()
    if text in assets:
        return Subject("asset", text, texts=assets[text])
    found = _run_or_step(deployment, text)
    if found is not None:
        return found
    if pool_named(text, _pools(deployment)) is not None:
        raise UnknownNameError(
            f"{text} is a pool.", remedy=f"See it with: lifeguard status {text}", names=[text]
        )
    raise UnknownNameError(
        f"{deployment.name} knows no asset and no run {text!r}.",
        remedy=_near(text, assets)
        or "Give an asset as a/b, a run's id or the beginning of it, or RUN_ID:STEP. An asset "
        "is known once a run has planned it.",
        names=[text],
    )


def pool_or_run(deployment: Deployment, text: str) -> Subject:
    """The pool, run or step that is meant; a run by the beginning of its id.

    Raises:
        UnknownNameError: None is, or several runs are.
    """
    known = _pools(deployment)
    if (name := pool_named(text, known)) is not None:
        return Subject("pool", name)
    found = _run_or_step(deployment, text)
    if found is not None:
        return found
    raise UnknownNameError(
        f"{deployment.name} knows no pool and no run {text!r}.",
        remedy=_near(text, map(pool_text, known))
        or "Give a pool, a run's id or the beginning of it, or RUN_ID:STEP.",
        names=[text],
    )


def known_pool(deployment: Deployment, text: str, recorded: Collection[str] = ()) -> str:
    """The pool of this name.

    Args:
        deployment: The deployment.
        text: The name, or how it is shown.
        recorded: Pools that are known from the past.

    Raises:
        UnknownNameError: It has no limit, no holder and no waiter, and no asset has it.
    """
    if (name := pool_named(text, recorded)) is not None:
        return name
    # Of thousands of pools the one that is meant is looked up, before all are.
    near = {state.pool for state in deployment.pools({text, safe_value(text)}) if state.with_over}
    if (name := pool_named(text, near | deployment.pool_settings().keys())) is not None:
        return name
    pools = _pools(deployment)
    if (name := pool_named(text, pools)) is not None:
        return name
    planned = _planned(deployment, deployment.assets())
    if (name := pool_named(text, planned)) is not None:
        return name
    raise UnknownNameError(
        f"{deployment.name} knows no pool {text!r}.",
        remedy=_near(text, map(pool_text, pools | planned)) or _LIST_POOLS,
        names=[text],
    )


def pool_or_asset(deployment: Deployment, text: str) -> Literal["pool", "asset"]:
    """What this is the name of; of both, the asset.

    Raises:
        UnknownNameError: Of neither.
    """
    assets = deployment.assets()
    if text in assets:
        return "asset"
    pools = _pools(deployment) | _planned(deployment, assets)
    if pool_named(text, pools) is not None:
        return "pool"
    raise UnknownNameError(
        f"{deployment.name} knows no pool and no asset {text!r}.",
        remedy=_near(text, {*map(pool_text, pools), *assets})
        or f"{_LIST_POOLS}. An asset is known once a run has planned it.",
        names=[text],
    )


def _pools(deployment: Deployment) -> set[str]:
    """The pools that have a limit, a holder or a waiter."""
    return {state.pool for state in deployment.pools()}


def _planned(deployment: Deployment, assets: Mapping[str, Iterable[str]]) -> set[str]:
    """The pools that assets have."""
    settings = deployment.settings()
    texts = {text for pools in assets.values() for text in pools}
    return {term.name for text in texts for term in terms_of(text, settings)}


def _run_or_step(deployment: Deployment, text: str) -> Subject | None:
    prefix, colon, step_key = text.partition(":")
    if not prefix:
        return None
    runs = deployment.find_runs(prefix, _RUNS_SHOWN + 1)
    exact = [run for run in runs if run.run_id == prefix]
    runs = tuple(exact) or runs
    if not runs:
        return None
    if len(runs) > 1:
        some = ", ".join(run.run_id for run in runs[:_RUNS_SHOWN])
        more = " and more" if len(runs) > _RUNS_SHOWN else ""
        raise UnknownNameError(
            f"Several runs begin with {prefix}: {some}{more}.",
            remedy="Give more of the run's id.",
            names=[run.run_id for run in runs],
        )
    (run,) = runs
    return Subject("step" if colon else "run", run=run, step_key=step_key if colon else None)


def unknown_step(run_id: str, step_key: str, known: Iterable[str]) -> UnknownNameError:
    """The error for a step that a run has not."""
    known = sorted(set(known))
    some = ", ".join(known[:_STEPS_SHOWN]) + (" and more" if len(known) > _STEPS_SHOWN else "")
    return UnknownNameError(
        f"Run {run_id} has no step {step_key!r}.",
        remedy=_near(step_key, known) or (f"Its steps: {some}." if known else "It has no steps."),
        names=[step_key],
    )


def _near(text: str, known: Iterable[str]) -> str:
    """A question for the names that are nearest; empty if none is near."""
    names = nearest(text, set(known))
    return f"Did you mean {' or '.join(names)}?" if names else ""
