"""The recent history of a deployment, kept up to date: only what is new is read again."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from dagster_lifeguard.deployment.contract import Deployment
    from dagster_lifeguard.deployment.history import RunExecution, StepExecution

STEPS_MAX = 100_000
"""The most executions of steps in memory, the newest ones."""

_MARGIN_SECONDS = 30.0
"""How far clocks may differ, and how late a run may be written down."""


class Recent:
    """The runs that were not over before a window of time, but not those in the run queue.

    A run in the queue executed nothing yet; however many there are, none of them is read.

    One thread calls ``read``; any may call ``history``.

    Args:
        window: In seconds; 0 remembers nothing.
    """

    def __init__(self, window: float) -> None:
        self._window = window
        self._runs: dict[str, RunExecution] = {}
        self._since = float("inf")
        self._until: float | None = None

    def read(
        self, deployment: Deployment, now: float, ends: Mapping[tuple[str, str], float]
    ) -> list[tuple[RunExecution | None, RunExecution]]:
        """Read what is new, and return each run that has changed, as it was and as it is.

        The first time nothing counts as new.

        Args:
            deployment: Where the history is.
            now: Until when.
            ends: For each step of a run, when its slots were taken back; see ``expiries``.
        """
        if not self._window:
            return []
        first = self._until is None
        edge = now - self._window
        since = edge if self._until is None else max(edge, self._until - _MARGIN_SECONDS)
        runs = dict(self._runs)
        news = []
        seen = set()
        for found in deployment.history(since, queued=False):
            run = ended_by(ends, found)
            seen.add(run.run_id)
            before = runs.get(run.run_id)
            if run != before:
                runs[run.run_id] = run
                news.append((before, run))
        # Every run under way is read each time: one that is not was deleted.
        runs = {r.run_id: r for r in runs.values() if r.ended is not None or r.run_id in seen}
        kept_since = edge if first else max(edge, self._since)
        self._runs, self._since = _bounded(runs, kept_since)
        self._until = now
        return [] if first else news

    @property
    def since(self) -> float:
        """Since when all is known; infinite before the first ``read``."""
        return self._since

    @property
    def unfinished(self) -> frozenset[str]:
        """The ids of the runs that are not over."""
        return frozenset(run_id for run_id, run in self._runs.items() if run.ended is None)

    def history(self, since: float, until: float | None = None) -> tuple[RunExecution, ...] | None:
        """The runs that were not over before ``since``; None if that is more than is known."""
        if self._until is None or since < self._since:
            return None
        found = _from(self._runs, since)
        if until is not None:
            found = (run for run in found if _begun(run) <= until)
        return tuple(found)


def ended_by(ends: Mapping[tuple[str, str], float], run: RunExecution) -> RunExecution:
    """A run in which a step without an end is over once its slots were taken back.

    A killed process writes no end; without this, its step would seem to hold slots for ever.
    """

    def end(step: StepExecution) -> StepExecution:
        at = ends.get((step.run_id, step.step_key), 0.0)
        return replace(step, ended=at) if step.ended is None and at > step.started else step

    steps = tuple(map(end, run.steps))
    return run if steps == run.steps else replace(run, steps=steps)


def _from(runs: dict[str, RunExecution], since: float) -> Iterator[RunExecution]:
    for run in runs.values():
        if run.ended is None or run.ended >= since:
            yield run


def _begun(run: RunExecution) -> float:
    """The first known moment of a run."""
    known = (run.enqueued, run.dequeued, run.started)
    return next((moment for moment in known if moment is not None), float("-inf"))


def _bounded(runs: dict[str, RunExecution], since: float) -> tuple[dict[str, RunExecution], float]:
    """Drop the oldest runs; return the others, and since when they are complete."""
    kept = {run.run_id: run for run in _from(runs, since)}
    count = sum(1 + len(run.steps) for run in kept.values())
    if count > STEPS_MAX:
        over = [run for run in kept.values() if run.ended is not None]
        for run in sorted(over, key=lambda run: run.ended or 0.0):
            del kept[run.run_id]
            since = max(since, (run.ended or 0.0) + 1e-6)
            count -= 1 + len(run.steps)
            if count <= STEPS_MAX:
                break
    return kept, since
