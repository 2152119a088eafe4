"""What a command is reading, told on the terminal once that takes a while."""

from __future__ import annotations

import sys
import threading
import time
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from dagster_lifeguard.deployment.contract import Deployment

_AFTER_SECONDS = 1.0
_READS = {
    "pools": "the pools",
    "run_queue": "the run queue",
    "unfinished_runs": "the runs that are not over",
    "runs": "runs",
    "runs_between": "past runs, without their events",
    "find_runs": "runs",
    "assets": "the assets",
    "history": "past runs",
    "executions": "what runs executed",
    "life_signs": "the signs of life of processes",
}
"""The methods of a deployment that may take long, and what each reads."""


class WatchedDeployment:
    """A deployment with a line on stderr that tells for how long something is being read.

    Args:
        deployment: Answers everything that is asked.
        tell: Writes a text on the terminal.
        after_seconds: What takes less is not told of.
    """

    def __init__(
        self, deployment: Deployment, tell: Callable[[str], None], after_seconds: float
    ) -> None:
        self._deployment = deployment
        self._tell = tell
        self._after_seconds = after_seconds
        self._is_reading = False
        self._what = ""

    def __getattr__(self, name: str) -> Any:
        """The same as of the deployment; a read that may take long is told."""
        found = getattr(self._deployment, name)
        if name not in _READS:
            return found
        watch = self._watch_each if name == "history" else self._watch
        return partial(watch, found, _READS[name])

    def _watch(self, read: Callable[..., Any], what: str, *args: Any, **kwargs: Any) -> Any:
        with self._reading(what):
            return read(*args, **kwargs)

    def _watch_each(
        self, read: Callable[..., Any], what: str, *args: Any, **kwargs: Any
    ) -> Iterator[Any]:
        with self._reading(what):
            for count, run in enumerate(read(*args, **kwargs), start=1):
                self._what = f"{what}, {count:,} so far"
                yield run

    @contextmanager
    def _reading(self, what: str) -> Iterator[None]:
        if self._is_reading:  # One method asks another.
            yield
            return
        self._is_reading, self._what = True, what
        over = threading.Event()
        teller = threading.Thread(target=self._tell_until, args=(over,), daemon=True)
        teller.start()
        try:
            yield
        finally:
            over.set()
            teller.join()
            self._is_reading = False

    def _tell_until(self, over: threading.Event) -> None:
        began = time.monotonic()
        told = False
        while not over.wait(self._after_seconds):
            told = True
            self._tell(f"\r\x1b[2KReading {self._what} ... {time.monotonic() - began:.0f} s")
        if told:
            self._tell("\r\x1b[2K")


def with_progress(deployment: Deployment, after_seconds: float = _AFTER_SECONDS) -> Deployment:
    """The deployment, which tells what is being read of it if a person sees it."""
    if not (sys.stderr.isatty() and sys.stdout.isatty()):
        return deployment

    def tell(text: str) -> None:
        sys.stderr.write(text)
        sys.stderr.flush()

    return WatchedDeployment(deployment, tell, after_seconds)
