"""What a real webserver's deployment tells and does, over the stock storage and the engine."""

from __future__ import annotations

import http.server
import json
import re
import threading
import time
from contextlib import closing, contextmanager
from importlib import resources
from typing import TYPE_CHECKING

import dagster as dg
import pytest
from click.testing import CliRunner
from dagster import AssetKey
from homes import DEFINITIONS, Home, eventually, free_port, limit, query, serve

from dagster_lifeguard.cli import main
from dagster_lifeguard.deployment.contract import PlannedStep
from dagster_lifeguard.deployment.history import Outcome
from dagster_lifeguard.deployment.open import open_deployment, open_instance
from dagster_lifeguard.deployment.webserver import is_dagster_plus
from dagster_lifeguard.engine.rules.duplicates import DUPLICATE_TAG, NO_DUPLICATE
from dagster_lifeguard.engine.rules.pool_settings import PoolSettings, own_limits
from dagster_lifeguard.engine.rules.rate import Rate
from dagster_lifeguard.errors import ConfigError, DeploymentError, UnknownNameError
from dagster_lifeguard.policy.config import Config
from pool_values import set_limits

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dagster_lifeguard.deployment.contract import Deployment

LAUNCH = """
mutation($location: String!) { launchRun(executionParams: {
  selector: {repositoryLocationName: $location, repositoryName: "__repository__",
    pipelineName: "held_job"}, runConfigData: {}, mode: "default",
  executionMetadata: {tags: [{key: "dagster/priority", value: "3"}]}}) {
  __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message } } }
"""
LOCATIONS = """
{ workspaceOrError { ... on Workspace { locationEntries { name } } } }
"""


@pytest.fixture(scope="module")
def telemetry_off() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DAGSTER_DISABLE_TELEMETRY", "1")
        patch.delenv("DAGSTER_HOME", raising=False)
        yield


@pytest.fixture(scope="module", params=["stock", "engine"])
def served(request, tmp_path_factory, telemetry_off) -> Iterator[tuple[Home, int]]:
    """A home and the port of its webserver."""
    path = tmp_path_factory.mktemp(request.param)
    pools = {"concurrency": {"pools": {"default_limit": 6}}}
    home = Home(path, "sqlite", {"sqlite": {"base_dir": str(path)}}, settings=pools)
    home.write(stock=request.param == "stock")
    port = free_port()
    serve(home, port)
    yield home, port
    home.close()


@pytest.fixture
def home(served) -> Home:
    return served[0]


@pytest.fixture
def deployment(served) -> Iterator[Deployment]:
    with closing(open_deployment(f"http://127.0.0.1:{served[1]}/")) as found:
        yield found


def claim(home: Home, pool: str, run_id: str, priority: int = 0) -> bool:
    with home.instance() as instance:
        log = instance.event_log_storage
        return log.claim_concurrency_slot(pool, run_id, "step", priority).is_claimed


@pytest.mark.parametrize("name", [f.name for f in resources.files("dagster_lifeguard.deployment.graphql").iterdir() if f.name.endswith(".graphql")])  # fmt: skip
def test_each_document_is_valid_in_the_installed_schema(name):
    from dagster_graphql.schema import create_schema
    from graphql import parse, validate

    text = (resources.files("dagster_lifeguard.deployment.graphql") / name).read_text()
    assert validate(create_schema().graphql_schema, parse(text)) == []


def test_settings_are_those_of_the_instance(deployment):
    found = deployment.settings()
    assert (found.default_limit, found.granularity, found.engine) == (6, "op", None)
    assert (found.limit_min, found.limit_max) == (0, 1000)
    assert deployment.instance is None


def test_what_is_set_is_what_dagster_shows(deployment, home):
    assert set_limits(deployment, {"warehouse": 8, "gone": 1}) == ["warehouse", "gone"]
    assert own_limits(deployment.pool_settings()) == {"gone": 1, "warehouse": 8}
    shown = home.run("dagster", "instance", "concurrency", "get", "warehouse")
    assert '"warehouse": 0 / 8 slots occupied' in shown
    assert set_limits(deployment, {"gone": None, "warehouse": None}) == ["gone", "warehouse"]
    assert not own_limits(deployment.pool_settings())
    with pytest.raises(ConfigError, match="api: -1, warehouse: 1001"):
        set_limits(deployment, {"fine": 1, "api": -1, "warehouse": 1001})
    assert not own_limits(deployment.pool_settings())


