"""What a check is: one question about a subject, with a code, a remedy and evidence."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from dagster_lifeguard.findings import Finding

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from dagster_lifeguard.doctor.subject import Source, Subject
    from dagster_lifeguard.findings import Severity


class Check:
    """One thing that can be wrong.

    Attributes:
        code: Stable identifier, the same in text, JSON and documentation.
        title: What is wrong where it finds something, in a few words.
        severity: Of what it finds.
        source: Where it has to look. From where that is not visible, it is not answered.
    """

    code: ClassVar[str]
    title: ClassVar[str]
    severity: ClassVar[Severity]
    source: ClassVar[Source]

    def find(self, subject: Subject) -> Iterator[Finding]:
        """What is wrong with the subject. May raise ``DeploymentError``."""
        raise NotImplementedError

    def finding(
        self,
        message: str,
        remedy: str,
        *,
        names: Iterable[str] = (),
        evidence: Iterable[str] = (),
        commands: Iterable[str] = (),
    ) -> Finding:
        """A finding of this check."""
        return Finding(
            self.code,
            self.severity,
            message,
            remedy,
            tuple(names),
            tuple(evidence),
            tuple(commands),
        )
