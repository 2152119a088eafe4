"""What a timeline shows: of hand-made histories, and of real runs."""

from __future__ import annotations

import json
from typing import Any, cast
from xml.etree import ElementTree as ET

import dagster as dg
import pytest
from click.testing import CliRunner

from dagster_lifeguard.cli import main
from dagster_lifeguard.cli.timeline_svg import svg
from dagster_lifeguard.deployment.history import Outcome, RunExecution, StepExecution
from dagster_lifeguard.insight.timeline import (
    Bar,
    Phase,
    Span,
    Timeline,
    asks_for,
    bar_of_run,
    bar_of_step,
    timeline_of_pool,
)


def step(pool=None, assets=("a/b",), partitions=(), **more) -> StepExecution:
    keys = tuple(dg.AssetKey(asset.split("/")) for asset in assets)
    given = {"started": 5.0, "ended": 9.0, "outcome": Outcome.SUCCESS, "attempt": 1, **more}
    return StepExecution("run", "step", keys, pool=pool, partitions=partitions, **given)


def run(status="SUCCESS", enqueued=1.0, dequeued=2.0, started=3.0, ended=10.0, steps=()):
    return RunExecution("run", "job", status, enqueued, dequeued, started, ended, tuple(steps))


def spans(bar: Bar) -> list[tuple[str, float, float]]:
    return [(span.phase.value, span.started, span.ended) for span in bar.spans]


class TestBars:
    def test_a_run_is_queued_then_starts_then_executes(self) -> None:
        found = bar_of_run(run(), 20.0)
        expected = [("queued", 1.0, 2.0), ("starting", 2.0, 3.0), ("executing", 3.0, 10.0)]
        assert (spans(found), found.result) == (expected, "success")

    def test_what_goes_on_ends_with_the_timeline(self) -> None:
        queued = bar_of_run(run("QUEUED", 1.0, None, None, None), 20.0)
        assert spans(queued) == [("queued", 1.0, 20.0)]
        unfinished = step(ended=None, outcome=Outcome.UNFINISHED)
        found = bar_of_step(run("STARTED", ended=None), unfinished, 20.0)
        assert spans(found) == [("queued", 1.0, 2.0), ("executing", 5.0, 20.0)]
        assert found.result == "executing"

    def test_a_step_whose_process_died_ends_no_later_than_its_run(self) -> None:
        found = bar_of_step(run("FAILURE"), step(ended=None, outcome=Outcome.UNFINISHED), 20.0)
        assert spans(found)[-1] == ("executing", 5.0, 10.0)
        assert found.result == "unfinished"

    def test_a_step_waits_until_it_starts(self) -> None:
        found = bar_of_step(run(), step(waiting=3.5), 20.0)
        assert spans(found)[1:] == [("waiting", 3.5, 5.0), ("executing", 5.0, 9.0)]

    def test_a_second_try_was_not_queued_again_and_failures_are_marked(self) -> None:
        found = bar_of_step(run(), step(attempt=2, outcome=Outcome.RETRY), 20.0)
        assert spans(found) == [("executing", 5.0, 9.0)]
        assert found.failures == (9.0,)

    def test_what_failed_before_it_began_is_there_all_the_same(self) -> None:
        at_once = step(started=5.0, ended=5.0, outcome=Outcome.FAILURE)
        found = bar_of_step(run(enqueued=None), at_once, 20.0)
        assert (spans(found), found.failures) == ([("executing", 5.0, 5.0)], (5.0,))


@pytest.mark.parametrize(
    ("text", "pool", "expected"),
    [
        (None, "a", False),
        ("a", "a", True),
        ("a", "b", False),
        ("{hold:step}own+warehouse*2", "warehouse", True),
        ("own+warehouse*2", "own+warehouse*2", True),
        ("own+warehouse*2", "warehouse", False),
        ("{hold:asset}own", "own", True),
        ("{hold:step}{asset:path}", "a/b", True),
        ("{hold:step}{asset}+w", "a_b", True),
        ("{hold:step}{asset:path}", "a/c", False),
        ("{hold:step}d[{partition}]", "d[x%20y]", True),
        ("{hold:step}d[{partition}]", "{all}d[*]", True),
        ("{hold:step}d[{partition}]", "d[z]", False),
        ("d[{partition}]", "d[x%20y]", False),
        ("{hold:step}a++b", "a", False),
        ("no {expression", "no {expression", True),
        ("no {expression", "expression", False),
    ],
)
def test_which_pools_a_step_asked_for(text, pool, expected) -> None:
    assert asks_for(step(pool=text, partitions=("x y",)), pool) is expected


@pytest.mark.parametrize(
    ("partition", "pool", "expected"),
    [
        ("2024-02-29", "d[2024-02]", True),
        ("2024-02-29", "{all}d[*]", True),
        ("2024-02-29", "d[2024-03]", False),
        ("never", "d[2024-02]", False),
    ],
)
def test_pools_that_are_computed_from_a_partition(partition, pool, expected) -> None:
    text = "{hold:step}{keys:=%Y-%m-%d}d[{partition:%Y-%m}]"
    assert asks_for(step(pool=text, partitions=(partition,)), pool) is expected