def test_pools_tell_who_holds_and_who_waits_and_free_lets_go(deployment, home):
    before = time.time()
    set_limits(deployment, {"api": 1, "idle": 2})
    with home.instance() as instance:
        log = instance.event_log_storage
        assert log.claim_concurrency_slot("api", "run1", "step", 0).is_claimed
        assert not log.claim_concurrency_slot("api", "run2", "step", 0).is_claimed
        assert not log.claim_concurrency_slot("api", "run3", "step", 4).is_claimed
        for found in (deployment.pools()[0], *deployment.pools(["api"])):
            assert (found.pool, found.limit, found.from_default) == ("api", 1, False)
            (holder,) = found.holding
            assert (holder.run_id, holder.step_key, holder.slots) == ("run1", "step", 1)
            assert [(s.run_id, s.priority) for s in found.waiting] == [("run3", 4), ("run2", 0)]
            for step in (holder, *found.waiting):
                assert before - 2 < step.since < time.time() + 2
        deployment.free("run1", "step", force=True)
        deployment.free("run3", force=True)
        (found,) = deployment.pools(["api"])
        assert found.held == 0
        assert [step.run_id for step in found.waiting] == ["run2"]
        deployment.free("run2", force=True)
    (new,) = deployment.pools(["new"])
    assert (new.limit, new.from_default, new.held) == (6, True, 0)
    many = deployment.pools([*(f"pool{n}" for n in range(40)), "idle"])
    assert len(many) == 41
    assert (many[0].pool, many[0].limit, many[1].limit) == ("idle", 2, 6)


def test_runs_tell_their_steps_and_their_history(deployment, home):
    since = time.time() - 1
    home.run("dagster", "asset", "materialize", "-f", str(DEFINITIONS), "--select", "stubborn")
    (run,) = (run for run in deployment.find_runs("", 5) if run.is_over)
    assert (run.status, run.pools, run.priority) == ("SUCCESS", {"orders"}, 0)
    assert deployment.find_runs(run.run_id[:-1], 5) == (run,) == deployment.runs([run.run_id])
    assert deployment.planned_steps(run.run_id) == (
        PlannedStep("stubborn", "orders", ("stubborn",)),
    )
    (past,) = (past for past in deployment.history(since) if past.run_id == run.run_id)
    assert past.status == "SUCCESS"
    assert [step.outcome for step in past.steps] == [Outcome.RETRY, Outcome.RETRY, Outcome.SUCCESS]
    assert past.steps[0].error == "ValueError: not yet"
    assert {step.asset_keys for step in past.steps} == {(AssetKey("stubborn"),)}
    assert {step.pool for step in past.steps} == {"orders"} == set(past.pools)
    assert [past.run_id for past in deployment.history(run.ended + 0.001)] == []
    assert run.run_id in {past.run_id for past in deployment.runs_between(since)}
    assert deployment.runs_between(run.ended + 0.001) == ()
    with closing(_instance(home)) as instance:
        (same,) = (past for past in instance.history(since) if past.run_id == run.run_id)
        over_graphql, stored = ((p.started, p.ended) for p in (past, same))
        assert None not in stored
        assert over_graphql == pytest.approx(stored, abs=0.002)
        for one, two in zip(past.steps, same.steps, strict=True):
            assert (one.step_key, one.attempt, one.error) == (two.step_key, two.attempt, two.error)
            assert (one.started, one.ended) == pytest.approx((two.started, two.ended), abs=0.002)
    with pytest.raises(UnknownNameError, match="no run nowhere"):
        deployment.planned_steps("nowhere")


@dg.job
def nothing() -> None: ...


def test_dropped_runs_are_told_by_their_tag(deployment, home):
    with home.instance() as instance:
        runs = [
            instance.create_run_for_job(nothing, tags=tags)
            for tags in ({DUPLICATE_TAG: "kept"}, {DUPLICATE_TAG: NO_DUPLICATE}, {})
        ]
        for run in runs:
            instance.report_run_canceled(run)
    (found,) = deployment.dropped_runs(0.0, 10)
    assert (found.run_id, found.tags[DUPLICATE_TAG]) == (runs[0].run_id, "kept")
    assert deployment.dropped_runs(found.ended + 1.0, 10) == ()
    assert deployment.dropped_runs(0.0, 0) == ()


