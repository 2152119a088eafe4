"""A launcher that executes each run in a fork of a process that has imported all it needs.

Dagster's own launcher starts an interpreter for each run. On a machine that does other work too,
that takes several times as long at one time as at another, and the figures would tell of that more
than of what is measured.
"""

from __future__ import annotations

import importlib
import os
from typing import Any

import dagster as dg
from dagster._core.definitions.job_base import InMemoryJob
from dagster._core.execution.api import execute_run
from dagster._core.launcher import RunLauncher
from dagster._serdes import ConfigurableClass, ConfigurableClassData

from instances import processes


def stanza(module: str) -> dict[str, object]:
    """The lines of dagster.yaml for this launcher.

    Args:
        module: The module whose ``defs`` has the jobs.
    """
    return {"module": "fork_launcher", "class": "ForkLauncher", "config": {"module": module}}


class ForkLauncher(RunLauncher, ConfigurableClass):
    """Launches the jobs of one module."""

    def __init__(self, module: str, inst_data: ConfigurableClassData | None = None) -> None:
        self._module = module
        self._inst_data = inst_data
        self._processes = processes()
        self._processes.set_forkserver_preload(["dagster_lifeguard.storage", module])
        super().__init__()  # type: ignore[no-untyped-call]

    @property
    def inst_data(self) -> ConfigurableClassData | None:
        return self._inst_data

    @classmethod
    def config_type(cls) -> dict[str, Any]:
        return {"module": str}

    @classmethod
    def from_config_value(cls, inst_data: Any, config_value: Any) -> ForkLauncher:
        return cls(config_value["module"], inst_data)

    def launch_run(self, context: Any) -> None:
        arguments = os.environ["DAGSTER_HOME"], context.dagster_run.run_id, self._module
        self._processes.Process(target=_execute, args=arguments, daemon=True).start()

    def terminate(self, run_id: str) -> bool:
        del run_id
        return False


def _execute(home: str, run_id: str, module: str) -> None:
    """Execute one run."""
    with dg.DagsterInstance.from_config(home) as instance:
        run = instance.get_run_by_id(run_id)
        assert run is not None
        defs: dg.Definitions = importlib.import_module(module).defs
        job = InMemoryJob(defs.get_repository_def().get_job(run.job_name))
        execute_run(job, run, instance)
