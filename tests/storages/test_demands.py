"""What a step asks for, worked out from its expression and the plan of its run."""

from __future__ import annotations

import pytest
from dagster import AssetKey

from dagster_lifeguard.compat.plans import StepPlan
from dagster_lifeguard.engine.rules.model import POOLS_PER_DEMAND_MAX, Demand, TicketKey
from dagster_lifeguard.engine.rules.pool_expressions import HOLD_STEP
from dagster_lifeguard.errors import ConfigError
from dagster_lifeguard.storage.demands import PARTITIONS_MAX, Demands, RunPlan, asked
from dagster_lifeguard.storage.expressions import is_deferred


def plan(*assets: str, partitions: tuple[str, ...] | None = None, step: str = "step") -> RunPlan:
    keys = tuple(AssetKey(name.split("/")) for name in assets)
    return RunPlan({step: StepPlan(step, "any", keys)}, partitions)


def slots(text: str, plan: RunPlan) -> dict[str, int]:
    demand = asked("run", next(iter(plan.steps)), HOLD_STEP + text, plan).demand
    return {} if demand is None else {term.name: term.slots for term in demand.terms}


class TestAssets:
    def test_each_asset_that_the_run_plans_is_a_pool(self) -> None:
        assert slots("{asset:path}+warehouse*2", plan("a/b", "a/c")) == {
            "a/b": 1,
            "a/c": 1,
            "warehouse": 2,
        }

    def test_they_are_named_as_the_policy_names_assets(self) -> None:
        assert slots("{asset:underscore}*3", plan("a/b")) == {"a_b": 3}
        assert slots("{asset}", plan("a/b")) == {"a_b": 1}

    def test_a_step_that_makes_nothing_asks_for_nothing_of_its_own(self) -> None:
        assert slots("{asset}", plan()) == {}
        assert slots("{asset}+warehouse", plan()) == {"warehouse": 1}