def test_steps_tell_the_pool_of_the_use_of_their_op(deployment, home):
    sharing = str(DEFINITIONS.with_name("sharing.py"))
    home.run("dagster", "asset", "materialize", "-f", sharing, "--select", "left,right")
    (run,) = (run for run in deployment.find_runs("", 5) if run.pools == {"left", "right"})
    assert {(step.step_key, step.pool) for step in deployment.planned_steps(run.run_id)} == {
        ("left.fetch", "left"),
        ("right.fetch", "right"),
    }


def test_assets_are_those_of_the_code_locations(deployment):
    found = deployment.assets()
    assert (found["held"], found["free_one"]) == (("orders",), ())
    assert deployment.asset_groups()["held"] == "default"


def test_a_queued_run_waits_and_holds_nothing_under_granularity_run(served, deployment):
    home, port = served
    (entry,) = query(port, LOCATIONS)["workspaceOrError"]["locationEntries"]
    answer = query(port, LAUNCH, location=entry["name"])["launchRun"]
    run_id = answer["run"]["runId"]
    (run,) = deployment.unfinished_runs()
    assert (run.run_id, run.status, run.pools) == (run_id, "QUEUED", {"orders"})
    assert (run.priority, run.location, run.job_name) == (3, entry["name"], "held_job")

    with closing(_instance(home, granularity="run")) as instance:
        assert instance.unfinished_runs() == (run,)
        for each in (deployment, instance):
            assert run_id in {past.run_id for past in each.history(0.0)}
            assert run_id not in {past.run_id for past in each.history(0.0, queued=False)}
        found = {state.pool: state for state in instance.pools()}["orders"]
        assert (found.limit, found.from_default, found.holding) == (6, True, ())
        (waiting,) = found.waiting
        assert (waiting.run_id, waiting.step_key, waiting.priority) == (run_id, "", 3)
        instance.instance.report_run_canceled(instance.instance.get_run_by_id(run_id))
    assert deployment.unfinished_runs() == ()


def _instance(home: Home, granularity: str = "op"):
    settings = home.settings
    pools = {**settings["concurrency"]["pools"], "granularity": granularity}
    stock = "custom" not in (home.path / "dagster.yaml").read_text()
    home.settings = {**settings, "concurrency": {"pools": pools}}
    home.write(stock=stock)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DAGSTER_HOME", str(home.path))
        found = open_instance()
    home.settings = settings
    home.write(stock=stock)
    return found


def test_a_webserver_that_is_read_only_permits_nothing(home):
    if "custom" in (home.path / "dagster.yaml").read_text():
        return  # One storage will do.
    port = free_port()
    serve(home, port, "--read-only")
    with closing(open_deployment(f"http://127.0.0.1:{port}")) as deployment:
        assert deployment.settings().limit_max == 1000
        with pytest.raises(DeploymentError, match="does not permit"):
            set_limits(deployment, {"orders": 1})
        with pytest.raises(DeploymentError, match="does not permit"):
            deployment.free("run", force=True)
        assert "orders" not in own_limits(deployment.pool_settings())


def test_apply_over_a_webserver_sets_what_dagster_shows(served, tmp_path, monkeypatch):
    home, port = served
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LIFEGUARD_URL", f"http://127.0.0.1:{port}")
    (tmp_path / "lifeguard.yaml").write_text("pools: {applied: 5, paused: 0}\n")
    run = CliRunner().invoke
    assert run(main, ["plan", "--check"]).exit_code == 1
    result = run(main, ["apply", "--yes"])
    assert result.exit_code == 0, result.output
    assert run(main, ["plan", "--check"]).exit_code == 0
    shown = query(
        port, "{ instance { concurrencyLimits { concurrencyKey limit usingDefaultLimit } } }"
    )
    limits = shown["instance"]["concurrencyLimits"]
    assert {"concurrencyKey": "applied", "limit": 5, "usingDefaultLimit": False} in limits
    assert '"applied": 0 / 5 slots occupied' in home.run(
        "dagster", "instance", "concurrency", "get", "applied"
    )
    (tmp_path / "lifeguard.yaml").write_text("pools: {}\n")
    assert run(main, ["apply", "--yes", "--prune", "applied", "paused"]).exit_code == 0


# ---- what commands say of it -----------------------------------------------------------------------


