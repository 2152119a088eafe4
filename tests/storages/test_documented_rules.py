"""The example in the reference of lifeguard.yaml: each line does what its comment says."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg
import pytest
from click.testing import CliRunner
from homes import eventually, holders, waiters
from pages import ROOT, read_blocks

from dagster_lifeguard import Policy
from dagster_lifeguard.cli import main
from dagster_lifeguard.errors import NameClashError, NeedsEngineError
from dagster_lifeguard.policy.assignments import Assignments

if TYPE_CHECKING:
    from collections.abc import Iterable

PAGE = ROOT / "docs" / "reference" / "lifeguard-yaml.md"
DOCUMENTED = Path(__file__).with_name("documented.py")
AT_ONCE = Path(__file__).with_name("at_once.py")


@pytest.fixture(scope="module")
def example() -> str:
    """The very text that is documented."""
    (block,) = (b for b in read_blocks(PAGE) if b.language == "yaml" and "stripe_api" in b.text)
    return block.text


def policy_of(text: str) -> Policy:
    return Policy.from_text(text, "lifeguard.yaml")


def changed(text: str, setting: str, value: str) -> Policy:
    found = re.sub(rf"^{setting}: \w+", f"{setting}: {value}", text, flags=re.MULTILINE)
    assert found != text
    return policy_of(found)


@dg.asset(key_prefix="my_group", name="my_asset")
def my_asset() -> None: ...


@dg.asset(key_prefix="my", name="group_my_asset")
def of_the_same_name() -> None: ...


def pools_of(policy: Policy, *assets: dg.AssetsDefinition) -> list[str | None]:
    made = policy.apply(dg.Definitions(assets=assets)).assets or ()
    return [asset.op.pool for asset in made if isinstance(asset, dg.AssetsDefinition)]


def test_naming_is_easy_to_read_or_never_clashes(example):
    assert pools_of(policy_of(example), my_asset) == ["my_group_my_asset"]
    with pytest.raises(NameClashError, match="'my_group_my_asset'"):
        pools_of(policy_of(example), my_asset, of_the_same_name)
    paths = pools_of(changed(example, "naming", "path"), my_asset, of_the_same_name)
    assert paths == ["my_group/my_asset", "my/group_my_asset"]


def test_the_stock_engine_refuses_all_that_it_cannot_do(example):
    stock = changed(example, "engine", "stock")
    with pytest.raises(NeedsEngineError):
        pools_of(stock, my_asset)
    refused = [str(problem).split(" ")[:2] for problem in Assignments(stock, [my_asset]).problems]
    assert refused == [["rule", "2"], ["rule", "3"], ["Pool", "'stripe_api'"]]


def lifeguard(home, monkeypatch, *arguments: str) -> str:
    for name, value in home.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(home.control)
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 0, done.output
    return done.output


def most_at_once(spans: Iterable[tuple[float, float]]) -> int:
    """How many of these overlap at most; one that ends as another begins does not."""
    moments = sorted(m for begun, ended in spans for m in ((begun, 1), (ended, -1)))
    at_once = most = 0
    for _, change in moments:
        at_once += change
        most = max(most, at_once)
    return most


def executions(instance) -> dict[str, list[tuple[float, float]]]:
    """When each asset, or each partition of one, was executed, by Dagster's own event log."""
    found: dict[str, list[tuple[float, float]]] = {}
    for run in instance.get_runs():
        moments = {
            entry.dagster_event_type: entry.timestamp
            for entry in instance.all_logs(run.run_id)
            if entry.step_key
        }
        (asset,) = run.asset_selection
        name = "@".join(filter(None, (asset.to_user_string(), run.tags.get("dagster/partition"))))
        begun, ended = (
            moments[kind]
            for kind in (dg.DagsterEventType.STEP_START, dg.DagsterEventType.STEP_SUCCESS)
        )
        found.setdefault(name, []).append((begun, ended))
    return found


def calls(home) -> list[Path]:
    return list(home.control.glob("call.*"))


