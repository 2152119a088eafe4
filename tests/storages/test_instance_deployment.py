"""What an instance's deployment tells and does, over the stock storage and over the engine."""

from __future__ import annotations

import re
import time
from contextlib import closing
from typing import TYPE_CHECKING

import dagster as dg
import pytest
import sqlalchemy as db
from homes import eventually

from dagster_lifeguard.deployment.contract import HoldingStep, PlannedStep
from dagster_lifeguard.deployment.open import open_deployment
from dagster_lifeguard.engine.rules.duplicates import DUPLICATE_TAG, NO_DUPLICATE
from dagster_lifeguard.engine.rules.pool_settings import PoolSettings, own_limits
from dagster_lifeguard.engine.rules.rate import Rate
from dagster_lifeguard.errors import ConfigError, DeploymentError, UnknownNameError
from places import PostgresPlace
from pool_values import set_limits

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from homes import Home

    from dagster_lifeguard.deployment.instance import InstanceDeployment


@pytest.fixture(params=["stock", "engine"])
def world(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def new_deployment(make_home, kind, world, monkeypatch) -> Iterator[Callable]:
    """Opens deployments on homes of their own, as a command does."""
    made = []

    def make(**settings) -> InstanceDeployment:
        home: Home = make_home(kind, stock=world == "stock", **settings)
        monkeypatch.setenv("DAGSTER_HOME", str(home.path))
        made.append(open_deployment())
        return made[-1]

    yield make
    for deployment in made:
        deployment.close()


def claim(deployment, run_id, pool="orders", priority=0) -> bool:
    log = deployment.instance.event_log_storage
    return log.claim_concurrency_slot(pool, run_id, "step", priority).is_claimed


def apply(deployment, **limits: int | None) -> list[str]:
    return set_limits(deployment, limits)


@dg.asset(key_prefix="sales", pool="orders")
def orders() -> None: ...


@dg.asset(deps=[orders])
def notes() -> None: ...


@dg.job
def nothing() -> None: ...


def materialize(deployment, **options) -> str:
    result = dg.materialize([orders, notes], instance=deployment.instance, **options)
    assert result.success
    return result.run_id


def test_a_pool_tells_its_rate_and_its_order_idle_or_not(new_deployment, world):
    deployment = new_deployment()
    kept = (Rate(6, 60), "team") if world == "engine" else ()
    list(deployment.set_pools({"orders": PoolSettings(2, *kept)}))
    (idle,) = deployment.pools()
    assert claim(deployment, "a")
    (busy,) = deployment.pools()
    expected = (Rate(6, 60), "team") if world == "engine" else (None, None)
    assert [(found.settings.rate, found.settings.fair_by) for found in (idle, busy)] == [
        expected
    ] * 2
    (holding,) = busy.holding
    assert (holding.group, busy.due_ns > 0) == (("", True) if world == "engine" else (None, False))


def test_settings_are_those_of_the_instance(new_deployment, world):
    found = new_deployment().settings()
    assert found.engine is (world == "engine")
    assert (found.default_limit, found.granularity) == (None, "op")
    assert (found.limit_min, found.limit_max) == (0, 1000)
    assert found.dagster_version == dg.__version__

    pools = {"default_limit": 3, "granularity": "run"}
    found = new_deployment(concurrency={"pools": pools}).settings()
    assert (found.default_limit, found.granularity) == (3, "run")


def test_pools_tell_who_holds_and_who_waits(new_deployment, world):
    deployment = new_deployment()
    before = time.time()
    apply(deployment, orders=1, idle=2)
    assert claim(deployment, "run1")
    assert not claim(deployment, "run2")
    assert not claim(deployment, "run3", priority=5)

    idle, found = deployment.pools()
    assert (idle.pool, idle.limit, idle.from_default, idle.held) == ("idle", 2, False, 0)
    assert (found.pool, found.limit, found.from_default, found.held) == ("orders", 1, False, 1)
    (holder,) = found.holding
    assert (holder.run_id, holder.step_key, holder.slots) == ("run1", "step", 1)
    assert (holder.fence is not None) == (world == "engine")
    assert [(s.run_id, s.priority, s.assigned) for s in found.waiting] == [
        ("run3", 5, None),
        ("run2", 0, None),
    ]
    for step in (holder, *found.waiting):
        assert before - 2 < step.since < time.time() + 2


def test_pools_are_told_by_name(new_deployment):
    deployment = new_deployment(concurrency={"pools": {"default_limit": 4}})
    apply(deployment, orders=1, other=1)
    assert claim(deployment, "run1")
    known, new = deployment.pools(["orders", "new"])[::-1]
    assert (known.pool, known.held) == ("orders", 1)
    assert (new.pool, new.limit, new.from_default, new.held) == ("new", 4, True, 0)
    many = [f"pool{n}" for n in range(1500)]
    assert len(deployment.pools([*many, "orders"])) == 1501


def test_the_default_is_no_limit_of_its_own_of_a_pool_in_use(new_deployment):
    deployment = new_deployment(concurrency={"pools": {"default_limit": 4}})
    apply(deployment, own=1)
    assert deployment.instance.event_log_storage.initialize_concurrency_limit_to_default("orders")
    assert claim(deployment, "run1")
    assert own_limits(deployment.pool_settings()) == {"own": 1}
    _, found = sorted(deployment.pools(), key=lambda state: state.from_default)
    assert (found.pool, found.limit, found.from_default) == ("orders", 4, True)


def test_a_pool_whose_limit_was_deleted_is_told_while_it_is_held(new_deployment):
    deployment = new_deployment()
    apply(deployment, orders=1)
    assert claim(deployment, "run1")
    assert apply(deployment, orders=None) == ["orders"]
    (found,) = deployment.pools()
    assert (found.pool, found.limit, found.held) == ("orders", None, 1)
    deployment.free("run1", force=True)
    assert deployment.pools() == ()


def test_lowering_drains_and_raising_lets_waiters_in(new_deployment):
    deployment = new_deployment()
    apply(deployment, orders=2)
    assert claim(deployment, "run1")
    assert claim(deployment, "run2")
    assert not claim(deployment, "run3")
    apply(deployment, orders=1)
    (found,) = deployment.pools()
    assert (found.limit, found.held, len(found.waiting)) == (1, 2, 1)
    apply(deployment, orders=3)
    assert claim(deployment, "run3")


def test_limits_are_set_together_or_not_at_all(new_deployment, kind):
    deployment = new_deployment()
    apply(deployment, kept=1, zebra=1)
    refuse = (
        "CREATE TRIGGER refuse BEFORE UPDATE ON concurrency_limits "
        "WHEN NEW.concurrency_key = 'zebra' AND NEW.\"limit\" = 7 "
        "BEGIN SELECT RAISE(ABORT, 'not the zebra'); END"
        if kind == "sqlite"
        else "ALTER TABLE concurrency_limits ADD CONSTRAINT refuse "
        "CHECK (concurrency_key <> 'zebra' OR \"limit\" <> 7)"
    )
    with deployment.instance.event_log_storage.index_connection() as connection:
        connection.execute(db.text(refuse))
    with pytest.raises(Exception, match=r"zebra|refuse"):
        apply(deployment, added=5, kept=None, zebra=7)
    assert own_limits(deployment.pool_settings()) == {"kept": 1, "zebra": 1}

    assert apply(deployment, added=5, kept=None, zebra=8) == ["added", "kept", "zebra"]
    assert own_limits(deployment.pool_settings()) == {"added": 5, "zebra": 8}


@pytest.mark.parametrize("limit", [-1, 1001])
def test_limits_out_of_bounds_are_refused(new_deployment, limit):
    deployment = new_deployment()
    with pytest.raises(ConfigError, match=f"orders: {limit}"):
        apply(deployment, good=1, orders=limit)
    assert not own_limits(deployment.pool_settings())


def test_a_step_or_a_run_is_freed(new_deployment):
    deployment = new_deployment()
    apply(deployment, orders=1)
    assert claim(deployment, "run1")
    assert not claim(deployment, "run2")
    deployment.free("run2", "step", force=True)
    deployment.free("run1", "other", force=True)
    (found,) = deployment.pools()
    assert (found.held, found.waiting) == (1, ())
    deployment.free("run1", "step", force=True)
    assert deployment.pools()[0].held == 0


def test_runs_tell_what_they_are(new_deployment):
    deployment = new_deployment()
    before = time.time()
    tags = {"dagster/priority": "7", "team": "sales"}
    first = materialize(deployment, tags=tags)
    second = materialize(deployment, selection=[notes], tags={"dagster/priority": "high"})

    one, two = deployment.runs([second, "unknown", first])
    assert (one.run_id, one.status, one.is_over, one.pools) == (first, "SUCCESS", True, {"orders"})
    assert (one.priority, one.tags["team"], two.priority, two.pools) == (7, "sales", 0, frozenset())
    assert before - 2 < one.created < one.started <= one.ended < time.time() + 2
    assert deployment.unfinished_runs() == ()
    assert deployment.find_runs(first[:-1], 5) == (one,)
    assert deployment.find_runs("", 1) == (two,)
    assert deployment.find_runs("%", 5) == ()


def test_dropped_runs_are_told_by_their_tag(new_deployment):
    deployment = new_deployment()
    kept = materialize(deployment)
    first, second, restarted, _ = (
        deployment.instance.create_run_for_job(nothing, tags={DUPLICATE_TAG: value})
        for value in (kept, kept, NO_DUPLICATE, kept)
    )
    for run in (first, second, restarted):
        deployment.instance.report_run_canceled(run)
    found = deployment.dropped_runs(0.0, 10)
    assert [run.run_id for run in found] == [first.run_id, second.run_id]
    assert {run.tags[DUPLICATE_TAG] for run in found} == {kept}
    assert [run.run_id for run in deployment.dropped_runs(0.0, 1)] == [second.run_id]
    assert deployment.dropped_runs(found[-1].ended + 1.0, 10) == ()


def test_runs_tell_their_steps_and_assets(new_deployment):
    deployment = new_deployment()
    run_id = materialize(deployment)
    assert deployment.planned_steps(run_id) == (
        PlannedStep("sales__orders", "orders", ("sales/orders",)),
        PlannedStep("notes", None, ("notes",)),
    )
    materialize(deployment, selection=[notes])
    assert dict(deployment.assets()) == {"notes": (), "sales/orders": ("orders",)}
    with pytest.raises(UnknownNameError, match="no run nowhere"):
        deployment.planned_steps("nowhere")


def test_history_is_that_of_the_time_asked_for(new_deployment):
    deployment = new_deployment()
    first = materialize(deployment)
    (run,) = deployment.runs([first])
    eventually(lambda: time.time() >= int(run.created) + 1)  # SQLite may tell whole seconds.
    second = materialize(deployment)
    (later,) = deployment.runs([second])
    assert [r.run_id for r in deployment.history(0)] == [first, second]
    assert [r.run_id for r in deployment.history(run.ended + 0.001)] == [second]
    assert [r.run_id for r in deployment.history(0, later.created - 0.0005)] == [first]


def test_moments_are_right_on_a_server_in_another_time_zone(make_home, monkeypatch):
    home = make_home("postgres", stock=True)
    url = db.make_url(home.stock["postgres"]["postgres_url"]).set(drivername="postgresql")
    place = PostgresPlace(url.render_as_string(hide_password=False))
    place.sql(f"ALTER DATABASE {url.database} SET timezone TO 'Asia/Tokyo'")
    monkeypatch.setenv("DAGSTER_HOME", str(home.path))
    with closing(open_deployment()) as deployment:
        apply(deployment, orders=1)
        assert claim(deployment, "run1")
        assert not claim(deployment, "run2")
        (found,) = deployment.pools()
        for step in (*found.holding, *found.waiting):
            assert abs(step.since - time.time()) < 1800


class TestRefusals:
    def test_no_home(self):
        with pytest.raises(DeploymentError, match="neither --url nor DAGSTER_HOME"):
            open_deployment()

    @pytest.mark.parametrize("home", ["relative", "/not/there"])
    def test_a_home_that_is_none(self, monkeypatch, home):
        monkeypatch.setenv("DAGSTER_HOME", home)
        with pytest.raises(DeploymentError, match=f"DAGSTER_HOME is {home}"):
            open_deployment()

    def test_a_dagster_yaml_that_dagster_refuses(self, home):
        (home / "dagster.yaml").write_text("nonsense: 1\n")
        with pytest.raises(DeploymentError, match="cannot be opened"):
            open_deployment()

    def test_a_database_that_is_away(self, home):
        url = {"postgres_url": "postgresql+psycopg2://nobody@127.0.0.1:1/nothing"}
        (home / "dagster.yaml").write_text(
            f"telemetry: {{enabled: false}}\nstorage: {{postgres: {url}}}\n"
        )
        with pytest.raises(DeploymentError, match=re.escape("127.0.0.1")):
            open_deployment()

    def test_a_database_older_than_pools(self, home):
        with (
            dg.DagsterInstance.get() as instance,
            instance.event_log_storage.index_connection() as connection,
        ):
            connection.execute(db.text("DROP TABLE concurrency_slots"))
        with pytest.raises(DeploymentError) as refusal:
            open_deployment()
        assert "dagster instance migrate" in refusal.value.remedy


def test_holders_under_granularity_run_are_told_by_no_slots(new_deployment):
    """That runs hold there is tested where there is a run queue: with the webserver."""
    deployment = new_deployment(concurrency={"pools": {"granularity": "run"}})
    apply(deployment, orders=1)
    assert claim(deployment, "run1")
    (found,) = deployment.pools()
    assert found.holding == ()
    assert HoldingStep("run1", "step") not in found.holding
