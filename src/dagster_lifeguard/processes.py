"""Child processes that never outlive the block that started them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path
    from types import TracebackType

    from typing_extensions import Self

GRACE_SECONDS = 15.0


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

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
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
