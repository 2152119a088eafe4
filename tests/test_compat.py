"""The facts about Dagster that we rely on; a test fails when Dagster changes one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.definitions.reconstruct import repository_def_from_target_def
from dagster._utils.concurrency import get_max_concurrency_limit_value

import catalogue
from dagster_lifeguard import Policy, Rule, apply_per_asset_concurrency
from dagster_lifeguard.compat.contexts import step_of
from dagster_lifeguard.compat.definitions import LazyDefinitions, made_keys, tag_values
from dagster_lifeguard.compat.instance import (
    DEFAULT_LIMIT_COMES_LATE,
    InstancePoolSettings,
    instance_config_problem,
    instance_pool_settings,
)
from dagster_lifeguard.compat.ops import CONCURRENCY_KEY_TAG
from dagster_lifeguard.compat.storages import assign_missed
from dagster_lifeguard.deployment.home import home_problem
from dagster_lifeguard.policy.config import LIMIT_MAX


def plan_pools(job: dg.JobDefinition) -> dict[str, str | None]:
    """The pool that each step of a job will claim, as Dagster's executors read it."""
    from dagster._core.execution.api import create_execution_plan
    from dagster._core.execution.plan.active import ActiveExecution  # noqa: F401

    plan: Any = create_execution_plan(job)
    return {step.key: step.pool or step.tags.get("dagster/concurrency_key") for step in plan.steps}


class TestPools:
    def test_a_steps_pool_is_its_ops_pool(self) -> None:
        new = apply_per_asset_concurrency(catalogue.asset())
        job = new.get_repository_def().get_job("__ASSET_JOB")
        assert plan_pools(job) == {"orders": "orders", "my_group__my_asset": "my_group_my_asset"}

    def test_the_older_tag_names_a_pool_too(self) -> None:
        @dg.op(tags={"dagster/concurrency_key": "old"})
        def tagged() -> None: ...

        @dg.op
        def plain() -> None: ...

        @dg.job
        def both() -> None:
            tagged()
            plain.tag({"dagster/concurrency_key": "node"})()

        assert plan_pools(both) == {"tagged": "old", "plain": "node"}

    def test_the_older_tag_is_not_read_from_assets(self) -> None:
        @dg.asset(tags={CONCURRENCY_KEY_TAG: "x"})
        def on_asset() -> None: ...

        @dg.asset(op_tags={CONCURRENCY_KEY_TAG: "x"})
        def on_op() -> None: ...

        defs = dg.Definitions(assets=[on_asset, on_op])
        job = defs.get_repository_def().get_job("__ASSET_JOB")
        assert {k: v for k, v in plan_pools(job).items() if v} == {"on_op": "x"}
        assert list(tag_values([on_asset, on_op], CONCURRENCY_KEY_TAG)) == [("on_asset", "x")]

    def test_an_op_cannot_have_a_tag_and_another_pool(self) -> None:
        with pytest.raises(dg.DagsterInvalidDefinitionError, match="conflicts"):

            @dg.op(pool="a", tags={"dagster/concurrency_key": "b"})
            def two() -> None: ...

    def test_a_step_claims_a_pool_of_any_name(self) -> None:
        """Also before Dagster 1.12.4, when ``pool=`` took only letters, digits and ``_``."""
        new = Policy(naming="path").apply(catalogue.asset())
        job = new.get_repository_def().get_job("__ASSET_JOB")
        assert plan_pools(job) == {"orders": "orders", "my_group__my_asset": "my_group/my_asset"}

    def test_no_pool_name_has_white_space(self) -> None:
        with pytest.raises(dg.DagsterInvalidDefinitionError, match="is not a valid"):

            @dg.op(pool="a b")
            def spaced() -> None: ...

    def test_the_maximum_of_a_limit(self) -> None:
        assert get_max_concurrency_limit_value() == LIMIT_MAX

    @pytest.mark.parametrize(("default_limit", "admitted"), [(None, 2), (1, 1)])
    def test_a_pool_without_any_limit_is_unlimited(
        self, tmp_path: Path, default_limit: int | None, admitted: int
    ) -> None:
        from dagster._core.execution.plan.instance_concurrency_context import (
            InstanceConcurrencyContext,
        )

        overrides: dict[str, Any] = {"telemetry": {"enabled": False}}
        if default_limit is not None:
            overrides["concurrency"] = {"pools": {"default_limit": default_limit}}
        with dg.instance_for_test(temp_dir=str(tmp_path), overrides=overrides) as instance:
            answers = []
            for number in range(2):
                run: Any = dg.DagsterRun(job_name="j", run_id=f"run-{number}")
                with InstanceConcurrencyContext(instance, run) as context:
                    answers.append(context.claim("orders", "step"))
            assert answers.count(True) == admitted


