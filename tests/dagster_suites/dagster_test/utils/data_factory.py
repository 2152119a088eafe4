"""What the tests of run storages take from here."""

from __future__ import annotations

import dagster as dg
from dagster._core.utils import make_new_run_id


def dagster_run(**fields) -> dg.DagsterRun:
    """A run with these fields, and a run id and a job of its own where they have none."""
    return dg.DagsterRun(**{"job_name": "foo", "run_id": make_new_run_id(), **fields})
