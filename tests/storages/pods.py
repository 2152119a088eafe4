"""Pods without a cluster: processes with a DAGSTER_HOME of their own, which has only dagster.yaml.

What Dagster's Kubernetes run launcher and executor give to a pod is given here: the command with the
reference of the instance, the file of the ConfigMap, and the environment.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dagster._core.launcher import LaunchRunContext, RunLauncher
from dagster._grpc.types import ExecuteRunArgs
from dagster._serdes import ConfigurableClass

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dagster._serdes import ConfigurableClassData

PODS = "PODS"
"""The environment variable that names the folder of a test's pods, and of their dagster.yaml."""


def environment_of_a_pod(kind: str = "pod", *, has_file: bool = True) -> dict[str, str]:
    """The environment of a new pod; that of this process where a test has no pods."""
    folder = os.environ.get(PODS)
    if folder is None:
        return dict(os.environ)
    home = Path(tempfile.mkdtemp(prefix=f"{kind}-", dir=folder))
    if has_file:
        file = home / "dagster.yaml"
        file.write_bytes(Path(folder, "dagster.yaml").read_bytes())
        file.chmod(0o444)
    return {**os.environ, "DAGSTER_HOME": str(home)}


class PodRunLauncher(RunLauncher, ConfigurableClass):
    """Starts ``dagster api execute_run`` in a pod for each run, as the Kubernetes launcher does."""

    def __init__(self, inst_data: ConfigurableClassData | None = None) -> None:
        self._inst_data = inst_data
        self._workers: dict[str, subprocess.Popen] = {}
        super().__init__()

    @property
    def inst_data(self) -> ConfigurableClassData | None:
        return self._inst_data

    @classmethod
    def config_type(cls) -> dict[str, Any]:
        return {}

    @classmethod
    def from_config_value(
        cls, inst_data: ConfigurableClassData, config_value: Mapping[str, Any]
    ) -> PodRunLauncher:
        del config_value
        return cls(inst_data)

    def launch_run(self, context: LaunchRunContext) -> None:
        run = context.dagster_run
        origin = context.job_code_origin
        assert origin is not None
        asked = ExecuteRunArgs(
            job_origin=origin, run_id=run.run_id, instance_ref=self._instance.get_ref()
        )
        environment = environment_of_a_pod("worker")
        with Path(environment["DAGSTER_HOME"], "log").open("wb") as log:
            self._workers[run.run_id] = worker = subprocess.Popen(
                [sys.executable, "-m", *asked.get_command_args()[-4:]],
                env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
            )  # fmt: skip
        Path(environment["DAGSTER_HOME"], "process").write_text(str(worker.pid))

    def terminate(self, run_id: str) -> bool:
        self._workers[run_id].terminate()
        return True
