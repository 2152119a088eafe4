"""What is taken from Dagster of how runs are launched."""

from __future__ import annotations

from typing import Any

import dagster as dg
import pytest
from dagster._core.launcher.base import CheckRunHealthResult, WorkerStatus
from dagster._core.launcher.default_run_launcher import DefaultRunLauncher

from dagster_lifeguard.compat.launching import worker_health


@dg.op
def nothing() -> None: ...


@dg.job
def nothing_job() -> None:
    nothing()


class TestWorkerHealth:
    @pytest.fixture
    def run_id(self, home) -> str:
        with dg.DagsterInstance.get() as instance:
            return instance.create_run_for_job(nothing_job).run_id

    def health(self, run_id: str) -> Any:
        with dg.DagsterInstance.get() as instance:
            return worker_health(instance, run_id)

    @pytest.mark.parametrize(
        ("status", "alive"),
        [
            (WorkerStatus.RUNNING, True),
            (WorkerStatus.FAILED, False),
            (WorkerStatus.NOT_FOUND, False),
            (WorkerStatus.SUCCESS, False),
            (WorkerStatus.UNKNOWN, None),
        ],
    )
    def test_what_a_launcher_says(self, run_id, monkeypatch, status, alive) -> None:
        monkeypatch.setattr(DefaultRunLauncher, "supports_check_run_worker_health", True)
        said = lambda self, run: CheckRunHealthResult(status, f"about {run.run_id}")  # noqa: E731
        monkeypatch.setattr(DefaultRunLauncher, "check_run_worker_health", said)
        found = self.health(run_id)
        assert (found.launcher, found.alive) == ("DefaultRunLauncher", alive)
        assert f"about {run_id}" in found.detail

    def test_every_status_is_known(self) -> None:
        assert {status.value for status in WorkerStatus} == {
            "RUNNING", "NOT_FOUND", "FAILED", "SUCCESS", "UNKNOWN",
        }  # fmt: skip

    def test_a_launcher_that_cannot_tell(self, run_id) -> None:
        found = self.health(run_id)
        assert (found.alive, found.detail) == (None, "it cannot tell whether a run worker lives")

    def test_a_launcher_that_does_not_answer(self, run_id, monkeypatch) -> None:
        def fail(self, run):
            raise ConnectionError("away")

        monkeypatch.setattr(DefaultRunLauncher, "supports_check_run_worker_health", True)
        monkeypatch.setattr(DefaultRunLauncher, "check_run_worker_health", fail)
        assert self.health(run_id)[1:] == (None, "it does not answer: ConnectionError")

    def test_an_unknown_run(self, home) -> None:
        assert self.health("nowhere") is None
