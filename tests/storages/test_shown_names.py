"""Names of pools as people are shown them: of partitions, and of all partitions together."""

from __future__ import annotations

import json

import dagster as dg
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from dagster_lifeguard.cli import main
from dagster_lifeguard.engine.rules.names import pool_text, safe_value
from dagster_lifeguard.web.pictures import FILTERS

PARTITION = "北京 a+b"
RAW = f"orders[{safe_value(PARTITION)}]"
SHOWN = f"orders[{PARTITION}]"


@given(st.text(min_size=1, max_size=20))
def test_what_was_encoded_is_shown_as_it_was(value: str) -> None:
    assert pool_text(f"x[{safe_value(value)}]") == f"x[{value}]"
    assert pool_text("{all}x[*]") == "x[*] (all partitions)"


@pytest.mark.parametrize("name", ["a%2Fb/c", "50%", "100%zz", "%", "plain"])
def test_a_name_that_only_looks_encoded_stays(name: str) -> None:
    """The first is what naming: path makes of two keys that are to stay apart."""
    assert pool_text(name) == name


@pytest.fixture
def home(make_home):
    """A run that makes one partition, and one that holds all of them together."""
    made = make_home("sqlite")
    with made.instance() as instance:

        @dg.asset(
            partitions_def=dg.StaticPartitionsDefinition([PARTITION, "other"]),
            pool="{hold:step}orders[{partition}]",
        )
        def orders() -> None: ...

        assert dg.materialize([orders], instance=instance, partition_key=PARTITION).success
        log = instance.event_log_storage
        log.set_concurrency_slots(RAW, 1)
        for letter, pool in (("a", RAW), ("b", RAW)):
            run_id = f"{letter}0000000-1111-2222-3333-444444444444"
            status = dg.DagsterRunStatus.STARTED
            instance.add_run(dg.DagsterRun(job_name="job", run_id=run_id, status=status))
            log.claim_concurrency_slot(pool, run_id, "orders")
        yield made


@pytest.mark.parametrize(
    "arguments",
    [
        ("status",),
        ("status", SHOWN),
        ("status", RAW),
        ("status", "--select", "北京 a"),
        ("free", SHOWN, "--dry-run"),
        ("timeline", SHOWN),
        ("explain", "orders"),
        ("audit", "--pool", SHOWN, "--long-wait", "0s"),
        ("engine", "status"),
        ("plan", "--all"),
    ],
    ids=" ".join,
)
def test_texts_show_a_partition_as_it_is(home, arguments, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lifeguard.yaml").write_text("pools: {other: 1}\n")
    runner = CliRunner(env={"DAGSTER_HOME": str(home.path)})
    done = runner.invoke(main, arguments)
    assert done.exit_code in (0, 1), done.output
    assert "%E5" not in done.stdout
    assert "{all}" not in done.stdout
    if arguments[0] not in ("explain", "audit"):
        assert SHOWN in done.stdout
    if arguments == ("status",):  # A program is told the name itself.
        told = json.loads(runner.invoke(main, [*arguments, "--json"]).stdout)
        assert RAW in [pool["pool"] for pool in told["pools"]]


def test_the_page_shows_it_so_too() -> None:
    assert FILTERS["pool_text"](RAW) == SHOWN
    assert FILTERS["pool_text"]("{all}orders[*]") == "orders[*] (all partitions)"
