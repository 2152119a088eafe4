"""Which runs may have used a pool, found without a look at each of their steps' terms."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dagster_lifeguard.insight.durations import terms_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from dagster_lifeguard.deployment.contract import Settings
    from dagster_lifeguard.deployment.history import RunExecution


class PoolUsers:
    """Leaves out runs that cannot have used one pool: of thousands of pools, nearly all runs.

    Args:
        pool: The pool.
        settings: Of the deployment.
    """

    def __init__(self, pool: str, settings: Settings) -> None:
        self._pool = pool
        self._settings = settings
        self._known: dict[str | None, bool] = {None: False}

    def among(self, runs: Iterable[RunExecution]) -> Iterator[RunExecution]:
        """The runs that may have used the pool, in their order; perhaps others too."""
        may = self._may
        for run in runs:
            if any(map(may, run.pools or ())) or any(may(step.pool) for step in run.steps):
                yield run

    def _may(self, text: str | None) -> bool:
        """Whether a step with this text in ``op.pool`` may ask for the pool."""
        known = self._known.get(text)
        if known is None:
            assert text is not None
            terms = terms_of(text, self._settings)
            # Which partition a term takes is known of a step only.
            known = any(term.name == self._pool or term.is_by_partition for term in terms)
            self._known[text] = known
        return known
