"""The changes that a visitor can make: each is shown first, and made once it is confirmed.

Both are computed from the deployment as it is at that moment, not from the reader's last look.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dagster_lifeguard.engine.rules.pool_settings import NOTHING_SET
from dagster_lifeguard.engine.rules.shown_names import pool_text
from dagster_lifeguard.errors import ConfigError
from dagster_lifeguard.insight.freeing import Freeable, find_freeable
from dagster_lifeguard.insight.subject import pool_or_run
from dagster_lifeguard.limits.effects import consequences
from dagster_lifeguard.limits.plan import PoolPlan, plan_limit
from dagster_lifeguard.limits.until import read_until
from dagster_lifeguard.texts import date_text, limit_text
from dagster_lifeguard.web.changes import ChangeLog, PoolChange
from dagster_lifeguard.web.errors import RequestRefusedError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dagster_lifeguard.deployment.contract import Deployment
    from dagster_lifeguard.engine.rules.pool_settings import PoolSettings
    from dagster_lifeguard.web.visitors import Visitor

POOL_NAME_MAX = 500

_BACK = "back"
"""A form sends this instead of a limit to end a temporary limit."""

POOLS_MAX = 200
"""The most pools that can be changed at once."""


@dataclass(frozen=True, slots=True)
class LimitPage:
    """A limit that may be set.

    Attributes:
        pool: The pool; empty until the visitor names it.
        limit: The limit; None until the visitor names it.
        plan: What the limit would do; None until both are known.
        consequences: The plan in sentences.
        limit_min: The lowest limit that can be set.
        limit_max: The highest.
        limit_before_pause: The limit before the pause; None if it is unknown or the pool is not
            paused.
        seen: The pool's own limit as it is now, or empty; the form sends it back.
        until: When the limit is to fall back, as the form sends it back; empty if it lasts.
        takes_until: Whether the deployment can keep a limit until a time.
        back: Whether a temporary limit is to end now.
    """

    pool: str
    limit: int | None
    plan: PoolPlan | None
    consequences: tuple[str, ...]
    limit_min: int
    limit_max: int
    limit_before_pause: int | None
    seen: str
    until: str = ""
    takes_until: bool = False
    back: bool = False


@dataclass(frozen=True, slots=True)
class SeveralPage:
    """Pools that may be paused or resumed together.

    Attributes:
        action: ``pause`` or ``resume``.
        plans: What the action would do to each pool that it would change.
        consequences: The plans in sentences.
        left: The pools that the action would not change, and why.
        seen: Each pool's own limit as it is now; the form sends it back.
        until: When paused pools resume by themselves; empty: never.
        takes_until: Whether the deployment can keep a limit until a time.
    """

    action: str
    plans: tuple[PoolPlan, ...]
    consequences: tuple[str, ...]
    left: Mapping[str, str]
    seen: str
    until: str = ""
    takes_until: bool = False

    @property
    def pools(self) -> str:
        """The pools that the action would change, one a line."""
        return "\n".join(plan.pool for plan in self.plans)


@dataclass(frozen=True, slots=True)
class FreePage:
    """Slots that may be freed.

    Attributes:
        subject: A pool, a run, or ``RUN_ID:STEP``, as ``lifeguard free`` takes it.
        found: The holders, and whether each is alive.
        safe: How many holders are dead. Only their slots are freed, unless the visitor forces it.
    """

    subject: str
    found: tuple[Freeable, ...]
    safe: int


@dataclass(frozen=True, slots=True)
class DonePage:
    """The changes that were made."""

    changes: tuple[PoolChange, ...]


class Actions:
    """Changes to one deployment.

    Args:
        deployment: The deployment to change.
        log: The account of changes.
    """

    def __init__(self, deployment: Deployment, log: ChangeLog) -> None:
        self._deployment = deployment
        self._log = log

    def show_limit(self, query: Mapping[str, str]) -> LimitPage:
        """What a limit would do. The query has ``pool``, ``limit`` and ``until``.

        The limit ``back`` stands for the lasting limit, which replaces the temporary one.
        """
        pool = query.get("pool", "")
        text = query.get("limit", "").strip()
        settings = self._deployment.settings()
        now = time.time()
        until = _until(query, now) if text != _BACK else None
        plan = None
        seen = ""
        is_paused = False
        limit = None
        if pool:
            _refuse_name(pool)
            limit = self._limit(pool, text) if text else None
            plan = plan_limit(self._deployment, pool, limit, until if text else None)
            seen = _seen(plan)
            is_paused = plan.live == 0
        elif text and text != _BACK:
            limit = _limit(text)
        return LimitPage(
            pool=pool,
            limit=limit,
            plan=plan if text else None,
            consequences=consequences(plan, now) if plan is not None and text else (),
            limit_min=settings.limit_min,
            limit_max=settings.limit_max,
            limit_before_pause=self._log.limit_before_pause(pool) if is_paused else None,
            seen=seen,
            until="" if until is None else date_text(until),
            takes_until=bool(settings.engine),
            back=text == _BACK,
        )

    def show_pause(self, query: Mapping[str, str]) -> LimitPage:
        """What pausing a pool would do."""
        return self.show_limit(
            {"pool": query.get("pool", ""), "limit": "0", "until": query.get("until", "")}
        )

    def show_resume(self, query: Mapping[str, str]) -> LimitPage:
        """What resuming a paused pool would do, if its limit before the pause is known."""
        pool = query.get("pool", "")
        if pool in self._temporary():
            return self.show_limit({"pool": pool, "limit": _BACK})
        before = self._log.limit_before_pause(pool)
        return self.show_limit({"pool": pool, "limit": "" if before is None else str(before)})

    def set_limit(self, form: Mapping[str, str], visitor: Visitor) -> DonePage:
        """Set a limit.

        Raises:
            RequestRefusedError: The limit has changed since the form was made.
        """
        pool, text = form.get("pool", ""), form.get("limit", "")
        _refuse_name(pool)
        limit = self._limit(pool, text)
        until = _until(form, time.time()) if text != _BACK else None
        plan = plan_limit(self._deployment, pool, limit, until)
        if "seen" in form and form["seen"] != _seen(plan):
            raise RequestRefusedError(
                409,
                f"The limit of {pool_text(pool)} was changed meanwhile: "
                f"it is {limit_text(plan.live)} now.",
                remedy="Look again at what the change would do.",
            )
        if plan.action == "none":
            return DonePage(())
        self._log.refuse_full()
        if until is None:
            self._deployment.set_limit(pool, limit)
        else:
            self._deployment.set_limit(pool, limit, until)
        after = plan.after if text == _BACK else limit
        change = PoolChange(time.time(), visitor.who, "limit", pool, plan.live, after, until=until)
        self._log.add(change)
        return DonePage((change,))

    def show_several(self, query: Mapping[str, str]) -> SeveralPage:
        """What pausing or resuming several pools would do. ``pools`` names them, one a line."""
        action = query.get("do", "")
        if action not in ("pause", "resume"):
            raise RequestRefusedError(400, "Nothing is to be done.", remedy="Say pause or resume.")
        names = list(dict.fromkeys(filter(None, query.get("pools", "").split("\n"))))
        if not names:
            raise RequestRefusedError(
                400, "No pool is chosen.", remedy="Tick the boxes of some pools, and try again."
            )
        if len(names) > POOLS_MAX:
            raise RequestRefusedError(
                400, f"{len(names)} pools are chosen.", remedy=f"Choose at most {POOLS_MAX}."
            )
        plans, left = [], {}
        now = time.time()
        until = _until(query, now) if action == "pause" else None
        temporary = self._temporary() if action == "resume" else {}
        for pool in names:
            _refuse_name(pool)
            (state,) = self._deployment.pools([pool])
            limit: int | None = 0
            if action == "pause" and state.limit == 0:
                left[pool] = "it is paused already"
                continue
            if action == "resume":
                limit = self._log.limit_before_pause(pool)
                if state.limit != 0:
                    left[pool] = "it is not paused"
                    continue
                if pool in temporary:
                    limit = temporary[pool].lasting_limit
                elif limit is None:
                    left[pool] = (
                        "its limit before the pause is not known: set it on the pool's page"
                    )
                    continue
            plans.append(plan_limit(self._deployment, pool, limit, until))
        return SeveralPage(
            action,
            tuple(plans),
            tuple(line for plan in plans for line in consequences(plan, now)),
            left,
            "\n".join(map(_seen, plans)),
            "" if until is None else date_text(until),
            takes_until=bool(self._deployment.settings().engine),
        )

    def set_several(self, form: Mapping[str, str], visitor: Visitor) -> DonePage:
        """Pause or resume several pools: all or none, if the deployment can do that.

        Raises:
            RequestRefusedError: A limit has changed since the form was made.
        """
        page = self.show_several(form)
        if "seen" in form and form["seen"].replace("\r", "") != page.seen:
            raise RequestRefusedError(
                409,
                "A limit of these pools was changed meanwhile.",
                remedy="Look again at what the change would do.",
            )
        self._log.refuse_full()
        settings = self._deployment.pool_settings()
        wanted: dict[str, PoolSettings | None] = {
            plan.pool: settings.get(plan.pool, NOTHING_SET).with_limit(plan.declared, plan.until)
            for plan in page.plans
        }
        plans = {plan.pool: plan for plan in page.plans}
        done = []
        for pool in self._deployment.set_pools(wanted) if wanted else ():
            plan = plans[pool]
            change = PoolChange(
                time.time(),
                visitor.who,
                "limit",
                pool,
                plan.live,
                plan.after,
                until=plan.until,
            )
            self._log.add(change)
            done.append(change)
        return DonePage(tuple(done))

    def show_free(self, query: Mapping[str, str]) -> FreePage:
        """The holders of a subject, and whether it is safe to free their slots."""
        subject = query.get("subject", "")
        found = self._find(subject)
        return FreePage(subject, found, sum(item.is_safe for item in found))

    def free(self, form: Mapping[str, str], visitor: Visitor) -> DonePage:
        """Free the slots of dead holders; each is judged at the moment of freeing.

        With ``force`` in the form, free the slots of one step although it is or may be alive.

        Raises:
            RequestRefusedError: More than one step would be forced, or a process came back.
        """
        found = self._find(form.get("subject", ""))
        forces = bool(form.get("force"))
        if forces and len(found) > 1:
            raise RequestRefusedError(
                400,
                f"{len(found)} steps would be forced.",
                remedy="Force one step at a time: RUN_ID:STEP.",
            )
        done: list[PoolChange] = []
        came_back: list[str] = []
        for item in found:
            if item.is_safe or forces:
                self._log.refuse_full()
                judged = self._deployment.free(item.run_id, item.step_key or None, force=forces)
                if not (forces or judged.is_safe):
                    came_back.append(f"{item.run_id}:{item.step_key}: {' '.join(judged.evidence)}")
                    continue
                pools = {pool for pool, _ in item.holds}
                change = PoolChange(
                    time.time(),
                    visitor.who,
                    "free",
                    pools.pop() if len(pools) == 1 else "",
                    run_id=item.run_id,
                    step_key=item.step_key,
                    forced=not item.is_safe,
                )
                self._log.add(change)
                done.append(change)
        if came_back and not done:
            raise RequestRefusedError(
                409,
                f"Nothing was freed, for a process came back. {' '.join(came_back)}",
                remedy="Look again at what holds the slots.",
            )
        return DonePage(tuple(done))

    def _temporary(self) -> dict[str, PoolSettings]:
        """The settings of the pools that have a temporary limit."""
        found = self._deployment.pool_settings().items()
        return {pool: settings for pool, settings in found if settings.fall_back is not None}

    def _limit(self, pool: str, text: str) -> int | None:
        """The limit in a form; None: no limit of the pool's own."""
        if text != _BACK:
            return _limit(text)
        return self._deployment.pool_settings().get(pool, NOTHING_SET).lasting_limit

    def _find(self, subject: str) -> tuple[Freeable, ...]:
        return find_freeable(self._deployment, pool_or_run(self._deployment, subject), time.time())


def _limit(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) <= 9):  # noqa: PLR2004
        raise ConfigError(
            f"{text[:50]!r} is no limit.", remedy="Give a whole number; 0 pauses the pool."
        )
    return int(text)


def _refuse_name(pool: str) -> None:
    if not pool or len(pool) > POOL_NAME_MAX or pool != pool.strip() or not pool.isprintable():
        raise ConfigError(
            f"{pool[:50]!r} is no name of a pool.",
            remedy="Give the name as it stands in the definitions, without white space around it.",
            names=[pool[:50]],
        )


def _until(form: Mapping[str, str], now: float) -> float | None:
    text = form.get("until", "").strip()
    return read_until(text, now) if text else None


def _seen(plan: PoolPlan) -> str:
    own = "" if plan.own is None else str(plan.own)
    return own if plan.fall_back is None else f"{own} after {plan.live} {plan.fall_back.at}"
