"""What a person means by a name: an asset, a run, a step or a pool; or what it may have been."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from dagster_lifeguard.errors import UnknownNameError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from dagster_lifeguard.deployment.contract import Deployment, Run

_RUNS_SHOWN = 5
_NEAR_MAX = 3


@dataclass(frozen=True, slots=True)
class Subject:
    """What is meant.

    Attributes:
        kind: What it is.
        name: The asset as ``a/b``, or the pool; empty for a run or step.
        run: The run, or the run of the step.
        step_key: The step; None for all steps of a run.
    """

    kind: Literal["asset", "pool", "run", "step"]
    name: str = ""
    run: Run | None = None
    step_key: str | None = None


def asset_or_run(deployment: Deployment, text: str) -> Subject:
    """The asset, run or step that is meant; a run by the beginning of its id.

    Raises:
        UnknownNameError: None is, or several runs are.
    """
    assets = deployment.assets()
    if text in assets:
        return Subject("asset", text)
    found = _run_or_step(deployment, text)
    if found is not None:
        return found
    if any(state.pool == text for state in deployment.pools()):
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
    known = {state.pool for state in deployment.pools()}
    if text in known:
        return Subject("pool", text)
    found = _run_or_step(deployment, text)
    if found is not None:
        return found
    raise UnknownNameError(
        f"{deployment.name} knows no pool and no run {text!r}.",
        remedy=_near(text, known)
        or "Give a pool, a run's id or the beginning of it, or RUN_ID:STEP.",
        names=[text],
    )


def known_pool(deployment: Deployment, text: str) -> str:
    """The pool of this name.

    Raises:
        UnknownNameError: It has no limit, no holder and no waiter, and no asset has it.
    """
    known = {state.pool for state in deployment.pools()}
    if text in known:
        return text
    known |= {pool for pools in deployment.assets().values() for pool in pools}
    if text in known:
        return text
    raise UnknownNameError(
        f"{deployment.name} knows no pool {text!r}.",
        remedy=_near(text, known) or "List all pools with: lifeguard status --all",
        names=[text],
    )


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
    some = ", ".join(known[:_NEAR_MAX]) + (" and more" if len(known) > _NEAR_MAX else "")
    return UnknownNameError(
        f"Run {run_id} has no step {step_key!r}.",
        remedy=_near(step_key, known) or (f"Its steps: {some}." if known else "It has no steps."),
        names=[step_key],
    )


def _near(text: str, known: Iterable[str]) -> str:
    """A question for the names that are nearest; empty if none is near."""
    by_lower = {name.lower(): name for name in known}
    near = difflib.get_close_matches(text.lower(), by_lower, n=_NEAR_MAX, cutoff=0.6)
    if not near and text:
        near = [name for name in by_lower if text.lower() in name][:_NEAR_MAX]
    names = [by_lower[name] for name in near]
    return f"Did you mean {' or '.join(names)}?" if names else ""
