"""The run coordinator that a user puts into ``dagster.yaml``: the queue, without duplicates."""

from __future__ import annotations

import logging
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import dagster as dg

from dagster_lifeguard.compat import submissions
from dagster_lifeguard.compat.exclusion import exclusion
from dagster_lifeguard.engine.rules.duplicates import (
    DROPS,
    DUPLICATE_TAG,
    NO_DUPLICATE,
    covers,
    on_conflict_of,
    outputs_of,
    outputs_to_come,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from typing_extensions import Self

    from dagster_lifeguard.compat.storages import ConfigurableClassData
    from dagster_lifeguard.engine.rules.duplicates import Droppable, WorkStep

KEY = "lifeguard"

_BECAUSE = "The rules of its assets say so: on_conflict."

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Decision:
    """What to do with a run that is submitted.

    Attributes:
        kept: The run in whose favour the new one is dropped; None to queue it.
        dropped: The runs that are to be dropped in favour of the new one.
        drops: Where a run may stand that is dropped.
    """

    kept: dg.DagsterRun | None = None
    dropped: Sequence[dg.DagsterRun] = ()
    drops: frozenset[Droppable] = frozenset()


class LifeguardRunCoordinator(dg.QueuedRunCoordinator):
    """Dagster's run queue, which heeds what the policy says of duplicates: ``on_conflict``.

    Configured as the queue is, with one key more::

        run_coordinator:
          module: dagster_lifeguard.storage.run_coordinator
          class: LifeguardRunCoordinator
          config:
            lifeguard: {ignore_tags: [team]}

    Guarantees:
        A run is dropped only for another that does all it asks for, and of two such runs that are
        submitted at once, one stays. A run about which nothing can be found out is queued.

    Args:
        ignore_tags: Tags that make no difference to what a run does.
        inst_data: How Dagster configured it.
        queue: What ``QueuedRunCoordinator`` takes.
    """

    def __init__(
        self,
        *,
        ignore_tags: Sequence[str] = (),
        inst_data: ConfigurableClassData | None = None,
        **queue: Any,
    ) -> None:
        super().__init__(inst_data=inst_data, **queue)
        self._ignore_tags = frozenset(ignore_tags)

    @classmethod
    def config_type(cls) -> Any:
        stock = super().config_type()
        assert isinstance(stock, dict)
        ours = {"ignore_tags": dg.Field([str], is_required=False, default_value=[])}
        return {**stock, KEY: dg.Field(ours, is_required=False)}

    @classmethod
    def from_config_value(
        cls, inst_data: ConfigurableClassData, config_value: Mapping[str, Any]
    ) -> Self:
        queue = dict(config_value)
        ours = queue.pop(KEY, None) or {}
        return cls(inst_data=inst_data, **ours, **queue)

    def submit_run(self, context: dg.SubmitRunContext) -> dg.DagsterRun:
        """Queue a run, or drop it, or drop others in its favour, as the rules of its assets say."""
        run = context.dagster_run
        if run.status is not dg.DagsterRunStatus.NOT_STARTED:
            return super().submit_run(context)
        with ExitStack() as stack:
            try:
                decision = self._decide(run, stack)
            except Exception as error:
                # Queue the run after any error: a run too many does less harm than a missing run.
                _logger.exception("Run %s is queued without a look for duplicates", run.run_id)
                message = "Queued without a look for duplicates, which failed."
                submissions.tell(self._instance, run, message, error=error)
                decision = _Decision()
            if decision.kept is not None:
                return self._skip(run, decision.kept)
            if DUPLICATE_TAG in run.tags:
                self._instance.add_run_tags(run.run_id, {DUPLICATE_TAG: NO_DUPLICATE})
            # First the new run, so that nothing is lost if this process dies before the end.
            queued = super().submit_run(context)
            launched = [
                other
                for other in decision.dropped
                if not self._cancel_in_queue(other, run, decision.drops)
            ]
        # A run worker may be slow to answer, and no other submission need wait for that.
        for other in launched:
            self._terminate(other, run)
        return queued

    def _decide(self, run: dg.DagsterRun, stack: ExitStack) -> _Decision:
        """Decide; if there is anything to decide, the stack holds the lock from then on."""
        steps = submissions.planned_steps(self._instance, run)
        on_conflict = on_conflict_of(steps)
        wanted = outputs_of(steps)
        if on_conflict == "queue" or not wanted:
            return _Decision()
        stack.enter_context(exclusion(self._instance))
        ahead = submissions.runs_ahead(self._instance, run)
        if on_conflict == "skip_new":
            return _Decision(kept=next(self._standing_in_for(run, wanted, ahead), None))
        drops = DROPS[on_conflict]
        return _Decision(dropped=list(self._replaced_by(run, wanted, ahead, drops)), drops=drops)

    def _standing_in_for(
        self, run: dg.DagsterRun, wanted: frozenset[str], ahead: Sequence[dg.DagsterRun]
    ) -> Iterator[dg.DagsterRun]:
        """The runs that will do all that the new one asks for."""
        order = submissions.order_of(run, self._ignore_tags)
        for other in ahead:
            if submissions.order_of(other, self._ignore_tags).stands_in_for(order):
                steps = self._steps(other)
                # Cheap things first: only what would cover it is asked how far it is.
                if covers(outputs_of(steps), wanted):
                    progress = submissions.progress_of(self._instance, other)
                    if covers(outputs_to_come(steps, progress), wanted):
                        yield other

    def _replaced_by(
        self,
        run: dg.DagsterRun,
        made: frozenset[str],
        ahead: Sequence[dg.DagsterRun],
        drops: frozenset[Droppable],
    ) -> Iterator[dg.DagsterRun]:
        """The runs all of whose work the new one will do, and that may be dropped."""
        order = submissions.order_of(run, self._ignore_tags)
        for other in ahead:
            if (
                submissions.where(other) in drops
                and order.stands_in_for(submissions.order_of(other, self._ignore_tags))
                and covers(made, outputs_of(self._steps(other)))
            ):
                yield other

    def _steps(self, run: dg.DagsterRun) -> Sequence[WorkStep]:
        return submissions.planned_steps(self._instance, run)

    def _skip(self, run: dg.DagsterRun, kept: dg.DagsterRun) -> dg.DagsterRun:
        where = "is queued" if submissions.where(kept) == "queued" else "is in progress"
        message = f"Not queued: run {kept.run_id} {where} and does all that this run asks for."
        self._instance.add_run_tags(run.run_id, {DUPLICATE_TAG: kept.run_id})
        submissions.tell(self._instance, run, f"{message} {_BECAUSE}", other=kept.run_id)
        submissions.mark_cancelled(self._instance, run, message)
        return submissions.reloaded(self._instance, run.run_id)

    def _cancel_in_queue(
        self, other: dg.DagsterRun, run: dg.DagsterRun, drops: frozenset[Droppable]
    ) -> bool:
        """Cancel a run that was not launched yet; whether that was the whole matter."""
        other = submissions.reloaded(self._instance, other.run_id)
        if submissions.where(other) not in drops:  # it went on meanwhile, or is at its end
            return True
        if submissions.where(other) != "queued":
            return False
        self._cancel(other, run)
        return True

    def _cancel(self, other: dg.DagsterRun, run: dg.DagsterRun) -> None:
        message = f"Canceled in favour of run {run.run_id}, which does all that this run asks for."
        self._instance.add_run_tags(other.run_id, {DUPLICATE_TAG: run.run_id})
        submissions.tell(self._instance, other, f"{message} {_BECAUSE}", other=run.run_id)
        submissions.mark_cancelled(self._instance, other, message)
        self._tell_successor(run, other)

    def _terminate(self, other: dg.DagsterRun, run: dg.DagsterRun) -> None:
        """Have a launched run ended, as a user would; if that fails, both go on.

        A run whose worker the launcher does not reach before it has begun is marked as canceled,
        as Dagster's UI does by force.

        The tag comes first: Dagster writes all of a run to change a tag or its status, so the end
        that the run's process writes and a later tag could undo each other.
        """
        message = (
            f"Terminated in favour of run {run.run_id}, which does all that this run asks for."
        )
        self._instance.add_run_tags(other.run_id, {DUPLICATE_TAG: run.run_id})
        submissions.tell(self._instance, other, f"{message} {_BECAUSE}", other=run.run_id)
        done, failure = False, None
        try:
            done = submissions.terminate(self._instance, other.run_id)
        except Exception as error:
            _logger.exception("Run %s could not be terminated", other.run_id)
            failure = error
        if done:
            self._tell_successor(run, other)
        elif submissions.has_not_begun(self._instance, other.run_id):
            self._cancel(submissions.reloaded(self._instance, other.run_id), run)
        else:
            self._instance.add_run_tags(other.run_id, {DUPLICATE_TAG: NO_DUPLICATE})
            self._tell_of_failure(run, other, failure)

    def _tell_successor(self, run: dg.DagsterRun, other: dg.DagsterRun) -> None:
        message = f"Takes the place of run {other.run_id}. {_BECAUSE}"
        submissions.tell(self._instance, run, message, other=other.run_id)

    def _tell_of_failure(
        self, run: dg.DagsterRun, other: dg.DagsterRun, error: Exception | None
    ) -> None:
        for told, named in ((run, other), (other, run)):
            message = f"Run {other.run_id} could not be terminated in favour of run {run.run_id}."
            submissions.tell(self._instance, told, message, other=named.run_id, error=error)
