"""What a check is: one question about a subject, with a code, a remedy and evidence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dagster_lifeguard.inspections.finding import Finding

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from dagster_lifeguard.inspections.doctor.examined import Examined, Source
    from dagster_lifeguard.inspections.finding import Severity


@dataclass(frozen=True)
class Told:
    """What is wrong, as a check tells it; see ``Finding``."""

    message: str
    remedy: str
    names: Iterable[str] = ()
    evidence: Iterable[str] = ()
    commands: Iterable[str] = ()
    snippet: Iterable[str] = ()


@dataclass(frozen=True)
class Check:
    """One thing that can be wrong.

    Attributes:
        code: Stable identifier, the same in text, JSON and documentation.
        severity: Of what it finds.
        source: Where it has to look. From where that is not visible, it is not answered.
        look: Tells what is wrong with a subject. May raise ``DeploymentError``.
    """

    code: str
    severity: Severity
    source: Source
    look: Callable[[Examined], Iterable[Told]]

    def find(self, subject: Examined) -> Iterator[Finding]:
        """What is wrong with the subject. May raise ``DeploymentError``."""
        for told in self.look(subject):
            yield Finding(
                self.code,
                self.severity,
                told.message,
                told.remedy,
                tuple(told.names),
                tuple(told.evidence),
                tuple(told.commands),
                tuple(told.snippet),
            )


def check(
    *, severity: Severity, source: Source
) -> Callable[[Callable[[Examined], Iterable[Told]]], Check]:
    """Make a check of a function that looks at a subject; its code is the function's name.

    The docstring of the function says what is wrong where it finds something.
    """
    return lambda look: Check(look.__name__.replace("_", "-"), severity, source, look)