def test_status_explain_and_free_over_a_webserver(served, monkeypatch):
    home, port = served
    monkeypatch.setenv("LIFEGUARD_URL", f"http://127.0.0.1:{port}")

    def told(*arguments: str) -> dict:
        result = CliRunner().invoke(main, [*arguments, "--json"])
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    def pool() -> dict:
        return told("status", "orders", "--window", "0")

    limit(home)
    first = home.materialize("held")
    (holder,) = home.started()
    second = home.materialize("held")
    eventually(lambda: pool()["summary"]["waiting"] == 1)

    (row,) = (row for row in told("status")["pools"] if row["pool"] == "orders")
    assert (row["limit"], row["held"], row["waiting"]) == (1, 1, 1)
    (by,), (behind,) = pool()["holders"], pool()["queue"]
    assert (by["run_id"], by["step_key"], by["run_status"]) == (holder, "held", "STARTED")
    assert (behind["position"], behind["reason"], behind["step_key"]) == (1, "full", "held")

    (step,) = told("explain", f"{behind['run_id'][:13]}:held")["steps"]
    assert (step["state"], step["assets"]) == ("waiting", ["held"])
    assert [held["run_id"] for held in step["pools"][0]["holders"]] == [holder]
    assert "held waits in 1 run" in CliRunner().invoke(main, ["explain", "held"]).stdout

    # Nobody tells of processes from afar: what an unfinished run holds may be alive, and is kept.
    kept = CliRunner().invoke(main, ["free", holder, "--yes", "--json"])
    (step,) = json.loads(kept.stdout)["steps"]
    assert (kept.exit_code, step["alive"], step["freed"]) == (1, None, False)
    assert step["evidence"] == ["The run is STARTED."]
    assert pool()["summary"]["held"] == 1

    home.go()
    assert [process.wait() for process in (first, second)] == [0, 0]
    assert pool()["summary"]["held"] == 0
    explained = CliRunner().invoke(main, ["explain", holder])
    assert "does not wait: it is done" in explained.stdout

    assert claim(home, "orders", "gone")
    kept = CliRunner().invoke(main, ["free", "orders", "--yes"])
    assert (kept.exit_code, "The run is not known any more." in kept.output) == (1, True)
    with home.instance() as instance:
        over = dg.DagsterRunStatus.FAILURE
        instance.add_run(dg.DagsterRun(job_name="job", run_id="gone", status=over))
    freed = CliRunner().invoke(main, ["free", "orders", "--yes"])
    assert (freed.exit_code, "Freed 1 step" in freed.output) == (0, True)
    assert pool()["summary"]["held"] == 0


RATED = """\
engine: lifeguard
default_limit: 6
pools:
  metered: {limit: 2, rate: 1/day}
  shared: {order: fair(tag:team)}
  plain: 3
"""


def test_what_commands_say_of_rates_and_orders_which_a_webserver_does_not_tell(
    served, deployment, monkeypatch, tmp_path
):
    home, port = served
    instance = dg.DagsterInstance.from_config(str(home.path))  # What waits is gone with it.
    log = instance.event_log_storage
    log.set_concurrency_slots("metered", 2)
    if hasattr(log, "change_pool"):
        log.change_pool("metered", rate=Rate.parse("1/day"))
        assert log.claim_concurrency_slot("metered", "first", "step", 0).is_claimed
        assert not log.claim_concurrency_slot("metered", "second", "step", 0).is_claimed
    assert deployment.pool_settings()["metered"] == PoolSettings(2)
    with pytest.raises(DeploymentError, match="Rates and orders of pools need the engine"):
        list(deployment.set_pools({"metered": PoolSettings(2, Rate.parse("2/day"))}))

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("LIFEGUARD_URL", f"http://127.0.0.1:{port}")
    file = tmp_path / "lifeguard.yaml"
    file.write_text(RATED)

    def said(*arguments: str, code: int = 0) -> str:
        result = CliRunner().invoke(main, arguments)
        assert result.exit_code == code, result.output
        return " ".join(result.output.split())

    line = "Rates and orders need the engine, and cannot be seen over a webserver: metered, shared."
    assert line in said("plan")
    assert line in said("apply", "--yes", code=1)  # Not all is as declared.
    assert own_limits(deployment.pool_settings())["plain"] == 3
    kept = "A webserver does not tell rates and orders: those in the file stay as they are."
    assert kept in said("pull", "--yes")
    set_limits(deployment, {"metered": 5, "plain": None})
    assert kept in said("pull", "--yes")
    pools = Config.from_yaml(file).pools
    assert (pools["metered"].limit, pools["metered"].rate) == (5, "1/day")
    assert pools["shared"].order == "fair(tag:team)"
    assert "plain" not in pools
    if hasattr(log, "change_pool"):
        unknown = "it is next, unless a rate holds it up, which a webserver does not tell"
        assert unknown in said("status", "metered")
        monkeypatch.delenv("LIFEGUARD_URL")
        monkeypatch.setenv("DAGSTER_HOME", str(home.path))
        told = said("status", "metered")
        assert "a slot is free; the rate delays its start" in told
        assert "rate 1/day" in told
        with home.instance() as instance:
            instance.event_log_storage.change_pool("metered", rate=None)
            for run_id in ("first", "second"):
                instance.event_log_storage.free_concurrency_slots_for_run(run_id)
    set_limits(deployment, {"metered": None})