class TestIdentity:
    """Why a replaced op must be the same object wherever it is used."""

    def test_two_ops_of_one_name_are_refused_within_a_job(self) -> None:
        graphs = catalogue.shared_ops()
        left, right = (a for a in graphs.assets or () if isinstance(a, dg.AssetsDefinition))
        alone = [apply_per_asset_concurrency(dg.Definitions(assets=[a])) for a in (left, right)]
        with pytest.raises(dg.DagsterInvalidDefinitionError, match="conflicting node definitions"):
            dg.Definitions.merge(*alone).get_repository_def().get_all_jobs()

    def test_two_ops_of_one_name_are_refused_across_jobs(self) -> None:
        base = catalogue.shared_ops()
        new = apply_per_asset_concurrency(dg.Definitions(assets=base.assets))
        mixed = dg.Definitions(assets=new.assets, jobs=base.jobs)
        with pytest.raises(dg.DagsterInvalidDefinitionError, match="Conflicting definitions"):
            mixed.get_repository_def().get_all_jobs()

    def test_a_schedules_target_must_have_the_assets_computation(self) -> None:
        base = catalogue.automations()
        new = apply_per_asset_concurrency(base)
        mixed = dg.Definitions(assets=new.assets, schedules=base.schedules, jobs=base.jobs)
        with pytest.raises(dg.DagsterInvalidDefinitionError, match="a different asset"):
            mixed.get_repository_def()


class TestObservableSourceAssets:
    def test_binding_resources_drops_their_op(self) -> None:
        @dg.observable_source_asset
        def bucket() -> dg.DataVersion:
            return dg.DataVersion("1")

        before = bucket.op
        (after,) = dg.with_resources([bucket], {"io_manager": catalogue.MemoryIOManager()})
        assert isinstance(after, dg.SourceAsset)
        assert after.op is not before


class TestOrder:
    def test_outputs_name_all_keys_that_an_op_makes(self) -> None:
        for kind, keys in (
            (catalogue.multi_asset, [["animals", "ant"], ["animals", "zebra"]]),
            (catalogue.graph_multi_asset, [["pair", "first"], ["pair", "second"]]),
        ):
            (asset,) = (a for a in kind().assets or () if isinstance(a, dg.AssetsDefinition))
            assert made_keys(asset) == tuple(map(dg.AssetKey, keys))

    def test_a_subset_names_those_of_the_whole(self) -> None:
        (asset,) = catalogue.specs_from_a_set().assets or ()
        assert isinstance(asset, dg.AssetsDefinition)
        part = asset.subset_for({dg.AssetKey(["models", "users"])}, None)
        assert made_keys(part) == made_keys(asset)


class TestLazyDefinitions:
    def test_they_stay_lazy_and_get_their_pools(self) -> None:
        from dagster._utils.test import definitions as of_dagster

        decorate: Any = getattr(dg, "definitions", None) or of_dagster.lazy_definitions
        calls = []

        @decorate
        def defs() -> dg.Definitions:
            calls.append(1)
            return catalogue.asset()

        new = apply_per_asset_concurrency(defs)
        assert isinstance(new, LazyDefinitions)
        assert not calls
        repository: Any = repository_def_from_target_def(new)
        assert {a.op.pool for a in repository.assets_defs_by_key.values()} == {
            "orders",
            "my_group_my_asset",
        }


