"""Past executions: what ran when, read from the event log that Dagster keeps anyway.

It is the same for every storage, and for runs that were made before Lifeguard was installed. All
times are seconds since the epoch, as floats.

What the event log cannot promise, and so neither can this package:

- An event bears the clock of the process that wrote it. Between machines, intervals are only as
  exact as their clocks agree.
- A step's interval is what Dagster saw: from just before to just after the code of the step ran.
  Work that outlives the step (a query still running in a warehouse) is not in it.
- A process that was killed writes no end. Its step is ``UNFINISHED``, and the end of its run, where
  somebody wrote one, is the best bound there is; it may be later than the truth.
- A step knows the assets that its run planned it to make. The inner steps of a graph asset, which
  only hand values on, know none.
"""

from dagster_lifeguard.deployment.history.executions import Outcome, RunExecution, StepExecution
from dagster_lifeguard.deployment.history.instance_history import read_history, read_runs
from dagster_lifeguard.deployment.history.ledger import LedgerSpan, read_ledger, read_span
from dagster_lifeguard.deployment.history.overlaps import Overlap, find_overlaps

__all__ = [
    "LedgerSpan",
    "Outcome",
    "Overlap",
    "RunExecution",
    "StepExecution",
    "find_overlaps",
    "read_history",
    "read_ledger",
    "read_runs",
    "read_span",
]
