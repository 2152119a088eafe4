"""The rules by which somebody is alerted: for Prometheus, and for the sensor of Dagster.

`python monitoring/generate_alerts.py` writes `monitoring/alerts.yaml` from this list. The sensor
finds the same in `conditions`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Severity = Literal["critical", "warning"]

WAIT_SECONDS = 1800
"""A wait of more than this is told."""

STANDING_SECONDS = 180
"""A queue stands if nothing moved at its pool for so long although a slot was free."""


@dataclass(frozen=True, slots=True)
class AlertRule:
    """One rule.

    Attributes:
        name: What Prometheus calls the alert, and the sensor too.
        severity: ``critical`` if a limit does not hold, or if steps may wait for ever.
        summary: What is wrong, with ``{pool}`` and ``{value}`` filled in.
        remedy: What to do about it.
        expression: When it is so, in PromQL.
        lasting_seconds: For how long it has to be so.
        keep_seconds: For how long Prometheus goes on to tell it after it was so.
        is_duration: Whether ``{value}`` is in seconds.
        sensor: Whether the sensor tells it too.
    """

    name: str
    severity: Severity
    summary: str
    remedy: str
    expression: str
    lasting_seconds: int = 0
    keep_seconds: int = 0
    is_duration: bool = False
    sensor: bool = True


OVER_LIMIT = AlertRule(
    "LifeguardPoolOverLimit",
    "critical",
    "Pool {pool}: a step went in over the limit; {value} slots are held beyond it.",
    "Run lifeguard audit to see which steps. Dagster's own storage can let in too many: the engine "
    "does not.",
    # A pool whose limit was lowered drains, and is over the limit for that long without a fault.
    "lifeguard_pool_over_limit_slots > lifeguard_pool_over_limit_slots offset 1m and "
    "lifeguard_pool_limit_slots == lifeguard_pool_limit_slots offset 1m",
    keep_seconds=900,
)
EXPIRED = AlertRule(
    "LifeguardSlotExpired",
    "warning",
    "Pool {pool}: the engine took back slots from a process that was dead or silent.",
    "Look at the run whose process died, and at the network between its host and the database.",
    "increase(lifeguard_pool_expiries_total[10m]) > 0 or "
    "(lifeguard_pool_expiries_total > 0 unless lifeguard_pool_expiries_total offset 10m)",
)
LEAKED = AlertRule(
    "LifeguardSlotLeaked",
    "warning",
    "Pool {pool}: {value} slots are held by runs that are over.",
    "Free them: lifeguard free POOL, or lifeguard doctor --fix.",
    "lifeguard_pool_leaked_slots > 0",
    lasting_seconds=120,
)
WAIT_LONG = AlertRule(
    "LifeguardWaitLong",
    "warning",
    "Pool {pool}: the longest wait is {value}.",
    "Run lifeguard status POOL to see who holds its slots, and lifeguard explain RUN for one run.",
    f"lifeguard_pool_oldest_wait_seconds > {WAIT_SECONDS}",
    lasting_seconds=60,
    is_duration=True,
)
QUEUE_STANDS = AlertRule(
    "LifeguardQueueStands",
    "critical",
    "Pool {pool}: {value} steps or runs wait although slots are free for them, and nothing moves.",
    "Run lifeguard doctor: the daemon may be down, or Dagster's storage lost a wake-up.",
    f"min_over_time(lifeguard_pool_startable[{STANDING_SECONDS}s]) > 0 and "
    f"changes(lifeguard_pool_held_slots[{STANDING_SECONDS}s]) == 0 and "
    f"changes(lifeguard_pool_waiting_steps[{STANDING_SECONDS}s]) == 0 and "
    f"changes(lifeguard_pool_queued_runs[{STANDING_SECONDS}s]) == 0",
    lasting_seconds=STANDING_SECONDS,
)
LOOK_STALE = AlertRule(
    "LifeguardLookStale",
    "critical",
    "Lifeguard cannot look at the deployment.",
    "See whether its database and the network to it work. No other alert is to be trusted until "
    "this one is over.",
    "lifeguard_up == 0 or time() - lifeguard_last_look_timestamp_seconds > 60",
    lasting_seconds=60,
    sensor=False,
)
AUDIT_FINDING = AlertRule(
    "LifeguardAuditFinding",
    "critical",
    "The audit of the last hour has {value} findings.",
    "Run lifeguard audit --since 2h: it lists each with its runs.",
    "lifeguard_audit_findings > 0",
)

RULES = (OVER_LIMIT, EXPIRED, LEAKED, WAIT_LONG, QUEUE_STANDS, LOOK_STALE, AUDIT_FINDING)
"""All rules."""


def for_prometheus() -> dict[str, object]:
    """The rules as Prometheus reads them."""
    return {"groups": [{"name": "lifeguard", "rules": [_entry(rule) for rule in RULES]}]}


def _entry(rule: AlertRule) -> dict[str, object]:
    value = "{{ $value | humanizeDuration }}" if rule.is_duration else "{{ $value }}"
    entry: dict[str, object] = {"alert": rule.name, "expr": rule.expression}
    if rule.lasting_seconds:
        entry["for"] = f"{rule.lasting_seconds}s"
    if rule.keep_seconds:
        entry["keep_firing_for"] = f"{rule.keep_seconds}s"
    entry["labels"] = {"severity": rule.severity}
    entry["annotations"] = {
        "summary": rule.summary.format(pool="{{ $labels.pool }}", value=value),
        "description": rule.remedy,
    }
    return entry
