"""What set the limit of each pool, since when, and where it differs from ``lifeguard.yaml``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from dagster_lifeguard.deployment.history import read_ledger
from dagster_lifeguard.engine.rules.model import Entry, EntryKind
from dagster_lifeguard.engine.rules.pool_settings import FallBack
from dagster_lifeguard.engine.store.retry import retry
from dagster_lifeguard.errors import LifeguardError
from dagster_lifeguard.insight.pool_account import open_ledger
from dagster_lifeguard.limits.plan import make_plan
from dagster_lifeguard.policy.config import Config
from dagster_lifeguard.texts import limit_text
from dagster_lifeguard.web.expiries import LATE_MAX

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from dagster_lifeguard.deployment.contract import Deployment
    from dagster_lifeguard.insight.overview import PoolSummary
    from dagster_lifeguard.limits.plan import PoolPlan
    from dagster_lifeguard.web.changes import PoolChange

Source = Literal["file", "own", "temporary", "default", "none"]

_SAME_CHANGE_SECONDS = 60.0
"""A change of this server and one in the ledger are the same if they are not farther apart."""


@dataclass(frozen=True, slots=True)
class LimitOrigin:
    """What set the limit of a pool.

    Attributes:
        source: ``file``: the pool's own limit, which is the one that the file declares. ``own``:
            its own limit. ``temporary``: a limit that falls back by itself. ``default``: it has
            none, and the default limit is in force. ``none``: it is unlimited.
        at: When it was set; None if that is not known.
        who: The visitor who set it over this server; empty if that is unknown.
        drift: How the pool differs from the file: ``the file says 4``; empty if it does not.
    """

    source: Source
    at: float | None = None
    who: str = ""
    drift: str = ""


@dataclass(frozen=True, slots=True)
class LimitOrigins:
    """What is known of the limits of all pools.

    Attributes:
        file: The name of the file that limits are compared with; empty for none.
        trouble: Why they could not be compared with it; empty if they could.
        changed: For each pool the newest change of its limit, by the engine's ledger.
        declared: The pools that the file names.
        drifts: For each pool that differs from the file, how.
        default_drift: How the default limit differs from the file; empty if it does not.
    """

    file: str = ""
    trouble: str = ""
    changed: Mapping[str, Entry] = field(default_factory=dict)
    declared: frozenset[str] = frozenset()
    drifts: Mapping[str, str] = field(default_factory=dict)
    default_drift: str = ""

    def of(self, pool: PoolSummary, change: PoolChange | None) -> LimitOrigin:
        """What set the limit of a pool.

        Args:
            pool: The pool.
            change: The newest change of its limit over this server; None for none.
        """
        drift = self.drifts.get(pool.pool, "")
        if pool.from_default or pool.limit is None:
            return LimitOrigin("default" if pool.from_default else "none", drift=drift)
        is_declared = pool.pool in self.declared and not drift
        source: Source = "file" if is_declared else "own"
        if pool.fall_back is not None:
            source = "temporary"
        at = _since(self.changed.get(pool.pool), pool.limit)
        if change is None or change.after != pool.limit:
            return LimitOrigin(source, at, drift=drift)
        if at is None:
            return LimitOrigin(source, change.at, change.who, drift)
        is_same = abs(at - change.at) <= _SAME_CHANGE_SECONDS
        return LimitOrigin(source, at, change.who if is_same else "", drift)


class LimitOriginReader:
    """Reads what set the limits, again and again.

    Args:
        file: The ``lifeguard.yaml`` to compare with; None for none.
    """

    def __init__(self, file: Path | None) -> None:
        self._file = file
        self._after = 0
        self._changed: dict[str, Entry] = {}

    def read(self, deployment: Deployment) -> LimitOrigins:
        """What is known now; of the ledger only what is new is read.

        Raises:
            LifeguardError: The deployment cannot be read.
        """
        self._read_ledger(deployment)
        changed = dict(self._changed)
        if self._file is None:
            return LimitOrigins(changed=changed)
        name = self._file.name
        try:
            config = Config.from_yaml(self._file)
            plan = make_plan(config, deployment)
        except LifeguardError as error:
            return LimitOrigins(name, f"{error.message} {error.remedy}", changed)
        default_drift = ""
        if plan.default_drifts:
            default_drift = (
                f"the file says {limit_text(plan.default_declared)}, "
                f"the deployment has {limit_text(plan.settings.default_limit)}"
            )
        return LimitOrigins(
            file=name,
            changed=changed,
            declared=frozenset(p.pool for p in plan.pools if p.origin != "undeclared"),
            drifts={p.pool: drift for p in plan.pools if (drift := _drift(p))},
            default_drift=default_drift,
        )

    def _read_ledger(self, deployment: Deployment) -> None:
        with open_ledger(deployment, deployment.settings()) as store:
            if store is None:
                return
            newest = retry(lambda: store.ledger(count_max=1))
            for entry in read_ledger(store, kind=EntryKind.LIMIT, first=self._after + 1):
                before = self._changed.get(entry.pool)
                if before is None or before.number < entry.number:
                    self._changed[entry.pool] = entry
        self._after = max(newest[0].number - LATE_MAX, 0) if newest else 0


def _since(entry: Entry | None, limit: int) -> float | None:
    """Since when this limit is in force, by its newest change in the ledger."""
    if entry is None:
        return None
    if entry.limit == limit:
        return entry.at
    fall_back = FallBack.read(entry.detail) if entry.detail else None
    return fall_back.at if fall_back is not None and fall_back.limit == limit else None


def _drift(plan: PoolPlan) -> str:
    """How a pool differs from the file; empty if it does not, or if the file does not name it."""
    if plan.is_as_declared or plan.origin == "undeclared":
        return ""
    parts = []
    if plan.action != "none":
        parts.append(limit_text(plan.declared))
    parts += [
        f"{name} {kept.declared}" if kept.declared else f"no {name}"
        for name, kept in plan.kept.items()
        if kept.action != "none"
    ]
    return "the file says " + ", ".join(parts)
