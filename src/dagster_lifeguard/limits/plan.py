"""Limits as code: what lifeguard.yaml declares, beside what a deployment has.

The file decides the limit of the pools it names: those under ``pools``, and those that its rules
name without a template, which get the default limit. About all other pools it says nothing. The
default limit itself is a setting of the instance, which nobody but its administrator can change,
so a difference in it is shown and never applied.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

from dagster_lifeguard.deployment.limits_alone import temporary_needs_engine
from dagster_lifeguard.engine.rules.pool_settings import NOTHING_SET, FallBack, PoolSettings
from dagster_lifeguard.engine.rules.shown_names import nearest, pool_named, pool_text
from dagster_lifeguard.errors import UnknownNameError
from dagster_lifeguard.policy.config import PoolSpec

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from dagster_lifeguard.deployment.contract import (
        Deployment,
        HoldingStep,
        PoolState,
        Settings,
        WaitingStep,
    )
    from dagster_lifeguard.policy.config import Config

Action = Literal["none", "set", "delete", "impossible"]
KeptAction = Literal["none", "set", "delete", "needs-engine"]
Origin = Literal["pools", "rules", "undeclared"]


@dataclass(frozen=True, slots=True)
class KeptSetting:
    """A setting of a pool that only the engine keeps, in the words of lifeguard.yaml.

    Attributes:
        declared: What the file declares; what is in force without a word, if it says nothing.
        live: What is in force; None: it is not set.
        action: Set what is declared, delete what is live, or nothing. ``needs-engine``: it cannot
            be set, or not be seen, here.
    """

    declared: str | None
    live: str | None
    action: KeptAction


@dataclass(frozen=True, slots=True)
class PoolPlan:
    """One pool: what is declared, what is live, and what is to be done.

    Attributes:
        origin: What names the pool: the file's ``pools``, its ``rules``, or nothing in it.
        declared: The limit that the file declares; None: unlimited, or undeclared.
        live: The limit in force; None: unlimited.
        own: The pool's own lasting limit; None if it has none, and the default is in force.
        action: Set the declared limit, delete the own one, or nothing. ``impossible``: it cannot
            be unlimited while the deployment has a default limit.
        after: The limit in force once it is done, and once a temporary limit that stays is over.
        holding: Who holds slots now.
        waiting: Who waits now.
        kept: The settings besides the limit, by name; see ``PoolSettings.texts``.
        wanted: Everything that is set of the pool once it is done.
        fall_back: If the limit in force is temporary: when it ends, and the limit after that.
        until: When the limit that is to be set falls back; None: it lasts.
        is_later: Whether the change is in force only after the present temporary limit.
    """

    pool: str
    origin: Origin
    declared: int | None
    live: int | None
    own: int | None
    action: Action
    after: int | None
    holding: tuple[HoldingStep, ...] = ()
    waiting: tuple[WaitingStep, ...] = ()
    kept: Mapping[str, KeptSetting] = field(default_factory=dict)
    wanted: PoolSettings = NOTHING_SET
    fall_back: FallBack | None = None
    until: float | None = None
    is_later: bool = False

    @property
    def lasting(self) -> int | None:
        """The limit in force without the temporary one."""
        return self.live if self.fall_back is None else self.fall_back.limit

    @property
    def kept_actions(self) -> tuple[KeptAction, ...]:
        """What is to be done about the settings besides the limit."""
        return tuple(kept.action for kept in self.kept.values())

    @property
    def is_as_declared(self) -> bool:
        """Whether there is nothing to do about the pool, and nothing that cannot be done."""
        return self.action == "none" and set(self.kept_actions) <= {"none"}

    @property
    def is_touched(self) -> bool:
        """Whether anything of the pool is to be changed."""
        return not {"set", "delete"}.isdisjoint((self.action, *self.kept_actions))

    @property
    def held(self) -> int:
        """Slots that are held."""
        return sum(step.slots for step in self.holding)

    @property
    def drains(self) -> bool:
        """Whether more slots are held than the new limit allows: no step starts for a while."""
        changes = self.action in ("set", "delete") and not self.is_later
        return changes and self.after is not None and self.after < self.held

    @property
    def lets_in(self) -> int:
        """How many of those who wait can go in once it is done, by the slots they ask for."""
        if self.action not in ("set", "delete") or self.is_later:
            return 0
        free = None if self.after is None else self.after - self.held
        count = 0
        for step in self.waiting:
            if free is not None and step.slots > free:
                break
            free = None if free is None else free - step.slots
            count += 1
        return count


@dataclass(frozen=True, slots=True)
class LimitsPlan:
    """What makes the limits of a deployment those of a file.

    Attributes:
        settings: Of the deployment.
        default_declared: The default limit that the file states; None: unlimited, or not stated.
        default_stated: Whether it states one.
        pools: All pools that the file names or the deployment limits, by name.
    """

    settings: Settings
    default_declared: int | None
    default_stated: bool
    pools: tuple[PoolPlan, ...]

    @property
    def touched(self) -> tuple[str, ...]:
        """The pools of which anything is to be changed."""
        return tuple(row.pool for row in self.pools if row.is_touched)

    @property
    def is_of_limits(self) -> bool:
        """Whether only limits are to be changed."""
        return all({"set", "delete"}.isdisjoint(row.kept_actions) for row in self.pools)

    @property
    def needing_engine(self) -> tuple[str, ...]:
        """The pools with a setting that cannot be set, or not be seen, here."""
        return tuple(row.pool for row in self.pools if "needs-engine" in row.kept_actions)

    @property
    def default_drifts(self) -> bool:
        """Whether the file states another default limit than the deployment has."""
        return self.default_stated and self.default_declared != self.settings.default_limit

    @property
    def has_drift(self) -> bool:
        """Whether anything is not as the file declares, as far as that can be seen."""
        unseen = self.settings.engine is None
        return (
            self.default_drifts
            or bool(self.touched)
            or any(row.action == "impossible" for row in self.pools)
            or bool(self.needing_engine and not unseen)
        )

    def apply(self, deployment: Deployment) -> Iterator[str]:
        """Do it; each pool's name as soon as it is done. See ``Deployment.set_pools``."""
        wanted = {row.pool: row.wanted for row in self.pools if row.is_touched}
        return deployment.set_pools(wanted) if wanted else iter(())


