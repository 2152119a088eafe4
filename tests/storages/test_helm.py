"""The values for Dagster's Helm chart, and the dagster.yaml that the chart makes of them.

No cluster: the file was rendered by helm (its first lines say how), and each pod is a process.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg
import pytest
import sqlalchemy as db
import yaml
from click.testing import CliRunner
from homes import DEFINITIONS, Home, eventually, free_port, query
from pods import PODS, environment_of_a_pod
from test_services import LAUNCH

from dagster_lifeguard.cli import main

if TYPE_CHECKING:
    from collections.abc import Callable

    MakeHome = Callable[..., Home]

EXAMPLE = Path(__file__).parents[2] / "examples" / "kubernetes"
RENDERED = EXAMPLE / "dagster.yaml"
DRY_RUN = """
mutation($selector: SensorSelector!) { sensorDryRun(selectorData: $selector, cursor: null) {
  __typename ... on DryRunInstigationTick { evaluationResult { skipReason error { message } } }
  ... on PythonError { message } } }
"""


def test_the_rendered_file_is_of_the_values() -> None:
    text = RENDERED.read_text()
    values = yaml.safe_load((EXAMPLE / "values.yaml").read_text())
    added = values["additionalInstanceConfig"]
    rendered = yaml.safe_load(text)
    assert {name: rendered[name] for name in added} == added
    # The chart writes its own blocks before, and so they stand in the file twice.
    assert text.count("\nrun_storage:\n") == text.count("\nevent_log_storage:\n") == 2
    assert text.index("class: PostgresRunStorage") < text.index("LifeguardPostgresRunStorage")
    coordinator = values["dagsterDaemon"]["runCoordinator"]["config"]["customRunCoordinator"]
    assert rendered["run_coordinator"] == coordinator
    config = rendered["schedule_storage"]["config"]
    assert all(rendered[name]["config"] == config for name in ("run_storage", "event_log_storage"))


def test_the_page_is_probed_where_it_answers_anybody() -> None:
    deployment, service = yaml.safe_load_all((EXAMPLE / "page.yaml").read_text())
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    for probe in ("readinessProbe", "livenessProbe"):
        assert container[probe]["httpGet"] == {"path": "/healthz", "port": "http"}
    assert container["command"][:2] == ["lifeguard", "serve"]
    assert CliRunner().invoke(main, [*container["command"][1:], "--help"]).exit_code == 0
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert service["spec"]["selector"] == labels


class Cluster:
    """The pods of a test, on a database of their own."""

    def __init__(self, home: Home) -> None:
        self.home = home
        self.folder = home.path
        url = db.make_url(home.stock["postgres"]["postgres_url"])
        text = RENDERED.read_text()
        for old, new in {
            r"params:\s+\{\}": f"params: {{host: {url.query['host']}}}",  # A socket, not a port.
            r"db_name: \S+": f"db_name: {url.database}",
            r"username: \S+": f"username: {url.username}",
            r"run_launcher:[^\n]*\n(?: [^\n]*\n)+": "run_launcher: {module: pods, class: PodRunLauncher}\n",
            r"dequeue_interval_seconds: 5": "dequeue_interval_seconds: 1",
        }.items():
            text, count = re.subn(old, new, text)
            assert count, old
        (self.folder / "dagster.yaml").write_text(text)
        with home.instance():
            pass  # Makes the tables, for which several processes would compete.

    def start(self, kind: str, *command: str, has_file: bool = True) -> Any:
        return self.home.start(*command, **environment_of_a_pod(kind, has_file=has_file))

    def homes(self) -> list[Path]:
        """The folders of the pods that have the file."""
        return sorted(path.parent for path in self.folder.glob("*-*/dagster.yaml"))


@pytest.fixture
def cluster(make_home: MakeHome, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    home = make_home("postgres")
    for name, value in home.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("DAGSTER_PG_PASSWORD", "secret")
    monkeypatch.setenv(PODS, str(home.path))
    monkeypatch.setenv("EXECUTOR", "step_delegating")
    return Cluster(home)


def status(home: Path) -> str:
    """What ``lifeguard engine status`` says in a pod."""
    return CliRunner(env={"DAGSTER_HOME": str(home)}).invoke(main, ["engine", "status"]).output


def test_with_only_the_charts_file_every_process_uses_the_engine(cluster: Cluster) -> None:
    code, web = free_port(), free_port()
    workspace = cluster.folder / "workspace.yaml"
    server = {"host": "127.0.0.1", "port": code, "location_name": "user-code"}
    workspace.write_text(yaml.safe_dump({"load_from": [{"grpc_server": server}]}))
    options = ("-h", "127.0.0.1", "-p")
    # The chart gives a pod of user code no dagster.yaml.
    user_code = ("dagster", "api", "grpc", *options, str(code), "-f", str(DEFINITIONS))
    cluster.start("code", *user_code, has_file=False)
    cluster.start("web", "dagster-webserver", *options, str(web), "-w", str(workspace))
    daemon = cluster.start("daemon", "dagster-daemon", "run", "-w", str(workspace))

    def run_of(job: str) -> str:
        answer = query(web, LAUNCH, job=job, location="user-code")["launchRun"]
        assert answer["__typename"] == "LaunchRunSuccess", answer
        return answer["run"]["runId"]

    def is_up() -> bool:
        for process in cluster.home.processes:
            assert process.popen.poll() is None, process.output()
        try:
            entries = query(web, "{ workspaceOrError { ... on Workspace { locationEntries { name "
                            "locationOrLoadError { __typename } } } } }")  # fmt: skip
        except OSError:
            return False
        loaded = [e["locationOrLoadError"] for e in entries["workspaceOrError"]["locationEntries"]]
        return loaded == [{"__typename": "RepositoryLocation"}]

    eventually(is_up)
    held = run_of("held_job")
    ((_, step),) = cluster.home.started().items()
    second = run_of("second_job")
    eventually(lambda: f"Run {second} is blocked by global concurrency limits" in daemon.output())

    assert (
        "LifeguardPostgresEventLogStorage"
        in query(web, "{ instance { info } }")["instance"]["info"]
    )
    selector = {
        "repositoryLocationName": "user-code",
        "repositoryName": "__repository__",
        "sensorName": "storage_here",
    }
    tick = query(web, DRY_RUN, selector=selector)["sensorDryRun"]["evaluationResult"]
    assert tick == {"skipReason": "LifeguardPostgresEventLogStorage", "error": None}
    pods = cluster.homes()
    assert [path.name.split("-")[0] for path in pods] == ["daemon", "pod", "web", "worker"]
    (worker,) = (path for path in pods if path.name.startswith("worker-"))
    owners = (step, int((worker / "process").read_text()))
    for pod in pods:
        told = status(pod)
        assert "LifeguardPostgresEventLogStorage (the engine)" in told
        assert f"orders: 1 slot, run {held} step held" in told
        assert all(re.search(rf"\b{pid}\b", told) for pid in owners), told

    cluster.home.go("held")
    cluster.home.go("second")
    with dg.DagsterInstance.from_config(str(pods[0])) as instance:
        for run_id in (held, second):
            eventually(lambda: instance.get_run_by_id(run_id).is_finished)  # noqa: B023
            assert instance.get_run_by_id(run_id).is_success


def test_a_pod_without_the_package_ends_at_once_and_names_the_module(cluster: Cluster) -> None:
    environment = environment_of_a_pod()
    absent = cluster.folder / "absent" / "dagster_lifeguard"
    absent.mkdir(parents=True)
    (absent / "__init__.py").touch()
    environment["PYTHONPATH"] = f"{absent.parent}:{environment['PYTHONPATH']}"
    told = subprocess.run(
        [sys.executable, "-c", "import dagster as dg; dg.DagsterInstance.get()"],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert told.returncode == 1
    assert "Couldn't import module dagster_lifeguard.storage" in told.stderr