class TestInstance:
    @pytest.mark.parametrize(
        ("text", "settings"),
        [
            ("", InstancePoolSettings(None, "op")),
            ("concurrency: {default_op_concurrency_limit: 3}", InstancePoolSettings(3, "op")),
            (
                "concurrency: {pools: {default_limit: 1, granularity: run}}",
                InstancePoolSettings(1, "run"),
            ),
        ],
    )
    def test_pool_settings(
        self,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        text: str,
        settings: InstancePoolSettings,
    ) -> None:
        tmp_path.joinpath("dagster.yaml").write_text(f"telemetry: {{enabled: false}}\n{text}\n")
        monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
        assert instance_pool_settings(str(tmp_path)) == settings

    def test_which_homes_dagster_takes(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        tmp_path.joinpath("home").mkdir()
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("HOME", str(tmp_path))
        for home in ("", "home", str(tmp_path / "none"), "~/home", str(tmp_path / "home")):
            monkeypatch.setenv("DAGSTER_HOME", home)
            if home_problem(home) is None:
                with dg.DagsterInstance.get() as instance:
                    assert instance.root_directory == str(tmp_path / "home")
            else:
                with pytest.raises(dg.DagsterError):
                    dg.DagsterInstance.get()

    def test_what_dagster_refuses(self, tmp_path: Path) -> None:
        assert instance_config_problem(str(tmp_path)) is None
        tmp_path.joinpath("dagster.yaml").write_text(
            "run_queue: {max_concurrent_runs: 3}\nconcurrency: {pools: {default_limit: 1}}\n"
        )
        problem = instance_config_problem(str(tmp_path))
        assert problem is not None
        assert "max_concurrent_runs" in problem


class TestRunQueue:
    def test_the_default_limit_comes_one_pass_late_at_run_granularity(self, tmp_path: Path) -> None:
        """Why ``check`` finds ``limit-not-set``."""
        from dagster._core.instance.config import PoolGranularity
        from dagster._core.op_concurrency_limits_counter import GlobalOpConcurrencyLimitsCounter
        from dagster._core.storage.dagster_run import RunOpConcurrency

        overrides = {
            "telemetry": {"enabled": False},
            "concurrency": {"pools": {"default_limit": 1, "granularity": "run"}},
        }
        needs = RunOpConcurrency(
            root_key_counts={"orders": 1},
            has_unconstrained_root_nodes=False,
            all_pools={"orders"},
        )
        runs = [
            dg.DagsterRun(job_name="j", run_id=f"run-{n}", run_op_concurrency=needs)
            for n in range(2)
        ]

        def admitted(instance: Any) -> int:
            storage = instance.event_log_storage
            looked_up: dict[str, Any] = {}
            if DEFAULT_LIMIT_COMES_LATE:
                looked_up["pool_limits"] = storage.get_pool_limits()
                looked_up["concurrency_keys"] = storage.get_concurrency_keys()
            counter: Any = GlobalOpConcurrencyLimitsCounter(
                instance, runs, [], pool_granularity=PoolGranularity.RUN, **looked_up
            )
            count = 0
            for run in runs:
                if not counter.is_blocked(run):
                    counter.update_counters_with_launched_item(run)
                    count += 1
            return count

        with dg.instance_for_test(temp_dir=str(tmp_path), overrides=overrides) as instance:
            first_pass = 2 if DEFAULT_LIMIT_COMES_LATE else 1
            assert (admitted(instance), admitted(instance)) == (first_pass, 1)


class TestContexts:
    def test_of_a_step_and_of_its_output(self) -> None:
        found = []

        class Outputs(dg.IOManager):
            def handle_output(self, context, obj) -> None:
                found.append(step_of(context))

            def load_input(self, context) -> None: ...

        @dg.asset(io_manager_def=Outputs())
        def one(context) -> int:
            found.append(step_of(context))
            return 1

        @dg.asset_check(asset=one)
        def checked(context):
            found.append(step_of(context))
            return dg.AssetCheckResult(passed=True)

        @dg.op
        def plain(context) -> None:
            found.append(step_of(context))

        @dg.job
        def both() -> None:
            plain()
            plain.alias("again")()

        with dg.DagsterInstance.ephemeral() as instance:
            run = dg.materialize([one, checked], instance=instance)
            job_run = both.execute_in_process(instance=instance)
            assert {step.instance for step in found} == {instance}
        assert [(step.run_id, step.step_key) for step in found[:3]] == [
            (run.run_id, "one"),
            (run.run_id, "one"),
            (run.run_id, "one_checked"),
        ]
        assert {(step.run_id, step.step_key) for step in found[3:]} == {
            (job_run.run_id, "plain"),
            (job_run.run_id, "again"),
        }

    def test_of_no_step(self) -> None:
        contexts = [dg.build_asset_context(), dg.build_op_context(), dg.build_output_context()]
        assert [step_of(context) for context in contexts] == [None, None, None]
        assert step_of(None) is None


class TestSubmissions:
    """What the run coordinator reads of a run, and does to it: see also ``test_duplicate_runs``."""

    @pytest.fixture
    def snapshot(self) -> Any:
        from dagster._core.execution.api import create_execution_plan
        from dagster._core.snap import snapshot_from_execution_plan

        rule = Rule(assets="*", pools=("{asset}",), on_conflict="skip_new")
        defs = Policy(rules=(rule,)).apply(catalogue.graph_asset())
        job = defs.get_repository_def().get_job("__ASSET_JOB")
        return snapshot_from_execution_plan(create_execution_plan(job), "id")

    def test_a_plan_tells_the_tags_of_each_ops_step(self, snapshot: Any) -> None:
        assert len(snapshot.steps) > 1
        assert all(step.tags["lifeguard/on_conflict"] == "skip_new" for step in snapshot.steps)

    def test_a_step_tells_its_outermost_node_first(self, snapshot: Any) -> None:
        (node,) = {step.node_handle_id.split(".")[0] for step in snapshot.steps}
        assert all(step.node_handle_id.startswith(f"{node}.") for step in snapshot.steps)

    def test_the_tags_of_bookkeeping_are_those_that_dagster_writes(self) -> None:
        from dagster._core.storage import tags as of_dagster

        from dagster_lifeguard.compat.submissions import BOOKKEEPING_TAGS, CLAIM_TAGS

        known = {v for k, v in vars(of_dagster).items() if k.endswith("_TAG")}
        later = {"dagster/tick", "dagster/from_automation_condition", "dagster/code_location"}
        unnamed = {"dagster/from_ui", "dagster/is_asset_resume_retry"}
        parents = {"dagster/parent_backfill_id", "dagster/root_backfill_id"}
        retries = {"dagster/will_retry", "dagster/auto_retry_run_id", "dagster/failure_reason"}
        assert BOOKKEEPING_TAGS - known <= later | unnamed | parents | retries
        assert known >= CLAIM_TAGS

    @pytest.mark.parametrize(
        ("tags", "others"),
        [
            ({"dagster/tick": "1"}, {"dagster/tick": "2"}),
            ({"dagster/schedule_name": "a"}, {"dagster/schedule_name": "b"}),
            ({"dagster/sensor_name": "a", "dagster/tick": "1"}, {"dagster/from_ui": "true"}),
            ({"dagster/from_automation_condition": "true"}, {"dagster/auto_materialize": "true"}),
            ({"dagster/code_location": "a", "dagster/auto_observe": "true"}, {"user": "me"}),
            ({"dagster/partition_set": "a"}, {".dagster/scheduled_execution_time": "now"}),
            (
                {"dagster/parent_run_id": "a", "dagster/root_run_id": "a"},
                {"dagster/retry_number": "1", "dagster/is_resume_retry": "true"},
            ),
            (
                {"dagster/parent_backfill_id": "a", "dagster/root_backfill_id": "a"},
                {"dagster/step_selection": "s", "dagster/solid_selection": "s"},
            ),
            (
                {"dagster/will_retry": "true", "dagster/auto_retry_run_id": "a"},
                {"dagster/failure_reason": "STEP_FAILURE", "dagster/is_asset_resume_retry": "true"},
            ),
        ],
        ids=str,
    )
    def test_who_asked_and_when_is_no_work_of_a_run(
        self, tags: dict[str, str], others: dict[str, str]
    ) -> None:
        """Two ticks of one schedule, say, ask for the same: a duplicate, see ``duplicates``."""
        from dagster_lifeguard.compat.submissions import order_of

        one, other, neither = (
            order_of(dg.DagsterRun(job_name="job", run_id=run_id, tags=of_run))
            for run_id, of_run in (("one", tags), ("other", others), ("neither", {}))
        )
        assert one.stands_in_for(other)
        assert other.stands_in_for(neither)
        assert neither.stands_in_for(one)

    def test_the_tag_of_a_tick_is_the_one_that_dagster_writes(self) -> None:
        tags_for_tick_id = getattr(dg.DagsterRun, "tags_for_tick_id", None)
        if tags_for_tick_id is None:
            pytest.skip("this Dagster writes no ticks")
        assert tags_for_tick_id("7") == {"dagster/tick": "7"}

    def test_the_coordinator_is_configured_as_dagsters_with_one_key_more(self) -> None:
        from dagster_lifeguard.storage.run_coordinator import LifeguardRunCoordinator

        stock: Any = dg.QueuedRunCoordinator.config_type()
        ours: Any = LifeguardRunCoordinator.config_type()
        assert ours.keys() - stock.keys() == {"lifeguard"}


def test_a_freed_slot_that_the_stock_storage_gave_to_nobody_can_be_assigned(monkeypatch) -> None:
    """Freed after the waiting step was told that there is none, and before it is in line."""
    with dg.DagsterInstance.local_temp() as instance:
        log: Any = instance.event_log_storage
        log.set_concurrency_slots("pool", 1)
        assert log.claim_concurrency_slot("pool", "first", "step").is_claimed
        has_unassigned_slots = log.has_unassigned_slots

        def freed_meanwhile(pool: str) -> bool:
            found = has_unassigned_slots(pool)
            log.free_concurrency_slot_for_step("first", "step")
            return found

        with monkeypatch.context() as patch:
            patch.setattr(log, "has_unassigned_slots", freed_meanwhile)
            assert not log.claim_concurrency_slot("pool", "second", "step").is_claimed
        assert not log.claim_concurrency_slot("pool", "second", "step").is_claimed
        assert assign_missed(log, "pool")
        assert log.claim_concurrency_slot("pool", "second", "step").is_claimed
        assert not assign_missed(log, "pool")
