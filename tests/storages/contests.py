"""A deployment under the coordinator: runs that are submitted to it, and what became of them."""

from __future__ import annotations

import itertools
import socket
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import contested
import dagster as dg
import sqlalchemy as db
import yaml
from dagster._core.code_pointer import FileCodePointer
from dagster._core.origin import JobPythonOrigin, RepositoryPythonOrigin
from homes import Home, eventually, query

from places import PostgresPlace

try:
    from dagster._core import remote_origin as origins
except ImportError:  # before 1.11
    from dagster._core.remote_representation import origin as origins

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

DEFINITIONS = Path(__file__).with_name("contested.py")
COORDINATOR = {
    "module": "dagster_lifeguard.storage.run_coordinator",
    "class": "LifeguardRunCoordinator",
}
ASSET_JOB = "__ASSET_JOB"

LAUNCH_BY_WEB = """
mutation($params: ExecutionParams!) { launchRun(executionParams: $params) {
  __typename ... on LaunchRunSuccess { run { runId status } }
  ... on PythonError { message } ... on RunConfigValidationInvalid { errors { message } } } }
"""

_numbers = itertools.count()


def create(
    instance: dg.DagsterInstance,
    *assets: str,
    checks: Sequence[tuple[str, str]] | None = None,
    tags: Mapping[str, str] | None = None,
    config: Mapping[str, Any] | None = None,
    job: str = ASSET_JOB,
    parent: str | None = None,
    steps: Sequence[str] | None = None,
    submitted: bool = True,
) -> str:
    """Create a run as a webserver or a daemon does, with what they learn from the code location."""
    from dagster._core.execution.api import create_execution_plan
    from dagster._core.snap import snapshot_from_execution_plan

    keys = {dg.AssetKey(name) for name in assets} or None
    check_keys = None
    if checks is not None:
        check_keys = {dg.AssetCheckKey(dg.AssetKey(asset), name) for asset, name in checks}
    defn: Any = contested.defs.get_repository_def().get_job(job)
    if keys is not None or check_keys is not None:
        defn = defn.get_subset(asset_selection=keys, asset_check_selection=check_keys)
    plan: Any = create_execution_plan(defn, run_config=config or {}, step_keys_to_execute=steps)
    repository = origins.RemoteRepositoryOrigin(
        origins.GrpcServerCodeLocationOrigin("localhost", 1, location_name="contested.py"),
        "__repository__",
    )
    code = RepositoryPythonOrigin("python", FileCodePointer("contested.py", "defs"))
    run = cast("Any", instance).create_run(
        job_name=job,
        run_id=None,
        run_config=config or {},
        status=None,
        tags=tags or {},
        root_run_id=parent,
        parent_run_id=parent,
        step_keys_to_execute=plan.step_keys_to_execute,
        execution_plan_snapshot=snapshot_from_execution_plan(plan, defn.get_job_snapshot_id()),
        job_snapshot=defn.get_job_snapshot(),
        parent_job_snapshot=defn.get_parent_job_snapshot(),
        asset_selection=keys,
        asset_check_selection=check_keys,
        resolved_op_selection=defn.op_selection_data
        and defn.op_selection_data.resolved_op_selection,
        op_selection=None,
        remote_job_origin=origins.RemoteJobOrigin(repository, job) if submitted else None,
        job_code_origin=JobPythonOrigin(job, code),
        asset_graph=defn.asset_layer.asset_graph,
    )
    return run.run_id


@dataclass
class Launched:
    run_id: str
    status: str