def test_each_line_does_what_it_says(make_home, kind, example, monkeypatch):
    home = make_home(kind, concurrency={"pools": {"default_limit": 1}})
    home.control.joinpath("lifeguard.yaml").write_text(example)
    lifeguard(home, monkeypatch, "apply", "--yes")
    lifeguard(home, monkeypatch, "plan", "--check")
    # Only ``slots()`` asks for one of the pools, as the page says.
    checked = ("check", "-f", str(DOCUMENTED), "--ignore", "unused-pool")
    assert "nothing found" in lifeguard(home, monkeypatch, *checked)

    day, next_day = "days@2024-01-01", "days@2024-01-02"
    first = ("notes", "model0", "model1", "model2", day, next_day, "my_group/my_asset", "calls")
    runs = [home.start("python", str(AT_ONCE), str(DOCUMENTED), *first)]
    names = ("notes", "model0", "model1", "model2", "my_asset")
    begun = {name: set(home.started(1, name)) for name in names}
    begun_days = home.started(2, "days")
    second = ("notes", "model0", day, "my_group/my_asset", "calls")
    runs.append(home.start("python", str(AT_ONCE), str(DOCUMENTED), *second))

    with home.instance() as instance:
        # Rule 1, the first that matches: whatever else holds, and however often.
        home.started(2, "notes")
        # Rule 2: its own pool, though two slots of the warehouse are free.
        ((again, _),) = eventually(lambda: waiters(instance, "model0"))
        assert begun["model0"].isdisjoint({again})
        assert len(holders(instance, "warehouse")) == 3
        # Rule 3: partitions side by side, the same one in turn.
        ((same, _),) = eventually(lambda: waiters(instance, "days[2024-01-01]"))
        assert same not in begun_days
        # Rule 4, and the default limit.
        ((waiting, _),) = eventually(lambda: waiters(instance, "my_group_my_asset"))
        assert begun["my_asset"].isdisjoint({waiting})
        # The warehouse has eight slots: a fourth goes in, a fifth does not.
        third = ("model3", "model4")
        runs.append(home.start("python", str(AT_ONCE), str(DOCUMENTED), *third))
        eventually(lambda: len(waiters(instance, "warehouse")) == 2)  # One waits for model0.
        ((fifth, _),) = (told for told in waiters(instance, "warehouse") if told[0] != again)
        fourth = eventually(lambda: home.begun("model3") | home.begun("model4"))
        assert [*fourth] != [fifth]
        assert len(fourth) == 1
        # Four calls at once, of six.
        eventually(lambda: len(calls(home)) == 4)
        eventually(lambda: len(waiters(instance, "stripe_api")) == 2)
        assert len(calls(home)) == 4
        for name in ("notes", *(f"model{n}" for n in range(5)), "days", "my_asset", "calls"):
            home.go(name)
        for process in runs:
            assert process.wait() == 0, process.output()

        executed = executions(instance)
        assert {name: len(spans) for name, spans in executed.items()} == {
            "notes": 2,
            "calls": 2,
            "my_group/my_asset": 2,
            day: 2,
            next_day: 1,
            "model0": 2,
            **{f"model{n}": 1 for n in range(1, 5)},
        }
        assert most_at_once(executed["notes"]) == 2
        assert most_at_once(executed[day] + executed[next_day]) == 2
        for alone in ("my_group/my_asset", day, "model0"):
            assert most_at_once(executed[alone]) == 1
        models = [span for n in range(5) for span in executed[f"model{n}"]]
        assert most_at_once(models) == 4
        spans = [tuple(map(float, path.read_text().split())) for path in calls(home)]
        assert len(spans) == 6
        assert most_at_once(spans) == 4
        ledger = instance.event_log_storage.lifeguard.engine.store.ledger(pool="stripe_api")
        starts = sorted(entry.at for entry in ledger if entry.kind.value == "granted")
        assert len(starts) == 6
        assert all(later - earlier >= 0.6 - 1e-6 for earlier, later in pairwise(starts))
        # Whom rule 1 leaves unlimited is in no pool at all.
        steps = {
            entry.step_key for entry in instance.event_log_storage.lifeguard.engine.store.ledger()
        }
        assert "notes" not in steps