class TestPartitions:
    def test_each_partition_is_a_pool_and_meets_the_pool_of_all(self) -> None:
        assert slots("daily[{partition}]*2", plan("daily", partitions=("d1", "d2"))) == {
            "daily[d1]": 2,
            "daily[d2]": 2,
            "{all}daily[*]": 1,
        }

    @pytest.mark.parametrize("partitions", [None, tuple(map(str, range(PARTITIONS_MAX + 1)))])
    def test_many_or_unlisted_partitions_are_all_of_them(self, partitions) -> None:
        assert slots("daily[{partition}]", plan("daily", partitions=partitions)) == {
            "{all}daily[*]": 1000
        }

    def test_more_pools_than_a_demand_may_name_are_all_of_their_partitions(self) -> None:
        models = tuple(f"m{number}" for number in range(POOLS_PER_DEMAND_MAX // 4))
        three, four = (plan(*models, partitions=tuple("abcd")[:n]) for n in (3, 4))
        assert len(slots("{asset}[{partition}]", three)) == POOLS_PER_DEMAND_MAX
        assert slots("{asset}[{partition}]", four) == {f"{{all}}{m}[*]": 1000 for m in models}

    def test_many_partitions_of_few_pools_are_asked_for_pool_by_pool(self) -> None:
        days = tuple(f"2024-{month:02}-{day:02}" for month in (1, 2) for day in range(1, 29))
        text = "{keys:=%Y-%m-%d}daily[{partition:%Y-%m}]*2"
        assert slots(text, plan("daily", partitions=days)) == {
            "daily[2024-01]": 2,
            "daily[2024-02]": 2,
            "{all}daily[*]": 1,
        }

    @pytest.mark.parametrize(
        "partitions", [None, ("2024-01-01", "never"), ("2024-01-01",) * 10_001]
    )
    def test_where_a_part_of_a_key_cannot_be_told_all_are_asked_for(self, partitions) -> None:
        text = "{keys:=%Y-%m-%d}daily[{partition:%Y-%m}]"
        assert slots(text, plan("daily", partitions=partitions)) == {"{all}daily[*]": 1000}

    def test_a_key_that_is_computed_meets_the_same_pool_of_all(self) -> None:
        """Whatever a term takes of a partition: a run of all is alone against each of them."""
        for text in ("x[{partition}]", "{keys:a|b}x[{partition.b}]"):
            assert slots(text, plan("x", partitions=("1|2",)))["{all}x[*]"] == 1

    def test_a_partition_is_never_taken_for_all_of_them_nor_for_an_operator(self) -> None:
        found = slots("daily[{partition}]", plan("daily", partitions=("{all}*", "a b+c*2", "{x}")))
        assert found == {
            "{all}daily[*]": 1,
            "daily[%7Ball%7D%2A]": 1,
            "daily[a%20b%2Bc%2A2]": 1,
            "daily[%7Bx%7D]": 1,
        }

    def test_of_terms_that_come_out_as_one_the_larger_counts(self) -> None:
        two = plan("a", partitions=("d",))
        assert slots("a*2+{asset}", two) == {"a": 2}
        assert slots("x[{partition}]*3+x[d]", two) == {"x[d]": 3, "{all}x[*]": 1}

    def test_with_assets_each_has_its_own(self) -> None:
        found = slots("{asset:path}[{partition}]", plan("a", "b", partitions=("d",)))
        assert found == {"a[d]": 1, "{all}a[*]": 1, "b[d]": 1, "{all}b[*]": 1}


class TestTickets:
    def ticket(self, text: str, step: str) -> TicketKey:
        return asked("run", step, text, plan("a", step=step)).ticket

    def test_a_step_asks_for_itself(self) -> None:
        assert self.ticket("orders", "graph.op") == ("run", "graph.op")

    def test_the_steps_of_a_graph_asset_ask_together(self) -> None:
        text = "{hold:asset}orders"
        assert self.ticket(text, "graph.op") == ("run", "graph")
        assert self.ticket(text, "graph.inner.op") == ("run", "graph")

    def test_its_members_are_the_steps_that_hold_together(self) -> None:
        def step(pool: str | None) -> StepPlan:
            return StepPlan("any", pool, ())

        held = "{hold:asset}orders"
        steps = {
            "graph.a": step(held),
            "graph.in.b": step(held),
            "graph.c": step("own"),
            "graph.d": step(None),
            "graph2.a": step(held),
        }
        demands = Demands(lambda _: RunPlan(steps, None))
        assert demands.members(TicketKey("run", "graph")) == {"graph.a", "graph.in.b"}


class TestWhatIsNotKnown:
    def test_a_mapped_step_is_in_the_plan_once(self) -> None:
        found = plan("a", step="graph.op[?]")
        asking = asked("run", "graph.op[x]", "{hold:step}{asset}", found)
        assert asking.ticket == ("run", "graph.op[x]")
        assert asking.demand is not None
        assert asking.demand.pools == ("a",)

    def test_a_step_that_no_plan_knows_is_an_error_and_not_unlimited(self) -> None:
        with pytest.raises(ConfigError, match="not in the plan"):
            asked("run", "step", "{asset}", RunPlan({}, None))

    def test_a_plan_is_read_only_where_it_is_needed_and_once(self) -> None:
        read = []
        demands = Demands(lambda run_id: read.append(run_id) or plan("a"))
        assert demands.of("run", "step", "{hold:step}orders+b*2").demand is not None
        assert read == []
        for _ in range(3):
            assert demands.of("run", "step", "{hold:step}{asset}").demand is not None
        assert read == ["run"]

    @pytest.mark.parametrize("text", ["a{b", "{unknown}", "{asset}", "x[{partition}]", "a+b*2"])
    def test_a_name_is_one_pool_whatever_it_looks_like(self, text: str) -> None:
        assert not is_deferred(text)
        asking = asked("run", "step", text, plan("a", partitions=("d",)))
        assert asking.demand == Demand.of({text: 1})
