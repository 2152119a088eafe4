"""The error tree: what went wrong, which names it concerns, and what to do about it.

An error is raised where a user's input cannot be honoured. A full pool is not an error but an
answer, and a broken invariant of ours is an ``AssertionError``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from collections.abc import Iterable


class LifeguardError(Exception):
    """Base of all errors that a user can mend.

    Attributes:
        code: Stable identifier, the same in text, JSON and documentation.
        message: What is wrong, in one line.
        remedy: What to do about it, in one line.
        names: The assets, pools, rules or files concerned.
    """

    code: ClassVar[str] = "lifeguard"

    def __init__(self, message: str, *, remedy: str, names: Iterable[str] = ()) -> None:
        self.message = message
        self.remedy = remedy
        self.names = tuple(names)
        super().__init__(" ".join(part for part in (message, remedy) if part))

    def __reduce__(self) -> tuple[object, ...]:
        """Make the error fit to cross to another process, keyword arguments and all."""
        return _rebuild, (type(self), self.message, self.remedy, self.names)


def _rebuild(
    kind: type[LifeguardError], message: str, remedy: str, names: tuple[str, ...]
) -> LifeguardError:
    return kind(message, remedy=remedy, names=names)


def first_line(error: BaseException) -> str:
    """Return the first line of what an error says, to be told within a message of ours."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__).rstrip(".")


class ConfigError(LifeguardError):
    """``lifeguard.yaml`` or a rule written in Python says something that is not allowed."""

    code = "config-invalid"


class SelectionError(LifeguardError):
    """A rule's ``assets`` is not a valid asset selection."""

    code = "selection-invalid"


class TemplateError(LifeguardError):
    """A rule's template cannot be filled in for an asset."""

    code = "template-unfilled"


class NeedsEngineError(LifeguardError):
    """A rule asks for more than one static pool, which stock Dagster cannot do."""

    code = "needs-engine"


class NameClashError(LifeguardError):
    """Two assets would get one pool although each should have its own."""

    code = "name-clash"


class UnsupportedDefinitionsError(LifeguardError):
    """A policy was applied to something that is not a ``Definitions`` it can handle."""

    code = "definitions-unsupported"


class LoadError(LifeguardError):
    """A code location could not be found or loaded."""

    code = "location-unloadable"


class DemoError(LifeguardError):
    """The demo could not be carried out, so it says nothing about protection."""

    code = "demo-failed"


class StoreUnavailableError(LifeguardError):
    """The engine's database cannot be read or written; nothing was granted."""

    code = "store-unavailable"


class PoolerError(StoreUnavailableError):
    """A connection pooler shares sessions of the database's server between its clients."""

    code = "pooler-refused"


class LeaseLostError(LifeguardError):
    """A step's slots were taken back before it began, because nobody said that it lives."""

    code = "lease-lost"


class NoFenceError(LifeguardError):
    """A step has no fence: it holds no slot under the engine."""

    code = "no-fence"


class LateWriterError(LifeguardError):
    """A writer was refused, because a later holder has written already. Nothing was written."""

    code = "late-writer"


class SlotsTimeoutError(LifeguardError):
    """Slots asked for inside a step were not free in time; the ticket was withdrawn."""

    code = "slots-timeout"


class DeadlockError(LifeguardError):
    """Slots asked for inside a step would never be free: those who hold them wait in a circle."""

    code = "deadlock"


class SchemaError(LifeguardError):
    """The engine's tables were made by a newer version of this package, which they need."""

    code = "schema-too-new"


class OldSchemaError(LifeguardError):
    """Dagster's tables are older than pools; nothing was granted."""

    code = "schema-too-old"


class OldTablesError(LifeguardError):
    """The engine's tables are older than this package, and who only looks does not change them."""

    code = "engine-tables-old"


class OldProcessesError(LifeguardError):
    """Processes of an older package are alive, which could not use the tables of this one."""

    code = "processes-old"


class DeploymentError(LifeguardError):
    """A deployment cannot be reached, refuses, or cannot do what it was asked for."""

    code = "deployment-refused"


class UnknownNameError(LifeguardError):
    """A pool, an asset, a run or a step that the deployment does not know."""

    code = "name-unknown"
