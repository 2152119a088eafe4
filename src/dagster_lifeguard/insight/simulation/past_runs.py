"""Past runs: when each was submitted and launched, and how long it lasted.

A table of runs tells when a run was submitted and when its process started. When the run queue
launched it is told by its events alone. Where these are not read, the usual time from launch to
start is taken off: the median of the runs of its job, or else of all runs whose events were read.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from dagster_lifeguard.insight.durations import quantile
from dagster_lifeguard.insight.simulation.doubts import Doubt
from dagster_lifeguard.texts import number

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from dagster_lifeguard.compat.health import RunQueue
    from dagster_lifeguard.deployment.contract import Run
    from dagster_lifeguard.deployment.history import RunExecution

MOMENTS_MAX = 200
"""Of so many of the latest runs the events are read, if those of all runs are not needed."""


@dataclass(frozen=True, slots=True)
class PastRun:
    """A run as it really was. Times are seconds since the epoch.

    Attributes:
        run: What the deployment tells of it.
        submitted: When it entered the run queue, or the beginning of the window if that is later.
        launched: When it left the queue.
        started: When its process started.
        ended: When it was over.
        is_queued: Whether it was in the queue within the window.
    """

    run: Run
    submitted: float
    launched: float
    started: float
    ended: float
    is_queued: bool


@dataclass(frozen=True, slots=True)
class PastQueue:
    """What is known of the run queue and of runs.

    Attributes:
        rules: How it lets runs go; None if there is no run queue.
        by_run: Whether the granularity is ``run``.
        runs: The runs of the window, oldest first; so they stay if they were submitted at once.
        moments: What the events of runs tell, by run id; without those that were not read.
        ahead: By how much the clock of the recording is ahead of that of the runs, in seconds.
    """

    rules: RunQueue | None = None
    by_run: bool = False
    runs: tuple[Run, ...] = ()
    moments: Mapping[str, RunExecution] = field(default_factory=dict)
    ahead: float = 0.0

    @property
    def pools(self) -> frozenset[str]:
        """The pools for which these runs ask."""
        return frozenset(pool for run in self.runs for pool in run.pools or ())

    @property
    def in_process(self) -> frozenset[str]:
        """The ids of the runs whose process executes their steps one after another.

        A run whose events were not read is taken to be like the other runs of its job.
        """
        of_job = {told.job_name: told.in_process for told in self.moments.values() if told.started}
        return frozenset(
            {run_id for run_id, told in self.moments.items() if told.in_process}
            | {
                run.run_id
                for run in self.runs
                if run.run_id not in self.moments and of_job.get(run.job_name)
            }
        )

    def doubts(self) -> Iterator[Doubt]:
        """What is not known of the run queue, and of runs."""
        if self.in_process and not self.by_run:
            yield Doubt(
                "one-step-at-a-time",
                "Runs whose process executes one step after another keep the order of their steps. "
                "While such a process executes a step, the engine may keep a free slot for the "
                "next; that is not played.",
            )
        if self.rules is None:
            yield Doubt(
                "arrivals-as-recorded",
                "Runs start when they did: there is no run queue. A step that started after "
                "another step of its run follows it.",
            )
            return
        yield Doubt(
            "queue-as-today",
            "Runs are submitted when they were and pass through the run queue with the limits "
            "of today for all runs and by tag. The time from launch to first step is as recorded. "
            "A step that started after another step of its run follows it.",
        )
        left_out = sum(run.status == "QUEUED" for run in self.runs)
        if left_out:
            yield Doubt(
                "queued-now",
                f"{number(left_out, 'run')} in the run queue now, not launched yet, "
                f"{'was' if left_out == 1 else 'were'} left out.",
            )

    def past_runs(self, since: float, until: float) -> list[PastRun]:
        """The runs that were launched, in the order in which they were submitted."""
        if self.rules is None:
            return []
        usual = _Startup(self.moments.values())
        found = (self._past_run(run, usual, since, until) for run in self.runs)
        launched = (run for run in found if run is not None)
        return sorted(launched, key=lambda past: past.submitted)

    def _past_run(self, run: Run, usual: _Startup, since: float, until: float) -> PastRun | None:
        told = self.moments.get(run.run_id)
        started = run.started if told is None or told.started is None else told.started
        launched = None if told is None else told.dequeued
        if launched is None:
            if started is None:
                return None  # It is in the queue, or was canceled there.
            launched = started - usual.of(run.job_name)
        submitted = run.created if told is None or told.enqueued is None else told.enqueued
        launched += self.ahead
        submitted = min(submitted + self.ahead, launched)
        is_queued = launched > since and (told is None or told.enqueued is not None)
        submitted = max(submitted, since) if is_queued else launched
        return PastRun(
            run=run,
            submitted=submitted,
            launched=launched,
            started=launched if started is None else max(launched, started + self.ahead),
            ended=max(launched, until if run.ended is None else run.ended + self.ahead),
            is_queued=is_queued,
        )


class _Startup:
    """How long it usually takes from the launch of a run to the start of its process."""

    def __init__(self, runs: Iterable[RunExecution]) -> None:
        seconds: dict[str, list[float]] = defaultdict(list)
        for run in runs:
            if run.dequeued is not None and run.started is not None:
                seconds[run.job_name].append(max(0.0, run.started - run.dequeued))
        self._of_job = {job: quantile(sorted(found), 0.5) for job, found in seconds.items()}
        every = sorted(second for found in seconds.values() for second in found)
        self._of_all = quantile(every, 0.5) if every else 0.0

    def of(self, job_name: str) -> float:
        return self._of_job.get(job_name, self._of_all)
