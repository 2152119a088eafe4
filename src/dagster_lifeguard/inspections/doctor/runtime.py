"""The longest that a run may take: whether it is enough to wait for pools, too."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dagster_lifeguard.compat import health
from dagster_lifeguard.engine.rules.shown_names import pool_text
from dagster_lifeguard.insight.durations import read_durations, terms_of
from dagster_lifeguard.insight.shapes import SAMPLES_MIN
from dagster_lifeguard.inspections.doctor.check import Told, check
from dagster_lifeguard.inspections.doctor.phrases import duration

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dagster_lifeguard.inspections.doctor.examined import Examined

WINDOW_SECONDS = 7 * 86400.0
"""How far back usual waits are looked for."""


@check(severity="warning", source="instance")
def max_runtime_short(subject: Examined) -> Iterator[Told]:
    """Runs may be ended because their steps wait."""
    if not health.is_monitored(subject.instance) or subject.settings.granularity == "run":
        return  # Nothing ends a run for its age, or it waits before it starts.
    bounds = dict(_bounds(subject))
    if not bounds:
        return
    past = read_durations(
        subject.deployment, subject.settings, subject.now - WINDOW_SECONDS, subject.now
    )
    usual = {
        pool: (waits.quantile(0.95), past.holds[pool].quantile(0.95))
        for pool, waits in sorted(past.pool_waits.items())
        if len(waits) >= SAMPLES_MIN and pool in past.holds
    }
    for (setting, seconds), pools in bounds.items():
        short = [
            (pool, waited, held)
            for pool, (waited, held) in usual.items()
            if waited and waited + held > seconds and (pools is None or pool in pools)
        ]
        if short:
            yield Told(
                f"{setting} ends a run after {duration(seconds)}, which counts the time that its "
                "steps wait for pools: they usually need longer.",
                "Raise it above the wait and the execution together, or bound the execution alone "
                "inside the step.",
                names=[pool for pool, *_ in short],
                evidence=[
                    f"pool {pool_text(pool)}: 95 % of steps waited up to {duration(waited)} and "
                    f"executed up to {duration(held)}"
                    for pool, waited, held in short
                ],
            )


def _bounds(subject: Examined) -> Iterator[tuple[tuple[str, float], frozenset[str] | None]]:
    """What says how long runs may take, and the pools of these runs; None: all."""
    setting, seconds = health.max_runtime_of_all(subject.instance)
    if setting is not None and seconds:
        yield (setting, seconds), None
    tagged: dict[tuple[str, float], set[str]] = {}
    run_ids = [run.run_id for run in subject.latest_runs]
    for run in (*subject.unfinished, *subject.deployment.runs(run_ids)):
        setting, seconds = health.max_runtime_of(run.tags)
        if setting is not None and seconds:
            texts = run.pools or ()
            pools = {term.name for text in texts for term in terms_of(text, subject.settings)}
            tagged.setdefault((setting, seconds), set()).update(pools)
    for bound, pools in tagged.items():
        yield bound, frozenset(pools)


CHECKS = (max_runtime_short,)
