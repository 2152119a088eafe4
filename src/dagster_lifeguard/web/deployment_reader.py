"""The one reader of a server: it reads the deployment, however many pages are open."""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from dagster_lifeguard.errors import DeploymentError, LifeguardError, first_line
from dagster_lifeguard.insight.durations import Durations, terms_of_asset, uses
from dagster_lifeguard.insight.past import read_past, read_record
from dagster_lifeguard.insight.pools import runs_leaked
from dagster_lifeguard.inspections.audit.deployment_audit import audit
from dagster_lifeguard.web.expiries import Expiries
from dagster_lifeguard.web.limit_origins import LimitOriginReader, LimitOrigins
from dagster_lifeguard.web.look import Look, news_since
from dagster_lifeguard.web.recent_history import Recent
from dagster_lifeguard.web.seen_deployment import SeenDeployment, SeenQueue

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path

    from dagster_lifeguard.deployment.contract import Deployment, PoolState, Settings
    from dagster_lifeguard.deployment.history import RunExecution
    from dagster_lifeguard.insight.simulation.track_record import TrackRecord

T = TypeVar("T")

_log = logging.getLogger("dagster_lifeguard.web")

LOOK_SECONDS = 0.4
"""The pause between two looks at the pools, or as long as a look takes if that is longer."""

AGAIN_SECONDS = 5.0
"""The longest wait for the next look, after a change or for the first visitor."""

QUEUE_SECONDS = 0.8
"""The pause between two looks at the run queue, or ten times as long as such a look takes."""

HISTORY_SECONDS = 2.0
"""The pause between two looks at the history, or ten times as long as such a look takes."""

AUDITED_SECONDS = 3600.0
"""How much of the past is audited for the metrics."""

RECORD_PAUSE_SECONDS = 300.0
"""The pause between two judgements of estimates, or fifty times as long as one takes."""

AUDIT_PAUSE_SECONDS = 300.0
"""The pause between two audits, or fifty times as long as one takes."""

LIMITS_SECONDS = 5.0
"""The pause between two looks at what set the limits, or fifty times as long as one takes."""

GROUPS_SECONDS = 300.0
"""The pause between two reads of the asset groups."""

PAST_SECONDS = 30.0
"""The pause between two computations of percentiles."""

SILENT_SECONDS = 1.5
"""A deployment is shown as away if an answer takes longer than this and than four usual looks. With
the pause between two looks, that is within three seconds."""

_WATCH_SECONDS = 0.2
_USUAL_LOOKS = 4
_SHARE = 10
_RARE_SHARE = 50
_AFTER_TROUBLE_SECONDS = 1.0


class Counts(Protocol):
    """Counts what the history says; see ``metrics``."""

    def executed(self, before: RunExecution | None, run: RunExecution, settings: Settings) -> None:
        """Take what a run did since it was last read; ``before`` is None for a new run."""

    def expired(self, pools: Iterable[str]) -> None:
        """Take the pools whose slots the engine took back."""

    def audited(self, findings: int) -> None:
        """Take the number of findings in an audit of the last hour."""


LOOPS = 5
"""The most threads of a reader at once."""


