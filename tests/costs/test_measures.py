"""The benchmarks' table, JSON and page are made of measures; what they measure is not run here."""

from __future__ import annotations

import json
import re
import sys
import warnings
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
import all as face
import baseline
from measures import HEADINGS, Measure, json_of, table_of

FASTER = Measure("claims", 400.0, "/s", stock=20.0, goal=300.0, better="higher")
SLOWER = Measure("a claim", 12.5, "ms", goal=10.0)
ROWS = [
    ("claims", "20 /s", "400 /s", "20.00x", "at least 300 /s", "met"),
    ("a claim", "", "12.50 ms", "", "at most 10 ms", "not met"),
    ("memory", "0 MB", "1,234 MB", "", "", ""),
]
MEASURES = [FASTER, SLOWER, Measure("memory", 1234.4, "MB", stock=0.0)]


def test_a_row_says_whether_the_goal_is_met():
    assert [measure.cells for measure in MEASURES] == ROWS


def test_a_figure_at_its_goal_meets_it():
    assert Measure("claims", 300.0, "/s", goal=300.0, better="higher").met
    assert Measure("a claim", 10.0, "ms", goal=10.0).met


def test_the_table_has_a_row_for_each_measure():
    table = table_of(MEASURES, "title")
    assert [column.header for column in table.columns] == list(HEADINGS)
    assert list(zip(*(column.cells for column in table.columns), strict=True)) == ROWS


def test_json_has_the_figures_as_measured():
    found = json.loads(json_of(MEASURES, {"commit": "abc"}))
    assert found["run"] == {"commit": "abc"}
    assert [Measure(**{k: v for k, v in each.items() if k not in ("ratio", "met")})
            for each in found["measures"]] == MEASURES  # fmt: skip
    assert [(each["ratio"], each["met"]) for each in found["measures"]] == [
        (20.0, True), (None, False), (None, None),
    ]  # fmt: skip


def test_figures_are_kept_by_benchmark(tmp_path):
    path = tmp_path / "baseline.json"
    assert baseline.read(path) == {}
    baseline.keep("engine", MEASURES[:1], {"commit": "old"}, path)
    baseline.keep("web", MEASURES[2:], {"commit": "abc"}, path)
    baseline.keep("engine", MEASURES[:2], {"commit": "new"}, path)
    assert baseline.read(path) == {
        "engine": ({"commit": "new"}, tuple(MEASURES[:2])),
        "web": ({"commit": "abc"}, tuple(MEASURES[2:])),
    }


def test_the_pages_have_all_figures_and_those_with_a_goal():
    run = {"commit": "abc", "machine": "2 cores"}
    kept = {"engine": baseline.Kept(run, tuple(MEASURES))}
    lines = baseline.page_of(kept, ("engine", "web")).splitlines()
    assert "- commit: abc" in lines
    assert [f"| {' | '.join(row)} |" for row in ROWS] == lines[-7:-4]
    assert lines[-3:] == ["## web", "", "No full run was kept yet."]
    lines = baseline.goals_page_of(kept, ("engine", "web")).splitlines()
    assert "1 of 2 goals are met." in lines
    assert lines[-2:] == [f"| {' | '.join(row)} |" for row in ROWS[:2]]


def test_the_pages_are_those_of_the_figures_that_are_kept():
    kept, order = baseline.read(), face.BENCHMARKS + face.LONG
    assert baseline.PAGE.read_text() == baseline.page_of(kept, order)
    assert baseline.GOALS_PAGE.read_text() == baseline.goals_page_of(kept, order)


def run_face(monkeypatch, folder, benchmarks, *arguments):
    """Run these benchmarks in place of the real ones: the exit code and our figures by name."""
    (folder / "good.py").write_text(
        "from measures import Measure\n"
        "def measures(*, full):\n    yield Measure('good', 2.0 if full else 1.0, 's')\n"
    )
    (folder / "bad.py").write_text("def measures(*, full):\n    yield from [][1]\n")
    monkeypatch.syspath_prepend(str(folder))
    for name in ("good", "bad"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setattr(face, "BENCHMARKS", benchmarks)
    monkeypatch.setattr(face, "LONG", ())
    monkeypatch.setattr(baseline, "KEPT", folder / "baseline.json")
    monkeypatch.setattr(baseline, "PAGE", folder / "BASELINE.md")
    monkeypatch.setattr(baseline, "GOALS_PAGE", folder / "benchmarks.md")
    monkeypatch.setattr(sys, "argv", ["all.py", "--json", str(folder / "found.json"), *arguments])
    with warnings.catch_warnings():
        code = face.main()
    found = json.loads((folder / "found.json").read_text())["measures"]
    return code, {each["name"]: each["ours"] for each in found}


def test_a_benchmark_that_fails_does_not_keep_others_from_running(monkeypatch, tmp_path, capsys):
    assert run_face(monkeypatch, tmp_path, ("bad", "good"), "--full") == (1, {"good": 2.0})
    assert "Failed, so figures are missing: bad" in capsys.readouterr().err
    assert list(json.loads((tmp_path / "baseline.json").read_text())) == ["good"]


@pytest.mark.parametrize(
    ("arguments", "is_kept"),
    [(["--full"], True), ([], False), (["--full", "--only", "good"], True)],
)
def test_a_full_run_is_kept_also_in_pieces(monkeypatch, tmp_path, arguments, is_kept):
    code, _ = run_face(monkeypatch, tmp_path, ("good",), *arguments)
    assert code == 0
    assert (tmp_path / "baseline.json").exists() == is_kept
    assert (tmp_path / "benchmarks.md").exists() == is_kept


def test_each_benchmark_is_a_module_that_gives_measures():
    for name in face.BENCHMARKS + face.LONG:
        source = Path(face.__file__).with_name(f"{name}.py").read_text()
        assert re.search(
            r"^def measures\(\*, full: bool\) -> Iterator\[Measure\]:", source, re.MULTILINE
        )