# ---- what is no webserver of Dagster's -------------------------------------------------------------


@contextmanager
def answering(*answers: tuple[int, str, str]) -> Iterator[tuple[str, list[dict]]]:
    """A server with these answers (code, content type or place, text), the last for ever."""
    asked: list[dict] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            code, kind, text = answers[min(len(asked), len(answers) - 1)]
            asked.append({"path": self.path, **{k.lower(): v for k, v in self.headers.items()}})
            self.send_response(code)
            self.send_header("location" if 300 <= code < 400 else "content-type", kind)
            self.send_header("content-length", str(len(text.encode())))
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_: object) -> None: ...

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", asked
        finally:
            server.shutdown()
            thread.join()


JSON = "application/json"
NO_LIMITS = (200, JSON, '{"data": {"instance": {"concurrencyLimits": []}}}')
FAILED_TEXT = "Boolean cannot represent a non boolean value: <GraphenePythonError instance>"
FAILED = (200, JSON, json.dumps({"errors": [{"message": FAILED_TEXT}]}))
TOO_OLD = (400, JSON, '{"errors": [{"message": "Cannot query field \'x\' on type \'Instance\'."}]}')


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ((200, "text/html", "<html>"), "does not speak Dagster's GraphQL: HTTP 200, text/html"),
        ((404, "text/plain", "gone"), "does not speak Dagster's GraphQL: HTTP 404"),
        ((200, JSON, "[1]"), "does not speak Dagster's GraphQL"),
        ((401, JSON, "{}"), "refuses the token"),
        ((403, "text/html", "no"), "refuses the token"),
        ((302, "https://elsewhere.example/login", ""), "redirects to https://elsewhere.example"),
        (TOO_OLD, "too old"),
        ((200, JSON, '{"errors": [{"message": "no luck\\n"}]}'), "answers with an error: no luck"),
        ((503, "text/html", "busy"), "HTTP 503"),
        ((200, JSON, '{"data": null}'), "answers with an error: no data"),
        (FAILED, "failed while it did this"),
    ],
)
def test_wrong_answers_are_told(answer, message):
    with answering(answer) as (url, asked):
        with (
            closing(open_deployment(url, "secret")) as deployment,
            pytest.raises(DeploymentError, match=re.escape(message)) as refusal,
        ):
            own_limits(deployment.pool_settings())
        assert "secret" not in str(refusal.value)
        assert len(asked) == (3 if answer[0] == 503 else 1)


def test_a_database_older_than_pools_is_told():
    answer = {"data": {"version": "1.10.0", "instance": {"supportsConcurrencyLimits": False}}}
    with answering((200, JSON, json.dumps(answer))) as (url, _):
        result = CliRunner().invoke(main, ["status", "--url", url])
    assert result.exit_code == 2
    assert f"Error: {url}: its database is older than pools." in result.output
    assert "Run there: dagster instance migrate" in result.output


def test_reads_are_repeated_and_changes_never(monkeypatch):
    busy = (503, "text/html", "busy")
    with answering(busy, busy, NO_LIMITS) as (url, asked):
        with closing(open_deployment(url)) as deployment:
            assert own_limits(deployment.pool_settings()) == {}
        assert len(asked) == 3
        assert {seen["path"] for seen in asked} == {"/graphql"}
    with answering(busy) as (url, asked), closing(open_deployment(url)) as deployment:
        with pytest.raises(DeploymentError, match=r"HTTP 503\. It may have been done all the same"):
            deployment._webserver.change("delete_limit", pool="orders")
        assert len(asked) == 1


@pytest.mark.parametrize(
    ("kind", "header", "value"),
    [
        (None, "authorization", "Bearer secret"),
        ("dagster-cloud", "dagster-cloud-api-token", "secret"),
    ],
)
def test_a_token_is_sent_in_its_header_and_not_without(kind, header, value):
    with answering(NO_LIMITS) as (url, asked):
        with closing(open_deployment(f"{url}/prod/graphql", "secret", kind)) as deployment:
            own_limits(deployment.pool_settings())
        assert asked[0][header] == value
        assert asked[0]["path"] == "/prod/graphql"
        with closing(open_deployment(url)) as deployment:
            own_limits(deployment.pool_settings())
        assert not {"authorization", "dagster-cloud-api-token"} & asked[1].keys()


