"""Real runs: a daily run does not wait behind all of a backfill."""

from __future__ import annotations

from homes import DEFINITIONS, eventually, holders, limit, waiters

from dagster_lifeguard.deployment.instance_pools import pools_of


def test_the_daily_run_gets_the_slot_that_the_backfill_gives_back(make_home, kind):
    home = make_home(kind)
    limit(home)
    with home.instance() as instance:
        instance.event_log_storage.change_pool("orders", fair_by="dagster/backfill")

    def launch(job, *tags):
        return home.start(
            "dagster", "job", "execute", "-f", str(DEFINITIONS), "-j", job, *tags,
        )  # fmt: skip

    of_backfill = ("--tags", '{"dagster/backfill": "b1"}')
    first = launch("held_job", *of_backfill)
    home.started()
    others = [launch("held_job", *of_backfill) for _ in range(2)]
    with home.instance() as instance:
        eventually(lambda: len(waiters(instance)) == 2)
        daily = launch("second_job")
        eventually(lambda: len(waiters(instance)) == 3)
        (seen,) = pools_of(instance.event_log_storage).states(["orders"], None)
        assert seen.settings.fair_by == "dagster/backfill"
        assert [step.group for step in seen.everyone] == ["b1", "", "b1", "b1"]
        home.go("held")
        # It came last, and is the first to go in.
        home.started(1, "second")
        ((run_id, step),) = holders(instance)
        assert (run_id in home.begun("second"), step) == (True, "second")
        assert len(home.begun("held")) == 1
        home.go("second")
        for process in (first, daily, *others):
            assert process.wait() == 0, process.output()
