"""Child processes that never outlive the block that started them, whatever signal ends it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path
    from types import FrameType

    from typing_extensions import Self

GRACE_SECONDS = 15.0


class NotedSignals:
    """Ctrl-C and SIGTERM inside a ``with`` block: noted when they come, raised where it is safe.

    A handler that raises may strike between the start of a child and the line that remembers it,
    and nobody ends that child. So the block asks for what was noted, between such lines, and is
    asked once more at its end. A second signal is somebody who will not wait, and raises at once.
    What the process ignored before, it goes on ignoring. For the main thread only.
    """

    def __init__(self) -> None:
        self._noted: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        for number in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, exc_type: object, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if exc_type is None:
            self.raise_noted()

    def raise_noted(self) -> None:
        """Go on if no signal came.

        Raises:
            KeyboardInterrupt: Ctrl-C came.
            SystemExit: SIGTERM came; with the exit code by which shells know it.
        """
        if self._noted == signal.SIGINT:
            raise KeyboardInterrupt
        if self._noted is not None:
            sys.exit(128 + self._noted)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        impatient = self._noted is not None
        self._noted = number
        if impatient:
            self.raise_noted()


@dataclass
class ChildProcess:
    """A process in a session of its own, so that it can be ended with all it started.

    It ends at the end of its ``with`` block, however the block ends: asked first, killed if it does
    not go within ``GRACE_SECONDS``. What it says goes to ``log``.
    """

    command: Sequence[str]
    directory: Path
    environment: Mapping[str, str]
    log: Path
    _process: subprocess.Popen[bytes] = field(init=False)

    def __enter__(self) -> Self:
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(  # noqa: S603  # the callers' own commands
                self.command,
                cwd=self.directory,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C reaches us alone, and we end the rest in order
            )
        return self

    def __exit__(self, *_: object) -> None:
        if self.exit_code == 0:
            return  # it ended in order, and so did what it started
        try:
            if self.exit_code is None:
                self._process.send_signal(signal.SIGINT)
                self._process.wait(GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            pass  # it had its time
        finally:
            # Also after a second Ctrl-C. Its code servers and run workers are in its session.
            if sys.platform != "win32":
                with suppress(ProcessLookupError):
                    os.killpg(self._process.pid, signal.SIGKILL)
            self._process.kill()
            self._process.wait()

    @property
    def exit_code(self) -> int | None:
        """What it returned; None while it runs."""
        return self._process.poll()

    def last_words(self, lines: int = 15) -> str:
        """The end of its log."""
        text = self.log.read_text(encoding="utf-8", errors="replace")
        return "\n".join(text.splitlines()[-lines:])