def test_the_token_of_dagster_plus_goes_to_dagster_plus_only(monkeypatch):
    monkeypatch.setenv("DAGSTER_CLOUD_API_TOKEN", "secret")
    settings = {"data": {"version": "1.10.0", "instance": {"supportsConcurrencyLimits": False}}}
    with answering((200, JSON, json.dumps(settings))) as (url, asked):
        CliRunner().invoke(main, ["status", "--url", url])
        assert not {"authorization", "dagster-cloud-api-token"} & asked[0].keys()
        named = ["--token-env", "DAGSTER_CLOUD_API_TOKEN"]
        CliRunner().invoke(main, ["status", "--url", url, *named])
        assert asked[1]["authorization"] == "Bearer secret"
    assert is_dagster_plus("https://my-org.dagster.cloud/prod")
    assert not is_dagster_plus("http://my-org.dagster.cloud/prod")
    assert not is_dagster_plus("https://dagster.cloud.example.com")


def test_a_user_in_the_address_does_not_take_the_place_of_a_token():
    with pytest.raises(DeploymentError, match="a user in its address and a token") as refusal:
        open_deployment("http://me:hidden@127.0.0.1:1", "secret")
    assert "hidden" not in str(refusal.value)


def test_dagster_plus_gets_its_token_as_it_wants_it():
    with closing(open_deployment("https://my-org.dagster.cloud/prod", "secret")) as deployment:
        headers = deployment._webserver._client.headers
        assert headers["dagster-cloud-api-token"] == "secret"
        assert "authorization" not in headers
        assert deployment.name == "https://my-org.dagster.cloud/prod"


@pytest.mark.parametrize("url", ["localhost:3000", "ftp://x", "http://", "not an address", ""])
def test_what_is_no_address_is_refused(url):
    with pytest.raises(DeploymentError, match="is no address"):
        open_deployment(url)


def test_what_is_no_address_is_told_without_its_password():
    with pytest.raises(DeploymentError, match="is no address") as refusal:
        open_deployment("ftp://me:hidden@example.com")
    assert "hidden" not in str(refusal.value)


def test_a_webserver_that_is_away_is_told_without_its_password():
    url = f"http://me:hidden@127.0.0.1:{free_port()}"
    with closing(open_deployment(url)) as deployment:
        with pytest.raises(DeploymentError, match="cannot be reached") as refusal:
            own_limits(deployment.pool_settings())
        assert "hidden" not in str(refusal.value)


def test_apply_that_fails_in_between_tells_what_was_done(tmp_path, monkeypatch):
    def data(**fields: object) -> tuple[int, str, str]:
        return 200, JSON, json.dumps({"data": fields})

    pool = {"limit": 1, "usingDefaultLimit": True, "claimedSlots": [], "pendingSteps": []}
    settings = data(
        version="1.13.27",
        instance={
            "supportsConcurrencyLimits": True,
            "minConcurrencyLimitValue": 0,
            "maxConcurrencyLimitValue": 1000,
            "poolConfig": {"poolGranularity": None, "defaultPoolLimit": 1},
        },
    )
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lifeguard.yaml").write_text("pools: {a: 2, b: 2, c: 2}\n")
    answers = (
        settings,
        data(instance={"concurrencyLimits": []}),
        settings,
        *(data(instance={"concurrencyLimit": {"concurrencyKey": n, **pool}}) for n in "abc"),
        settings,
        data(permissions=[{"permission": "edit_concurrency_limit", "value": True}]),
        data(setConcurrencyLimit=True),
        (200, JSON, '{"errors": [{"message": "disk full"}]}'),
    )
    for arguments in ([], ["--json"]):
        with answering(*answers) as (url, asked):
            result = CliRunner().invoke(main, ["apply", "--yes", "--url", url, *arguments])
            assert result.exit_code == 2
            assert len(asked) == len(answers)
            assert f"{url} answers with an error: disk full." in result.stderr
        if arguments:
            found = json.loads(result.stdout)
            assert (found["done"], found["not_done"]) == (["a"], ["b", "c"])
            assert "disk full" in found["error"]["message"]
        else:
            assert "Done: a.\nNot done: b, c." in result.stderr