class TestPicture:
    def drawn(self, label: str, *bars: Bar) -> ET.Element:
        found = Timeline(0.0, 20.0, bars)
        text = svg(found, "Pool <x>", [label] * len(bars), ["0", "10", "20"])
        return ET.fromstring(text)

    def test_each_phase_and_failure_has_its_place(self) -> None:
        space = "{http://www.w3.org/2000/svg}"
        bar = Bar("r", None, 1, "failure", (Span(Phase.QUEUED, 0.0, 10.0),), (10.0,))
        (group,) = self.drawn("label", bar).findall(f"{space}g")
        (queued,) = group.findall(f"{space}rect")
        (failed,) = group.findall(f"{space}line")
        assert queued.get("class") == "queued"
        end = float(queued.get("x") or 0) + float(queued.get("width") or 0)
        assert end == pytest.approx(float(failed.get("x1") or 0), abs=0.2)

    def test_the_legend_has_what_there_is(self) -> None:
        executed = Bar("r", None, 1, "success", (Span(Phase.EXECUTING, 0.0, 10.0),))
        failed = Bar("r", None, 1, "failure", (Span(Phase.EXECUTING, 0.0, 5.0),), (5.0,))
        for bar, expected in ((executed, []), (failed, ["a step failed"])):
            said = [item.text for item in self.drawn("label", bar).iter() if item.text]
            assert "executing" in said
            assert "waiting" not in said
            assert [text for text in said if text == "a step failed"] == expected

    def test_hostile_names_are_text(self) -> None:
        hostile = '<script>alert("x")</script>&\x07'
        bar = Bar("r", hostile, 1, "success", (Span(Phase.EXECUTING, 0.0, 1.0),))
        drawn = self.drawn(hostile, bar)
        assert not [item for item in drawn.iter() if item.tag.endswith("script")]
        assert any("<script>" in (item.text or "") for item in drawn.iter())


def timeline(pool_runs, count_max):
    class Found:
        def history(self, since, until):
            return iter(pool_runs)

        def pools(self, names):
            return ()

    found = timeline_of_pool(
        cast("Any", Found()), "db", since=0.0, until=100.0, count_max=count_max
    )
    return [bar.spans[0].started for bar in found.bars], found.since, found.left_out


def test_the_newest_are_those_that_began_last_and_not_those_made_last() -> None:
    """A run that was made first and queued for long began its step last."""
    began = [50.0, 10.0, 30.0, 20.0, 40.0]
    runs = [run(enqueued=None, steps=[step(pool="db", started=at, ended=at + 1)]) for at in began]
    assert timeline(runs, 2) == ([40.0, 50.0], 40.0, 3)
    assert timeline(runs, 5) == (sorted(began), 10.0, 0)


@dg.asset(pool="orders")
def quick() -> None: ...


@dg.asset(pool="orders")
def broken() -> None:
    raise ValueError


def lifeguard(*arguments: str) -> str:
    done = CliRunner().invoke(main, ["timeline", *arguments])
    assert done.exit_code == 0, done.output
    return done.output


@pytest.fixture
def _some_runs(home) -> None:
    with dg.DagsterInstance.get() as instance:
        dg.materialize([quick], instance=instance)
        dg.materialize([broken], instance=instance, raise_on_error=False)


@pytest.mark.usefixtures("_some_runs")
class TestCommand:
    def test_runs_a_pool_and_an_asset(self) -> None:
        found = json.loads(lifeguard("--json"))
        assert [bar["result"] for bar in found["bars"]] == ["success", "failure"]
        found = json.loads(lifeguard("orders", "--json"))
        assert [bar["step_key"] for bar in found["bars"]] == ["quick", "broken"]
        found = json.loads(lifeguard("broken", "--json"))
        ((bar,), subject) = found["bars"], found["subject"]
        assert (subject, bar["result"], len(bar["failures"])) == ("broken", "failure", 1)
        assert [span["phase"] for span in bar["spans"]] == ["executing"]

    def test_as_text(self) -> None:
        lines = lifeguard("orders").splitlines()
        assert lines[0] == "Pool orders"
        assert lines[1].split()[1] == "quick"
        assert lines[1].endswith("success")
        assert "×" in lines[2] or "x" in lines[2]  # noqa: RUF001
        assert lines[-1].endswith("a step failed")

    def test_only_the_newest_and_only_the_window(self) -> None:
        assert "1 older ones are not shown" in lifeguard("--rows", "1")
        (bar,) = json.loads(lifeguard("--rows", "1", "--json"))["bars"]
        assert bar["result"] == "failure"
        assert lifeguard("--since", "0").splitlines()[1].startswith("Nothing from")

    def test_a_picture(self, tmp_path) -> None:
        file = tmp_path / "orders.svg"
        assert lifeguard("orders", "--svg", str(file)) == f"Wrote {file}.\n"
        ET.fromstring(file.read_text(encoding="utf-8"))

    def test_a_name_that_nothing_has(self) -> None:
        done = CliRunner().invoke(main, ["timeline", "order"])
        assert done.exit_code == 2
        assert "orders" in done.output
