"""An executor that hands each step to a process of its own, as those for Docker and Kubernetes do.

The run worker only starts, watches and ends these processes. What happens in them it reads from
the event log, and they outlive it.
"""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import dagster as dg
from dagster._core.execution.retries import RetryMode
from dagster._core.executor.step_delegating import (
    CheckStepHealthResult,
    StepDelegatingExecutor,
    StepHandler,
)
from pods import environment_of_a_pod

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dagster._core.executor.step_delegating import StepHandlerContext


class ProcessStepHandler(StepHandler):
    """Runs ``dagster api execute_step`` for each step, which learns from its environment what it is."""

    def __init__(self) -> None:
        super().__init__()
        self._processes: dict[str, subprocess.Popen] = {}

    @property
    def name(self) -> str:
        return "ProcessStepHandler"

    def launch_step(self, step_handler_context: StepHandlerContext) -> Iterator[dg.DagsterEvent]:
        key = _step_key(step_handler_context)
        step = step_handler_context.execute_step_args
        dagster = step.get_command_args(skip_serialized_namedtuple=True)
        what = {item["name"]: item["value"] for item in step.get_command_env()}
        self._processes[key] = subprocess.Popen(
            [sys.executable, "-m", *dagster], env={**environment_of_a_pod(), **what}
        )
        return iter(())

    def check_step_health(self, step_handler_context: StepHandlerContext) -> CheckStepHealthResult:
        code = self._processes[_step_key(step_handler_context)].poll()
        if code:
            return CheckStepHealthResult.unhealthy(f"its process ended with {code}")
        return CheckStepHealthResult.healthy()

    def terminate_step(self, step_handler_context: StepHandlerContext) -> Iterator[dg.DagsterEvent]:
        self._processes[_step_key(step_handler_context)].terminate()
        return iter(())


def _step_key(context: StepHandlerContext) -> str:
    (key,) = context.execute_step_args.step_keys_to_execute or ()
    return key


@dg.executor(name="step_delegating", requirements=dg.multiple_process_executor_requirements())
def step_delegating_executor(init_context: dg.InitExecutorContext) -> StepDelegatingExecutor:
    return StepDelegatingExecutor(
        ProcessStepHandler(),
        retries=RetryMode.ENABLED,
        sleep_seconds=0.1,
        check_step_health_interval_seconds=1,
    )
