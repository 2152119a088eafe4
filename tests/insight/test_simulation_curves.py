"""Who waits and what is held through the time of a play, in equal parts of the window."""

from __future__ import annotations

import re
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_simulation import in_line, of_pool, recorded

from dagster_lifeguard.cli.simulation_svg import svg
from dagster_lifeguard.insight.simulation.answer import play_recording, simulate
from dagster_lifeguard.insight.simulation.curves import Parts

moment = st.floats(-50, 150, allow_nan=False)


@given(st.lists(st.tuples(moment, moment, st.integers(1, 5)), max_size=20), st.integers(1, 30))
def test_the_mean_of_a_part_is_what_lies_within_it(spans, count):
    length = 100.0 / count
    expected = [
        sum(
            weight * max(0.0, min(ended, (k + 1) * length) - max(began, k * length)) / length
            for began, ended, weight in spans
        )
        for k in range(count)
    ]
    assert Parts(0.0, 100.0, count).means(spans) == pytest.approx(expected, abs=1e-6)


def test_a_queue_shrinks_twice_as_fast_with_a_second_slot():
    answer = simulate(recorded(*in_line()), {"w": {"limit": 2}}, parts=9)
    found = of_pool(answer)
    # 20 executions of 10 s each ask at once; the window of 900 s has parts of 100 s.
    assert found.before.curve.held == pytest.approx((1, 1, 0, 0, 0, 0, 0, 0, 0))
    assert found.before.curve.waiting == pytest.approx((14.5, 4.5, 0, 0, 0, 0, 0, 0, 0))
    assert found.after.curve.held == pytest.approx((2, 0, 0, 0, 0, 0, 0, 0, 0))
    assert found.after.curve.waiting == pytest.approx((9, 0, 0, 0, 0, 0, 0, 0, 0))


def test_who_never_starts_waits_until_the_window_ends():
    answer = simulate(recorded(*in_line()), {"w": {"limit": 0}}, parts=3)
    assert of_pool(answer).after.curve.waiting == pytest.approx((20, 20, 20))
    assert of_pool(answer).after.curve.held == (0, 0, 0)


def test_a_play_that_was_made_already_is_not_made_again():
    recording = recorded(*in_line())
    before = play_recording(recording, 600.0)
    before.granted = [None] * 20
    assert of_pool(simulate(recording, {}, before=before)).before.waits.never == 20


def test_the_picture_shows_both_histories_at_one_scale():
    answer = simulate(recorded(*in_line()), {"w": {"limit": 4}}, parts=90)
    root = ET.fromstring(svg(answer.pools, answer.since, answer.until))
    space = "{http://www.w3.org/2000/svg}"
    texts = [text.text for text in root.iter(f"{space}text")]
    assert "as it was: limit 1, wait p50 1m30s, p95 3m" in texts
    assert "as it would have been: limit 4, wait p50 20s, p95 40s" in texts
    assert texts.count("20") == 2
    areas = {path.get("class"): path.get("d") for path in root.iter(f"{space}path")}
    tops = {name: min(map(float, re.findall(r" ([\d.]+)", area))) for name, area in areas.items()}
    heights = [
        float(line.get("y1")) for line in root.iter(f"{space}line") if line.get("class") == "limit"
    ]
    assert heights[0] > heights[1] - 122  # The first chart is as far above the second.
    # Slots held reach as far as the limit, and who waits stands on top of them.
    assert tops["waiting"] < tops["executing"] == heights[1]
