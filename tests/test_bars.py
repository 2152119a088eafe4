"""The bars of a timeline, character by character."""

from dagster_lifeguard.cli.bars import ASCII, UNICODE
from dagster_lifeguard.cli.bars import draw as draw_bars
from dagster_lifeguard.deployment.history import Outcome, RunExecution, StepExecution
from dagster_lifeguard.insight.timeline import bar_of_run


def run(status, enqueued, dequeued, started, ended, *failures):
    steps = tuple(StepExecution("r", "s", (), 1, at, at, Outcome.FAILURE, "no") for at in failures)
    return RunExecution("r", "job", status, enqueued, dequeued, started, ended, steps)


def draw(*runs, since=0.0, until=20.0, width=38, marks=ASCII):
    bars = [bar_of_run(run, until) for run in runs]
    labels = [f"run {number}" for number, _ in enumerate(runs, start=1)]
    return draw_bars(bars, labels, since=since, until=until, width=width, marks=marks)


def test_runs_that_take_turns():
    assert draw(
        run("SUCCESS", 0.0, 2.0, 4.0, 9.0),
        run("SUCCESS", 0.0, 10.0, 12.0, 20.0),
    ) == [
        "run 1  ..--######              success",
        "run 2  ...........--#########  success",
        "       0 s             20.0 s",
    ]


def test_a_failure_shows_however_short_it_was():
    assert draw(
        run("SUCCESS", 0.0, 2.0, 4.0, 9.0),
        run("FAILURE", 0.0, 10.0, 12.0, 20.0, 13.2, 20.0),
        marks=UNICODE,
    ) == [
        "run 1  ··░░██████              success",
        "run 2  ···········░░█×██████×  failure",  # noqa: RUF001
        "       0 s             20.0 s",
    ]


def test_runs_that_have_not_ended():
    assert draw(
        run("STARTED", 1.0, 10.0, 12.0, None),
        run("QUEUED", 5.0, None, None, None),
    ) == [
        "run 1   ..........--#########  started",
        "run 2       .................  queued",
        "       0 s             20.0 s",
    ]


def test_a_run_that_went_around_the_queue():
    assert draw(run("SUCCESS", None, None, 4.0, 9.0)) == [
        "run 1      ######              success",
        "       0 s             20.0 s",
    ]


def test_no_time_and_no_runs_are_drawn_too():
    assert draw() == ["  0 s                         20.0 s"]
    assert len(draw(run("QUEUED", 0.0, None, None, None), until=0.0)) == 2


def test_the_width_is_kept():
    runs = [run("SUCCESS", 0.0, 2.0, 4.0, 20.0)] * 10
    for width in (40, 80, 132):
        assert {len(line) for line in draw(*runs, width=width)[:-1]} == {width}