def make_plan(
    config: Config,
    deployment: Deployment,
    names: Collection[str] | None = None,
    *,
    prune: bool = False,
) -> LimitsPlan:
    """Compare what a file declares with what a deployment has.

    Args:
        config: The file.
        deployment: Where to look; nothing is changed.
        names: Only these pools.
        prune: Delete what is set of pools that the file does not name.

    Raises:
        NeedsEngineError: The file declares a rate or an order under ``engine: stock``.
        UnknownNameError: One of the names is neither declared nor live.
        DeploymentError: It does not answer, or a limit is out of its bounds.
    """
    for error in config.pools_beyond_stock():
        raise error
    settings = deployment.settings()
    live = deployment.pool_settings()
    declared = _declared(config, settings)
    known = declared.keys() | live.keys()
    asked = sorted(known if names is None else {_known(n, known, deployment.name) for n in names})
    states = {state.pool: state for state in deployment.pools(asked)}
    has_engine = bool(settings.engine)

    def row(pool: str) -> PoolPlan:
        said = declared.get(pool, _UNDECLARED)
        before = live.get(pool, NOTHING_SET)
        after = before
        if prune or said.origin != "undeclared":
            after = config.pools.get(pool, PoolSpec()).settings
        found = _row(states[pool], said, before.lasting_limit, settings, prune=prune)
        limit = {"set": found.declared, "delete": None}.get(found.action, found.own)
        wanted = after if has_engine else before
        wanted = replace(wanted, limit=before.limit, fall_back=before.fall_back)
        return replace(
            found,
            kept=_kept(after, before, has_engine=has_engine),
            wanted=wanted.with_lasting_limit(limit),
        )

    rows = tuple(map(row, asked))
    settings.refuse({row.pool: row.declared for row in rows if row.action == "set"})
    stated = "default_limit" in config.model_fields_set
    return LimitsPlan(settings, config.default_limit if stated else None, stated, rows)