class Reader:
    """Looks again and again, and wakes the streams that wait for news.

    Args:
        deployment: Where to look.
        window: The seconds of the past that are remembered; 0 for none.
        counts: Counts what was executed, and the slots that were taken back.
        file: The ``lifeguard.yaml`` that limits are compared with; None for none.
    """

    def __init__(
        self,
        deployment: Deployment,
        window: float,
        counts: Counts,
        file: Path | None = None,
    ) -> None:
        self._deployment = deployment
        self._recent = Recent(window)
        self._window = window
        self._counts = counts
        self._expiries = Expiries()
        self._origins = LimitOriginReader(file)
        self._grouped: float | None = None
        self._past_read: float | None = None
        self._look: Look | None = None
        self._queue: SeenQueue | None = None
        self._failure: LifeguardError | None = None
        self._news = asyncio.Event()
        self._hurry = asyncio.Event()
        self._begun = self._done = 0
        self._asked: float | None = None
        self._took = 0.0
        self._looked = asyncio.Event()

    @property
    def deployment(self) -> Deployment:
        """The deployment itself, for what must be known as it is now."""
        return self._deployment

    @property
    def window(self) -> float:
        """The seconds of the past that are remembered."""
        return self._window

    def look(self) -> Look:
        """What is known now.

        Raises:
            LifeguardError: The deployment has not been seen yet.
        """
        if self._look is None:
            raise self._failure or DeploymentError(
                f"{self._deployment.name} has not answered yet.",
                remedy="Try again in a moment.",
                names=[self._deployment.name],
            )
        return self._look

    async def first_look(self) -> Look:
        """What is known now. A server that has just started waits for its first look.

        Raises:
            LifeguardError: The deployment has not been seen yet.
        """
        if self._look is None and self._failure is None:
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._until_looked(1), AGAIN_SECONDS)
        return self.look()

    async def news(self, after: int) -> Look | None:
        """Wait until something is not as in the look of this number.

        Returns:
            The look that it is in; None if the deployment has not been seen yet.
        """
        while self._look is None or self._look.number == after:
            await self._news.wait()
            if self._look is None:
                return None
        return self._look

    async def look_again(self) -> None:
        """Look at once after a change, and wait for that look, up to ``AGAIN_SECONDS``."""
        wanted = self._begun + 1  # One that has begun already may have missed the change.
        self._hurry.set()
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._until_looked(wanted), AGAIN_SECONDS)

    async def _until_looked(self, number: int) -> None:
        while self._done < number:
            await self._looked.wait()

    async def run(self) -> None:
        """Look until cancelled. Without a window, nothing is read of the past."""
        again = self._again
        loops = [
            self._look_on(),
            self._watch_on(),
            again(
                "the run queue", self._see_queue, self._tell_queue,
                pause=QUEUE_SECONDS, times=_SHARE,
            ),
            again(
                "what set the limits", self._read_limits, self._tell_limits,
                pause=LIMITS_SECONDS, times=_RARE_SHARE,
            ),
        ]  # fmt: skip
        if self._window:
            loops += [
                again(
                    "the history", self._remember, self._tell_past,
                    pause=HISTORY_SECONDS, times=_SHARE,
                ),
                again(
                    "the audit of the last hour", self._audit, self._counts.audited,
                    pause=AUDIT_PAUSE_SECONDS, times=_RARE_SHARE,
                ),
                again(
                    "the record of estimates", self._judge, self._tell_record,
                    pause=RECORD_PAUSE_SECONDS, times=_RARE_SHARE,
                ),
            ]  # fmt: skip
        await asyncio.gather(*loops)

    async def _look_on(self) -> None:
        while True:
            self._asked = began = time.monotonic()
            self._begun += 1
            try:
                settings = await asyncio.to_thread(self._deployment.settings)
                states = await asyncio.to_thread(self._deployment.pools)
            except LifeguardError as error:
                self._trouble(error)
                pause = _AFTER_TROUBLE_SECONDS
            except Exception as error:  # noqa: BLE001 - a reader that ends would show old news for ever
                _log.exception("the deployment could not be looked at")
                self._trouble(_unexpected(error))
                pause = _AFTER_TROUBLE_SECONDS
            else:
                self._took = time.monotonic() - began
                self._seen(settings, states)
                pause = max(LOOK_SECONDS, self._took)
            self._asked = None
            self._done = self._begun
            looked, self._looked = self._looked, asyncio.Event()
            looked.set()
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._hurry.wait(), pause)
            self._hurry.clear()

    async def _watch_on(self) -> None:
        """Show the deployment as away while a look has no answer."""
        while True:
            await asyncio.sleep(_WATCH_SECONDS)
            waits = 0.0 if self._asked is None else time.monotonic() - self._asked
            if self._look is not None and waits > max(SILENT_SECONDS, _USUAL_LOOKS * self._took):
                self._trouble(_silent(self._deployment))

    def _seen(self, settings: Settings, states: tuple[PoolState, ...]) -> None:
        now, before = time.time(), self._look
        self._failure = None
        same = (
            before is not None
            and before.states == states
            and before.settings == settings
            and not before.trouble
        )
        if same:
            assert before is not None
            self._look = replace(before, at=now)
            return
        number = 0 if before is None else before.number + 1
        self._tell(
            Look(
                number=number,
                at=now,
                settings=settings,
                states=states,
                deployment=self._picture(settings, states),
                past=Durations(now, now) if before is None else before.past,
                limits=LimitOrigins() if before is None else before.limits,
                groups={} if before is None else before.groups,
                record=None if before is None else before.record,
                news_of=news_since(before, settings, states, number),
            )
        )

    def _trouble(self, error: LifeguardError) -> None:
        self._failure = error
        if self._look is not None and self._look.trouble != error.message:
            self._tell_news(self._look, [""], trouble=error.message)

    def _tell_news(self, look: Look, pools: Iterable[str], **changes: Any) -> None:
        """Tell a look with these changes, as news of these pools; ``""`` stands for all pools."""
        number = look.number + 1
        news_of = {**look.news_of, **dict.fromkeys(pools, number)}
        self._tell(replace(look, number=number, news_of=news_of, **changes))

    def _tell(self, look: Look) -> None:
        self._look = look
        news, self._news = self._news, asyncio.Event()
        news.set()

    def _picture(self, settings: Settings, states: tuple[PoolState, ...]) -> SeenDeployment:
        return SeenDeployment(self._deployment, settings, states, self._recent, self._queue)

    async def _again(
        self,
        what: str,
        read: Callable[[Look], T],
        tell: Callable[[T], object],
        *,
        pause: float,
        times: float,
    ) -> None:
        """Read something again and again, as long as the pools can be read.

        Args:
            what: What is read, for the log.
            read: Reads it, in a thread.
            tell: Takes what was read, in the event loop.
            pause: The pause between two reads, in seconds.
            times: The pause is at least this many times as long as the read took.
        """
        while True:
            look = self._look
            if look is None or look.trouble:
                await asyncio.sleep(LOOK_SECONDS)
                continue
            began = time.monotonic()
            try:
                tell(await asyncio.to_thread(read, look))
            except LifeguardError as error:
                _log.info("%s could not be read: %s", what, error.message)
            except Exception:  # noqa: BLE001 - a loop that ends would show old news for ever
                _log.exception("%s could not be read", what)
            await asyncio.sleep(max(pause, times * (time.monotonic() - began)))

    def _see_queue(self, look: Look) -> SeenQueue | None:
        if look.settings.granularity == "run":  # It is read with the pools.
            return None
        runs = self._deployment.unfinished_runs()
        # The pools were looked at before: a run that began to hold since then is not among these.
        leaked = runs_leaked(self._deployment, look.states, runs)
        return SeenQueue(runs, self._deployment.run_queue(), leaked)

    def _tell_queue(self, queue: SeenQueue | None) -> None:
        before, self._queue, look = self._queue, queue, self._look
        if look is None or queue is None or queue == before:
            return
        old = set() if before is None else set(_marks(before))
        pools = {pool for _, names in old ^ set(_marks(queue)) for pool in names}
        self._tell_news(look, pools, deployment=self._picture(look.settings, look.states))

    def _read_limits(self, look: Look) -> tuple[LimitOrigins, Mapping[str, str]]:
        limits = self._origins.read(self._deployment)
        now = time.monotonic()
        if self._grouped is not None and now - self._grouped < GROUPS_SECONDS:
            return limits, look.groups
        self._grouped = now
        by_asset = self._deployment.asset_groups()
        if not by_asset:
            return limits, {}
        groups: dict[str, str] = {}
        for asset, texts in self._deployment.assets().items():
            for term in terms_of_asset(asset, texts, look.settings):
                if asset in by_asset:
                    groups.setdefault(term.name, by_asset[asset])
        return limits, groups

    def _tell_limits(self, found: tuple[LimitOrigins, Mapping[str, str]]) -> None:
        (limits, groups), look = found, self._look
        if look is None or (look.limits == limits and look.groups == groups):
            return
        self._tell_news(look, [""], limits=limits, groups=groups)

    def _audit(self, _: Look) -> int:
        now = time.time()
        report = audit(self._deployment, since=now - AUDITED_SECONDS, until=now)
        return report.finding_count

    def _judge(self, look: Look) -> TrackRecord:
        return read_record(self._deployment, look.settings, time.time())

    def _tell_record(self, record: TrackRecord) -> None:
        look = self._look
        if look is not None and look.record != record:
            self._tell_news(look, [""], record=record)

    def _remember(self, look: Look) -> tuple[Durations | None, set[str]]:
        """Read what is new of the history.

        Returns:
            The past waits and holds, if it is time to compute them again; the pools of new runs.
        """
        now, began = time.time(), time.monotonic()
        self._counts.expired(self._expiries.read(self._deployment))
        news = self._recent.read(self._deployment, now, self._expiries.ends)
        for before, run in news:
            self._counts.executed(before, run, look.settings)
        self._expiries.forget(now - self._window, self._recent.unfinished)
        past = None
        if self._past_read is None or began - self._past_read > PAST_SECONDS:
            # No further back than is remembered: else the whole window is read each time.
            since = max(now - self._window, self._recent.since)
            past = read_past(look.deployment, look.settings, since, now)
            self._past_read = began
        return past, {use.pool for _, run in news for use in uses(run, look.settings)}

    def _tell_past(self, found: tuple[Durations | None, set[str]]) -> None:
        (past, pools), look = found, self._look
        if look is not None and (past is not None or pools):
            self._tell_news(look, pools, past=past or look.past)


def _marks(queue: SeenQueue) -> Iterator[tuple[tuple[str, str], frozenset[str]]]:
    """For each run, its id with its status, and the pools that it will ask for."""
    return (((run.run_id, run.status), run.pools or frozenset()) for run in queue.runs)


def _silent(deployment: Deployment) -> DeploymentError:
    return DeploymentError(
        "The last look at it has no answer yet.",
        remedy="See whether its database and the network to it work.",
        names=[deployment.name],
    )


def _unexpected(error: Exception) -> DeploymentError:
    return DeploymentError(
        f"The deployment could not be looked at: {first_line(error)}.",
        remedy="The server's log says more.",
    )
