"""``dagster.yaml``: whether it is there, is loaded, and says what has an effect."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

from dagster_lifeguard.compat import health
from dagster_lifeguard.engine.rules.shown_names import enumerate_some
from dagster_lifeguard.errors import ConfigError
from dagster_lifeguard.inspections.doctor.check import Told, check
from dagster_lifeguard.limits.dagster_yaml import load_as_dagster_does
from dagster_lifeguard.limits.old_settings import MOVED, setting

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from dagster_lifeguard.inspections.doctor.examined import Examined
    from dagster_lifeguard.limits.dagster_yaml import DoubledKey

_MISNAMED = ("dagster.yml", "Dagster.yaml", "dagster.yaml.txt", "dagster.yaml.yaml")


@check(severity="warning", source="file")
def yaml_absent(subject: Examined) -> Iterator[Told]:
    """There is no dagster.yaml in DAGSTER_HOME."""
    if not subject.file.exists():
        yield Told(
            f"There is no {subject.file}, so every setting is Dagster's default: pools are "
            "unlimited, and slots of crashed runs stay taken.",
            "Write one.",
            names=[str(subject.file)],
            commands=["lifeguard init"],
        )


@check(severity="error", source="file")
def yaml_misplaced(subject: Examined) -> Iterator[Told]:
    """A dagster.yaml is not loaded, for its name or place."""
    if subject.file.exists():
        return
    home, here = subject.file.parent, subject.machine.here
    places = [home / name for name in _MISNAMED]
    places += [here / "dagster.yaml", here / "dagster.yml"] if here != home else []
    for found in filter(_is_file_of_that_case, places):
        yield Told(
            f"{found} is not loaded: Dagster reads {subject.file} and no other.",
            "Give it that name and place.",
            names=[str(found)],
            commands=[shlex.join(["cp", str(found), str(subject.file)])],
        )


def _is_file_of_that_case(path: Path) -> bool:
    return path.parent.is_dir() and any(path == found for found in path.parent.iterdir())


@check(severity="error", source="file")
def settings_conflict(subject: Examined) -> Iterator[Told]:
    """Two settings of one thing exclude each other."""
    moves = conflicts(subject)
    if moves:
        yield Told(
            f"Dagster refuses {subject.file}: it sets one thing in two places.",
            "Move each to where it belongs now: "
            + ", ".join(f"{old} to {new}" for old, new in moves)
            + ".",
            names=[old for old, _ in moves],
            evidence=[subject.refusal or ""],
            commands=["lifeguard init"],
        )


@check(severity="error", source="file")
def settings_refused(subject: Examined) -> Iterator[Told]:
    """Dagster refuses dagster.yaml."""
    if subject.refusal is not None and not conflicts(subject):
        yield Told(
            f"Dagster refuses {subject.file}, so nothing starts with it.",
            "Correct it as Dagster says.",
            names=[str(subject.file)],
            evidence=[subject.refusal],
            commands=["dagster instance info"],
        )


@check(severity="note", source="file")
def keys_doubled(subject: Examined) -> Iterator[Told]:
    """A key stands twice in dagster.yaml."""
    _, doubled = _read(subject)
    if doubled:
        names = [key.path for key in doubled]
        yield Told(
            f"{enumerate_some(names)} {'stands' if len(names) == 1 else 'stand'} in "
            f"{subject.file} more than once. Dagster reads the last one and no other.",
            "Take the others out. Under Dagster's Helm chart, whose own blocks come first, "
            "nothing is to be done.",
            names=names,
            evidence=[
                f"{key.path}: lines {', '.join(map(str, key.lines))}; the last one counts"
                for key in doubled
            ],
        )


@check(severity="error", source="file")
def instance_unopenable(subject: Examined) -> Iterator[Told]:
    """The instance cannot be opened."""
    if subject.refusal is None and subject.why_not("instance") is not None:
        yield Told(
            f"The instance in {subject.file.parent} cannot be opened.",
            subject.remedy
            or "Check that its database runs and that the module of its storage is installed.",
            names=[str(subject.file)],
            evidence=[subject.trouble],
            commands=["dagster instance info"],
        )


@check(severity="warning", source="instance")
def setting_without_effect(subject: Examined) -> Iterator[Told]:
    """A setting has no effect."""
    document = _document(subject)
    if health.run_queue(subject.instance) is None:
        name = health.run_coordinator_name(subject.instance)
        for path in ("concurrency.runs", "concurrency.pools.op_granularity_run_buffer"):
            if setting(document, path):
                yield Told(
                    f"{path} has no effect: it is for the run queue, and runs go around it.",
                    "Take run_coordinator out of dagster.yaml, so that runs are queued.",
                    names=[path],
                    evidence=[f"run_coordinator: {name}"],
                )
    given = setting(document, "run_monitoring") or {}
    others = [f"run_monitoring.{name}" for name in given if name != "enabled"]
    if others and not given.get("enabled"):
        yield Told(
            f"{enumerate_some(others)} {'has' if len(others) == 1 else 'have'} no effect: "
            "run monitoring is not enabled.",
            "Say run_monitoring: enabled: true in dagster.yaml, and start the daemon again.",
            names=others,
            evidence=[f"run_monitoring.enabled: {given.get('enabled', 'not set')}"],
        )


@check(severity="warning", source="instance")
def monitoring_off(subject: Examined) -> Iterator[Told]:
    # The engine takes a dead holder's slots back by itself.
    """Nothing frees the slots of a run that crashed."""
    if subject.why_not("deployment") is None and subject.settings.engine:
        return
    if health.free_slots_after_seconds(subject.instance) is None:
        yield Told(
            "Slots of a run that crashed or was cancelled stay taken for ever: no run "
            "monitoring frees them.",
            "Add run_monitoring: {enabled: true, free_slots_after_run_end_seconds: 60} to "
            "dagster.yaml, and start the daemon again.",
            names=[str(subject.file)],
            commands=["lifeguard doctor --fix"],
        )


def conflicts(subject: Examined) -> tuple[tuple[str, str], ...]:
    """The older settings for which Dagster refuses the file, and what they are called now."""
    if subject.refusal is None:
        return ()
    document = _document(subject)
    return tuple(
        (old, new)
        for old, new, beside in MOVED
        if setting(document, old) is not None
        and any(setting(document, b) is not None for b in beside)
    )


def _document(subject: Examined) -> Any:
    document, _ = _read(subject)
    return document


def _read(subject: Examined) -> tuple[Any, tuple[DoubledKey, ...]]:
    if not subject.file.exists():
        return {}, ()
    try:
        text = subject.file.read_text(encoding="utf-8")
        return load_as_dagster_does(text, str(subject.file))
    except (ConfigError, OSError, UnicodeDecodeError):
        return {}, ()  # It is refused for that.


CHECKS = (
    yaml_absent,
    yaml_misplaced,
    settings_conflict,
    settings_refused,
    keys_doubled,
    instance_unopenable,
    setting_without_effect,
    monitoring_off,
)