def _known(name: str, known: Collection[str], place: str) -> str:
    """The pool that is named, or shown, so.

    Raises:
        UnknownNameError: There is no such pool; with the nearest names there are.
    """
    pool = pool_named(name, known)
    if pool is not None:
        return pool
    near = nearest(name, {*map(pool_text, known)})
    raise UnknownNameError(
        f"There is no pool {name!r} in {place}.",
        remedy=f"Did you mean {' or '.join(near)}?" if near else "List them with: lifeguard plan",
        names=[name],
    )


def _declared(config: Config, settings: Settings) -> dict[str, _Declared]:
    """The pools that a file names, and the limit that each is to have."""
    stated = "default_limit" in config.model_fields_set
    default = config.default_limit if stated else settings.default_limit
    # The run queue lets all runs pass that wait for a pool without a limit of its own when it
    # meets the pool for the first time (see compat.instance), so there each pool gets one.
    by_run = settings.granularity == "run"
    found = {
        term.name: _Declared("rules", default, needs_own=by_run)
        for rule in config.rules
        for term in rule.terms
        if not term.fields
    }
    for pool, spec in config.pools.items():
        limit = default if spec.limit is None else spec.limit
        found[pool] = _Declared("pools", limit, needs_own=by_run or spec.limit is not None)
    return found


@dataclass(frozen=True, slots=True)
class _Declared:
    """What a file says of a pool; a limit of its own is set if it needs one or has another."""

    origin: Origin
    limit: int | None
    needs_own: bool


_UNDECLARED = _Declared("undeclared", None, needs_own=False)


def _kept(after: PoolSettings, before: PoolSettings, *, has_engine: bool) -> dict[str, KeptSetting]:
    live, unset = before.texts, NOTHING_SET.texts

    def action(name: str, declared: str | None) -> KeptAction:
        if declared == live[name]:
            return "none"
        return "delete" if declared == unset[name] else "set" if has_engine else "needs-engine"

    return {
        name: KeptSetting(declared, live[name], action(name, declared))
        for name, declared in after.texts.items()
    }


def _row(
    state: PoolState, declared: _Declared, own: int | None, settings: Settings, *, prune: bool
) -> PoolPlan:
    default = settings.default_limit
    action: Action = "none"
    after = lasting = state.settings.lasting_limit
    if declared.origin == "undeclared":
        if prune and own is not None:
            action, after = "delete", default
    elif declared.limit is None:
        if default is not None:
            action = "impossible"
        elif own is not None:
            action, after = "delete", None
    elif own != declared.limit and (
        own is not None or declared.needs_own or {lasting, default} != {declared.limit}
    ):
        action, after = "set", declared.limit
    return PoolPlan(
        pool=state.pool,
        origin=declared.origin,
        declared=declared.limit,
        live=state.limit,
        own=own,
        action=action,
        after=after,
        holding=state.holding,
        waiting=state.waiting,
        fall_back=state.settings.fall_back,
        is_later=state.settings.fall_back is not None,
    )


def plan_limit(
    deployment: Deployment, pool: str, limit: int | None, until: float | None = None
) -> PoolPlan:
    """What it would do to give one pool this limit of its own, or with None to take that away.

    Args:
        deployment: Where to look; nothing is changed.
        pool: The pool, which may be new.
        limit: Its limit.
        until: When the limit falls back; None: it lasts, and a temporary one ends.

    Raises:
        DeploymentError: It does not answer, the limit is out of its bounds, or the deployment
            cannot keep a temporary limit.
    """
    settings = deployment.settings()
    settings.refuse({pool: limit})
    if until is not None and not settings.engine:
        raise temporary_needs_engine(pool)
    before = deployment.pool_settings().get(pool, NOTHING_SET)
    own = before.lasting_limit
    (state,) = deployment.pools([pool])
    is_as_it_is = before.with_limit(limit, until) == before
    action: Action = "none" if is_as_it_is else "delete" if limit is None else "set"
    return PoolPlan(
        pool=pool,
        origin="pools",
        declared=limit,
        live=state.limit,
        own=own,
        action=action,
        after=settings.default_limit if limit is None else limit,
        holding=state.holding,
        waiting=state.waiting,
        fall_back=state.settings.fall_back,
        until=until,
    )
