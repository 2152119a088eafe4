"""When Dagster ends a run that has run too long. The time that steps wait for pools counts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dagster_lifeguard.texts import date_text, duration_text

if TYPE_CHECKING:
    from dagster_lifeguard.deployment.contract import Deployment, Run


@dataclass(frozen=True, slots=True)
class Deadline:
    """How long a run may take from its start. The waits of its steps for pools are included.

    Attributes:
        setting: The setting that limits the run: a tag, or ``run_monitoring.max_runtime_seconds``.
        seconds: How long the run may take.
        at: When that time is over, in seconds since the epoch; None while the run has not started.
        is_enforced: Whether run monitoring is enabled; without it nothing ends the run. None if
            that cannot be seen.
    """

    setting: str
    seconds: float
    at: float | None
    is_enforced: bool | None


def deadline_of(deployment: Deployment, run: Run | None) -> Deadline | None:
    """The deadline of a run; None if it has none, or is over."""
    if run is None or run.is_over:
        return None
    # Here, so that completing a name in the shell does not wait for Dagster.
    from dagster_lifeguard.compat import health  # noqa: PLC0415

    setting, seconds = health.max_runtime_of(run.tags)
    is_enforced = None
    if deployment.instance is not None:
        is_enforced = health.is_monitored(deployment.instance)
        if setting is None:
            setting, seconds = health.max_runtime_of_all(deployment.instance)
    if setting is None or not seconds:
        return None
    at = None if run.started is None else run.started + seconds
    return Deadline(setting, seconds, at, is_enforced)


def deadline_text(deadline: Deadline) -> str:
    """The deadline in a sentence."""
    limit = f"{deadline.setting} is {duration_text(deadline.seconds)}"
    if deadline.is_enforced is False:
        return f"No deadline: {limit}, but run monitoring is off, so nothing ends this run."
    when = "once it has run for that long"
    if deadline.at is not None:
        when = f"at {date_text(deadline.at)}"
    condition = "" if deadline.is_enforced else ", where run monitoring is enabled,"
    return (
        f"Deadline:{condition} Dagster ends this run {when}: {limit}, and counts the time that "
        "its steps wait for pools."
    )
