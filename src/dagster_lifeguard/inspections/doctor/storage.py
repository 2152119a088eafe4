"""The storage: whether it knows pools, keeps their limits, and is the one that all use."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from dagster_lifeguard.engine.rules.shown_names import enumerate_some, pool_text, pools_text
from dagster_lifeguard.errors import ConfigError, PoolerError
from dagster_lifeguard.inspections.doctor.check import Told, check
from dagster_lifeguard.inspections.doctor.phrases import duration
from dagster_lifeguard.storage.event_log import PoolMethods

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dagster_lifeguard.inspections.doctor.examined import Examined


@check(severity="error", source="instance")
def pools_unsupported(subject: Examined) -> Iterator[Told]:
    """The storage does not know pools."""
    tables = subject.tables
    if not tables.is_sql and not tables.has_pools:
        yield Told(
            f"The storage {tables.storage} does not know pools, so no limit has an effect.",
            "Use Dagster's SQLite, PostgreSQL or MySQL storage, or one derived from them. A "
            "storage that wraps another has to pass on "
            "supports_global_concurrency_limits and the methods of pools.",
            names=[tables.storage],
            evidence=["supports_global_concurrency_limits: False"],
        )


@check(severity="error", source="instance")
def migration_needed(subject: Examined) -> Iterator[Told]:
    """The tables of the storage are older than this Dagster."""
    tables = subject.tables
    behind = tables.revision is not None and tables.revision[0] != tables.revision[1]
    if not tables.is_sql or (tables.has_pools and tables.has_limits and not behind):
        return
    lacking = "pools" if not tables.has_pools else "default limits of pools"
    has_all = tables.has_pools and tables.has_limits
    found, wanted = tables.revision or (None, None)
    yield Told(
        "The tables of the storage are older than this Dagster"
        + (". Limits work." if has_all else f" and do not know {lacking}."),
        "Stop webserver and daemon, keep a copy of the database, and migrate.",
        names=[tables.storage],
        evidence=[f"revision {found}, this Dagster's is {wanted}"],
        commands=["dagster instance migrate"],
    )


@check(severity="note", source="deployment")
def engine_off(subject: Examined) -> Iterator[Told]:
    """Dagster's own storage can let in more than the limit."""
    if subject.settings.granularity == "op" and not subject.has_engine():
        yield Told(
            "Dagster's own storage may let steps into a full pool if they ask at the same "
            "moment, and may leave one waiting for ever that asks as another leaves.",
            "The engine closes both gaps, on the same database.",
            commands=["lifeguard engine enable"],
        )


@check(severity="warning", source="instance")
def fleet_mixed(subject: Examined) -> Iterator[Told]:
    """Some processes use the engine and others Dagster's own storage."""
    found = subject.engine_status
    if found is None:
        return
    alive = [p for p in found.processes if p.seconds_left > 0]
    stock = [h for h in found.holders if h.world == "stock"]
    if stock and found.is_ours:
        yield Told(
            "The engine is on, and steps of processes on Dagster's own storage hold slots: "
            "they count, but such a process gets no new slot while one uses the engine.",
            "Start webserver, daemon and code servers again, so that all use the engine.",
            names=[h.run_id for h in stock],
            evidence=[f"{pool_text(h.pool)}: run {h.run_id}, step {h.step_key}" for h in stock],
        )
    elif alive and not found.is_ours:
        yield Told(
            "dagster.yaml names Dagster's own storage, and processes still use the engine: "
            "run workers started now wait for their end.",
            "Start webserver, daemon and code servers again, or switch the engine on.",
            names=[p.label for p in alive],
            evidence=[f"{p.label}: {duration(p.seconds_left)} left of its lease" for p in alive],
            commands=["lifeguard engine enable"],
        )


@check(severity="warning", source="instance")
def sessions_of_one_process(subject: Examined) -> Iterator[Told]:
    """A process has several sessions of the engine."""
    found = subject.engine_status
    alive = Counter(p.label for p in (found.processes if found else ()) if p.seconds_left > 0)
    several = {label: count for label, count in alive.items() if count > 1}
    if several:
        yield Told(
            f"{enumerate_some(list(several))}: one process has several sessions of the engine, "
            "each with a thread and connections of its own. It opens instances and does not close "
            "them, or opens them with different settings of the storage.",
            "Open one DagsterInstance in a process and keep it, or close each with dispose(); give "
            "all the same settings. To end what leaked, start the process again.",
            names=list(several),
            evidence=[f"{label}: {count} sessions" for label, count in several.items()],
        )


@check(severity="error", source="instance")
def engine_tables(subject: Examined) -> Iterator[Told]:
    """The engine's tables are of another version."""
    found = subject.engine_status
    if found is None or found.tables is None or found.usable_from is None:
        return
    newest = found.tables_known
    is_newer = found.usable_from > newest
    if is_newer or (found.tables < newest and found.is_ours):
        yield Told(
            f"The engine's tables are of version {found.tables}, "
            f"{'newer' if is_newer else 'older'} than this package's {newest}.",
            "Install the newest dagster-lifeguard everywhere."
            if is_newer
            else "Bring them up to date. A step that claims a slot does so, too.",
            evidence=[f"lifeguard_schema: {found.tables}"],
            commands=["pip install --upgrade dagster-lifeguard"]
            if is_newer
            else ["lifeguard engine enable"],
        )


@check(severity="note", source="instance")
def fleet_versions(subject: Examined) -> Iterator[Told]:
    """Processes have different versions of this package."""
    found = subject.engine_status
    alive = [p for p in (found.processes if found else ()) if p.seconds_left > 0]
    versions = dict.fromkeys(p.package for p in alive)
    if len(versions) > 1:
        yield Told(
            f"Processes that hold or wait have different versions of this package: "
            f"{enumerate_some(list(versions))}. Limits hold all the same.",
            "Finish the upgrade: the same version in every image and environment. Runs that "
            "execute keep theirs to their end.",
            names=[p.label for p in alive],
            evidence=[f"{p.label}: dagster-lifeguard {p.package}" for p in alive],
        )


@check(severity="error", source="instance")
def engine_connection(subject: Examined) -> Iterator[Told]:
    """The engine cannot use its connection to the database."""
    event_log = subject.instance.event_log_storage
    if not isinstance(event_log, PoolMethods):
        return
    try:
        event_log.lifeguard  # noqa: B018 - it is opened by being asked for
    except (PoolerError, ConfigError) as error:
        yield Told(error.message, error.remedy, names=error.names)


@check(severity="error", source="instance")
def slots_unmatched(subject: Examined) -> Iterator[Told]:
    """A pool has more or fewer slots than its limit says."""
    found = subject.engine_status
    if found is not None and found.unmatched and not found.is_ours:
        yield Told(
            f"{pools_text(found.unmatched)}: the database has more or fewer slots than the "
            "limit says, so that limit does not hold.",
            "Matching them is part of switching the engine off, which changes nothing else "
            "while it is off.",
            names=found.unmatched,
            evidence=[
                f"concurrency_slots does not match concurrency_limits: {pool_text(pool)}"
                for pool in found.unmatched
            ],
            commands=["lifeguard engine disable --yes"],
        )


CHECKS = (
    pools_unsupported,
    migration_needed,
    slots_unmatched,
    engine_tables,
    engine_connection,
    fleet_mixed,
    fleet_versions,
    sessions_of_one_process,
    engine_off,
)
