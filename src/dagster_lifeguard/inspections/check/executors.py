"""Executors that claim no slot: their steps go around every pool."""

from __future__ import annotations

from collections import defaultdict
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

from dagster_lifeguard.compat.locations import executors_of_pooled_jobs
from dagster_lifeguard.engine.rules.shown_names import enumerate_some
from dagster_lifeguard.inspections.finding import Finding

if TYPE_CHECKING:
    from collections.abc import Iterator

    import dagster as dg

_CELERY = ("celery", "celery-docker", "celery-k8s")
_CELERY_CLAIMS_SINCE = (0, 27, 15)

_REMEDY = (
    "Give these jobs another executor, such as multiprocess, or their assets no pool. See "
    "docs/operating/executors.md."
)


def executor_findings(repository: dg.RepositoryDefinition) -> Iterator[Finding]:
    """The jobs with pools whose executor asks for no slot."""
    jobs: defaultdict[str, list[str]] = defaultdict(list)
    for job, executor in executors_of_pooled_jobs(repository).items():
        jobs[executor].append(job)
    for executor, names in sorted(jobs.items()):
        why = _why_not(executor)
        if why is not None:
            yield Finding(
                "executor-without-pools",
                "warning",
                f"{enumerate_some(sorted(names))}: {why}",
                _REMEDY,
                tuple(sorted(names)),
            )


def _why_not(executor: str) -> str | None:
    if executor == "dask":
        return "the Dask executor claims no slots, and fails each run that has a pool."
    if executor in _CELERY:
        try:
            installed = version("dagster-celery")
        except PackageNotFoundError:
            return None
        if tuple(int(part) for part in installed.split(".")[:3]) < _CELERY_CLAIMS_SINCE:
            return f"the Celery executor of dagster-celery {installed} claims no slots."
    return None
