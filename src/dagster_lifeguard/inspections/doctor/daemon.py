"""Dagster's daemon, without which queued runs wait for ever and leaked slots stay taken."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from dagster_lifeguard.compat.health import MONITORING_DAEMON, QUEUE_DAEMON, Daemon
from dagster_lifeguard.inspections.doctor.check import Told, check
from dagster_lifeguard.inspections.doctor.phrases import duration

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dagster_lifeguard.inspections.doctor.examined import Examined

SILENT_SECONDS = 150.0
"""A heartbeat comes every 30 s. Dagster itself calls a daemon unhealthy only after half an hour."""

_FOR_POOLS = {
    QUEUE_DAEMON: "no queued run starts",
    MONITORING_DAEMON: "no slot of a crashed run is freed",
}

_WHERE = ", or name the code with -w, -m or -f"
"""What Dagster's daemon asks for: without code it does not start."""


@check(severity="error", source="deployment")
def daemon_absent(subject: Examined) -> Iterator[Told]:
    """The daemon has never run on this instance."""
    missing = [d for d in _daemons(subject) if d.last_heartbeat is None]
    if missing:
        yield Told(
            "Dagster's daemon has never run on this instance: " + _without(missing) + ".",
            f"Start it in the directory of your project{_WHERE}. If one runs, it uses another "
            "DAGSTER_HOME.",
            names=[d.name for d in missing],
            evidence=[f"{d.name}: no heartbeat" for d in missing],
            commands=[_start(subject)],
        )


@check(severity="error", source="deployment")
def daemon_silent(subject: Examined) -> Iterator[Told]:
    """The daemon has stopped."""
    silent = {
        d: seconds
        for d in _daemons(subject)
        if d.last_heartbeat is not None
        and (seconds := subject.now - d.last_heartbeat) > SILENT_SECONDS
    }
    if silent:
        yield Told(
            "Dagster's daemon has stopped or hangs: " + _without(silent) + ".",
            "See its log for why it stopped. Start it again in the directory of your "
            f"project{_WHERE}.",
            names=[d.name for d in silent],
            evidence=[
                f"{d.name}: last heartbeat {duration(seconds)} ago" for d, seconds in silent.items()
            ],
            commands=[_start(subject)],
        )


@check(severity="warning", source="deployment")
def daemon_failing(subject: Examined) -> Iterator[Told]:
    """The daemon reports errors."""
    failing = [d for d in _daemons(subject) if d.errors]
    if failing:
        yield Told(
            "Dagster's daemon reports errors: " + _without(failing) + " while they last.",
            "See its log for the whole error.",
            names=[d.name for d in failing],
            evidence=[
                f"{d.name}: {(error.strip() or 'no message').splitlines()[0]}"
                for d in failing
                for error in d.errors
            ],
        )


def _daemons(subject: Examined) -> list[Daemon]:
    return [d for d in subject.deployment.daemons() if d.name in _FOR_POOLS]


def _without(found: list[Daemon] | dict[Daemon, float]) -> str:
    return " and ".join(_FOR_POOLS[d.name] for d in found)


def _start(subject: Examined) -> str:
    if subject.why_not("file") is not None:
        return "dagster-daemon run"  # There, with the DAGSTER_HOME of its webserver.
    return f"DAGSTER_HOME={shlex.quote(subject.name)} dagster-daemon run"


CHECKS = (daemon_absent, daemon_silent, daemon_failing)