@dataclass
class Site:
    """A home, with a webserver and a daemon if they are wanted."""

    home: Home
    instance: dg.DagsterInstance
    port: int = 0
    location: str = "contested"

    def serve(self) -> None:
        """Start a webserver and a daemon over one server of the code."""
        code, self.port = _free_ports(2)
        workspace = str(self.home.path / "workspace.yaml")
        server = {"host": "127.0.0.1", "port": code, "location_name": self.location}
        Path(workspace).write_text(yaml.safe_dump({"load_from": [{"grpc_server": server}]}))
        # Patience with a busy machine, where Dagster would take a slow server for a dead one.
        patience = {"DAGSTER_GRPC_TIMEOUT_SECONDS": "600"}
        self.home.start(
            "dagster", "api", "grpc", "-f", str(DEFINITIONS), "-p", str(code), "-h", "127.0.0.1",
            **patience,
        )  # fmt: skip
        eventually(lambda: _listens(code))
        process = self.home.start(
            "dagster-webserver", "-w", workspace, "-p", str(self.port), "-h", "127.0.0.1",
            **patience,
        )  # fmt: skip
        self.home.start("dagster-daemon", "run", "-w", workspace, **patience)

        def up() -> Any:
            assert process.popen.poll() is None, process.output()
            try:
                return query(self.port, "{ version }")
            except OSError:
                return None

        eventually(up)

    def ask(self, text: str, field: str, **variables: Any) -> dict[str, Any]:
        answer = query(self.port, text, **variables)[field]
        assert answer["__typename"] != "PythonError", answer
        return answer

    def selector(self, job: str = ASSET_JOB) -> dict[str, str]:
        return {
            "repositoryLocationName": self.location,
            "repositoryName": "__repository__",
            "pipelineName": job,
        }

    def launch_by_web(
        self, *assets: str, tags: Mapping[str, str] | None = None, job: str = ASSET_JOB
    ) -> Launched:
        """Launch a run the way the UI does."""
        selector: dict[str, Any] = self.selector(job)
        if assets:
            selector["assetSelection"] = [{"path": [name]} for name in assets]
        given = [{"key": key, "value": value} for key, value in (tags or {}).items()]
        params = {
            "selector": selector,
            "runConfigData": {},
            "mode": "default",
            "executionMetadata": {"tags": given},
        }
        answer = self.ask(LAUNCH_BY_WEB, "launchRun", params=params)
        assert answer["__typename"] == "LaunchRunSuccess", answer
        return Launched(answer["run"]["runId"], answer["run"]["status"])

    def launch(self, *assets: str, **arguments: Any) -> Launched:
        """Submit a run from this process."""
        run_id = create(self.instance, *assets, **arguments)
        submitted = self.instance.submit_run(run_id, cast("Any", None))
        return Launched(run_id, submitted.status.value)

    def reexecute(self, run_id: str, **arguments: Any) -> Launched:
        """Submit a run of the same assets again, as Dagster does."""
        parent = self.run_of(run_id)
        selection: Any = parent.asset_selection or ()
        tags = {**parent.tags, "dagster/parent_run_id": run_id, "dagster/root_run_id": run_id}
        return self.launch(
            *(key.to_user_string() for key in selection), tags=tags, parent=run_id, **arguments
        )

    def run_of(self, run_id: str) -> dg.DagsterRun:
        run = self.instance.get_run_by_id(run_id)
        assert run is not None
        return run

    def status(self, run_id: str) -> str:
        return self.run_of(run_id).status.value

    def duplicate_of(self, run_id: str) -> str | None:
        return self.run_of(run_id).tags.get("lifeguard/duplicate_of")

    def said(self, run_id: str) -> list[str]:
        """The messages of a run's engine events and of its end."""
        return [
            entry.dagster_event.message
            for entry in self.instance.all_logs(run_id)
            if entry.dagster_event
            and entry.dagster_event.event_type_value
            in ("ENGINE_EVENT", "PIPELINE_CANCELING", "PIPELINE_CANCELED")
        ]

    def unfinished(self) -> list[dg.DagsterRun]:
        ended = {"SUCCESS", "FAILURE", "CANCELED"}
        return [run for run in self.instance.get_runs() if run.status.value not in ended]

    def pretend(self, run_id: str, event_type: str, step_key: str | None = None, data: Any = None):
        """Write an event as a run worker would."""
        from dagster._core.events import DagsterEvent

        event = DagsterEvent(
            event_type_value=event_type,
            job_name=self.run_of(run_id).job_name,
            step_key=step_key,
            message="",
            event_specific_data=data,
        )
        self.instance.report_dagster_event(event, run_id)


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        listeners = [stack.enter_context(socket.socket()) for _ in range(count)]
        for listener in listeners:
            listener.bind(("127.0.0.1", 0))
        return [listener.getsockname()[1] for listener in listeners]


def _listens(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def site(
    kind: str, path: Path, postgres: Callable[[], str], *, stock: bool = False, **settings: Any
) -> Iterator[Site]:
    """A site of that kind of database, under the coordinator unless the settings say otherwise."""
    if kind == "sqlite":
        stanza: dict[str, Any] = {"sqlite": {"base_dir": str(path)}}
    else:
        name = f"site{next(_numbers)}"
        PostgresPlace(postgres()).sql(f"CREATE DATABASE {name}")
        url = db.make_url(postgres()).set(drivername="postgresql+psycopg2", database=name)
        stanza = {"postgres": {"postgres_url": url.render_as_string(hide_password=False)}}
    settings.setdefault("run_coordinator", COORDINATOR)
    home = Home(path, kind, stanza, settings=settings)
    home.write(stock=stock)
    try:
        with home.instance() as instance:
            yield Site(home, instance)
    finally:
        home.close()
