"""A Dagster sensor that alerts about pools."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing, nullcontext
from importlib import import_module
from typing import TYPE_CHECKING, Any

import dagster as dg

from dagster_lifeguard.deployment.instance import InstanceDeployment
from dagster_lifeguard.deployment.open import open_deployment
from dagster_lifeguard.errors import ConfigError, LifeguardError
from dagster_lifeguard.inspections.alerts.conditions import Alert, Memory, look
from dagster_lifeguard.inspections.alerts.rules import WAIT_SECONDS

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from dagster_lifeguard.deployment.contract import Deployment

Notify = Callable[[Alert], Any]


def build_pool_alert_sensor(
    notify: Notify | str | Sequence[str],
    *,
    name: str = "pool_alerts",
    wait_seconds: float = WAIT_SECONDS,
    audited_seconds: float = 3600.0,
    minimum_interval_seconds: int = 60,
    default_status: dg.DefaultSensorStatus = dg.DefaultSensorStatus.STOPPED,
    url: str | None = None,
    token: str | None = None,
) -> dg.SensorDefinition:
    """Make a sensor that alerts about pools by the rules in `monitoring/alerts.yaml`.

    Each alert is told once, and again when its cause has gone and come back. If ``notify`` raises,
    the tick fails, and the next one tries again.

    Args:
        notify: A function that takes each ``Alert``; or one or more addresses that apprise
            understands, such as ``slack://...``, ``mailto://...`` or ``json://...``.
        name: Of the sensor.
        wait_seconds: The longest wait that is not told.
        audited_seconds: How much of the past is audited at each tick; 0 for none.
        minimum_interval_seconds: The pause between two ticks.
        default_status: Whether the sensor runs without being switched on.
        url: The address of a webserver; None for the instance that the sensor is part of. Dagster+
            needs it.
        token: For that address.
    """
    tell = notify if callable(notify) else _by_apprise(notify)

    @dg.sensor(
        name=name,
        description="Tells when a limit does not hold, a slot is lost, or a queue stands.",
        minimum_interval_seconds=minimum_interval_seconds,
        default_status=default_status,
    )
    def sensor(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        with _deployment(context, url, token) as deployment:
            alerts, memory = look(
                deployment,
                Memory.read(context.cursor),
                wait_seconds=wait_seconds,
                audited_seconds=audited_seconds,
            )
        for alert in alerts:
            tell(alert)
        context.update_cursor(memory.text())
        told = "; ".join(alert.summary for alert in alerts)
        return dg.SkipReason(told or f"Nothing new; {len(memory.told)} alerts go on.")

    return sensor


def _deployment(
    context: dg.SensorEvaluationContext, url: str | None, token: str | None
) -> AbstractContextManager[Deployment]:
    if url is not None:
        return closing(open_deployment(url, token))
    return nullcontext(InstanceDeployment(context.instance, "this instance"))


def _by_apprise(addresses: str | Sequence[str]) -> Notify:
    """A function that sends an alert to these addresses.

    Raises:
        ConfigError: apprise does not understand one.
    """
    try:
        apprise = import_module("apprise")  # an extra
    except ModuleNotFoundError as error:
        raise LifeguardError(
            "Alerts to addresses need apprise, which is not installed.",
            remedy="Run: pip install 'dagster-lifeguard[alerts]', or give a function.",
        ) from error
    known = [addresses] if isinstance(addresses, str) else list(addresses)
    sender = apprise.Apprise()
    for number, address in enumerate(known, start=1):
        if not sender.add(address):  # It may hold a secret, so it is not shown.
            raise ConfigError(
                f"Address {number} of {len(known)} for alerts is none that apprise understands.",
                remedy="See https://github.com/caronc/apprise for how each service is addressed.",
            )

    def tell(alert: Alert) -> None:
        kind = apprise.NotifyType.FAILURE
        if alert.severity == "warning":
            kind = apprise.NotifyType.WARNING
        body = f"{alert.remedy}\n\nDeployment: {alert.deployment}. Alert: {alert.rule}."
        if not sender.notify(title=alert.summary, body=body, notify_type=kind):
            raise LifeguardError(
                "An alert could not be sent to each of its addresses.",
                remedy="The log of the code location has what apprise says. The sensor tries again "
                "at its next tick.",
            )

    return tell
