"""Names of pools as people are shown them: of partitions, and of all partitions together."""

from __future__ import annotations

import html
import json
import re
from urllib.parse import quote, unquote, urlencode

import dagster as dg
import httpx
import pytest
from click.testing import CliRunner
from homes import PATIENT_SECONDS, eventually
from hypothesis import given
from hypothesis import strategies as st

from dagster_lifeguard import Policy
from dagster_lifeguard.cli import main
from dagster_lifeguard.engine.rules.pool_naming import safe_value
from dagster_lifeguard.engine.rules.shown_names import pool_text

PARTITION = "北京 a+b"
RAW = f"orders[{safe_value(PARTITION)}]"
SHOWN = f"orders[{PARTITION}]"


@given(st.text(min_size=1, max_size=20))
def test_what_was_encoded_is_shown_as_it_was(value: str) -> None:
    assert pool_text(f"x[{safe_value(value)}]") == f"x[{value}]"
    assert pool_text(f"{safe_value(value)}[{{partition}}]") == f"{value}[{{partition}}]"
    assert pool_text(f"{{all}}{safe_value(value)}[*]") == f"{value}[*] (all partitions)"
    assert pool_text(f"{{hold:step}}{safe_value(value)}*2+x") == f"{value}*2+x"


@pytest.mark.parametrize("name", ["a%2Fb/c", "50%", "100%zz", "%", "plain"])
def test_a_name_that_only_looks_encoded_stays(name: str) -> None:
    """The first is what naming: path makes of two keys that are to stay apart."""
    assert pool_text(name) == name


TABLE = "Umsatz + Steuer"
"""A value of metadata, after which a rule names a pool."""

OVER, HOLDING = (f"{letter}0000000-1111-2222-3333-444444444444" for letter in "ab")

DEFINITIONS = f"""
import dagster as dg

partitions = dg.StaticPartitionsDefinition(["{PARTITION}", "other"])

@dg.asset(
    partitions_def=partitions,
    metadata={{"table_name": "{TABLE}"}},
    backfill_policy=dg.BackfillPolicy.single_run(),
)
def orders() -> None: ...

@dg.multi_asset(
    specs=[dg.AssetSpec(n, metadata={{"table_name": "{TABLE}"}}) for n in ("left", "right")],
    partitions_def=partitions,
    backfill_policy=dg.BackfillPolicy.single_run(),
)
def both():
    for name in ("left", "right"):
        yield dg.MaterializeResult(asset_key=name)

defs = dg.Definitions(assets=[orders, both])
"""

POLICY = """
engine: lifeguard
rules:
  - assets: "*"
    pools: ["{asset}[{partition}]", "{metadata:table_name}*3", "{metadata:table_name}[{partition}]"]
pools: {unused: 1}
"""

INTERNAL = re.compile(r"%[0-9A-F]{2}|\{(all|hold|of|but|keys)\b")

RANGE = {
    "dagster/asset_partition_range_start": PARTITION,
    "dagster/asset_partition_range_end": "other",
}


@pytest.fixture(params=["engine", "stock"])
def home(request, make_home, tmp_path, monkeypatch):
    """A project that was executed, limits that fit nothing, a run that is over, and one that holds.

    On Dagster's own storage a whole expression is the name of a pool.
    """
    made = make_home("sqlite", stock=request.param == "stock")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "defs.py").write_text(DEFINITIONS)
    (tmp_path / "lifeguard.yaml").write_text(POLICY)
    module: dict = {}
    exec(DEFINITIONS, module)
    defs = Policy.from_yaml("lifeguard.yaml").apply(module["defs"])
    job = defs.resolve_implicit_global_asset_job_def()
    tags = {"dagster/max_runtime": "1"}
    with made.instance() as instance:
        log = instance.event_log_storage
        log.set_concurrency_slots(safe_value(TABLE), 4)
        one = {"partition_key": PARTITION, "tags": tags}
        for asked in (one, {"tags": RANGE | tags}):
            assert job.execute_in_process(instance=instance, **asked).success
        for pool, most in ((RAW, 2), (RAW.upper(), 1), (RAW.replace("a", "a/"), 1)):
            log.set_concurrency_slots(pool, most)
        log.set_concurrency_slots(safe_value(TABLE), 2)
        for run_id in (OVER, HOLDING, "c" + HOLDING[1:]):
            status = dg.DagsterRunStatus.STARTED
            run = dg.DagsterRun(job_name="job", run_id=run_id, status=status, tags=tags)
            instance.add_run(run)
            log.claim_concurrency_slot(RAW, run_id, "orders")
        log.set_concurrency_slots(RAW, 0)
        instance.report_run_canceled(instance.get_run_by_id(OVER))
        yield made


COMMANDS = (
    ("status",),
    ("status", SHOWN),
    ("status", RAW),
    ("status", "--select", "北京 a"),
    ("free", SHOWN, "--dry-run"),
    ("timeline", SHOWN),
    ("timeline", "orders"),
    ("explain", "orders"),
    ("explain", "left"),
    ("explain", HOLDING),
    ("audit", "--pool", SHOWN, "--long-wait", "0s"),
    ("audit", "--long-wait", "0s"),
    ("engine", "status"),
    ("check", "-f", "defs.py"),
    ("check", "-f", "defs.py", "--config", "lifeguard.yaml"),
    ("doctor",),
    ("doctor", "--fix", "--yes"),
    ("plan", "--all"),
    ("plan", SHOWN),
    ("apply", "--prune", "--yes"),
    ("pull", "--dry-run", "--config", "new.yaml"),
    ("status", "orders[北京 a"),
    ("plan", "orders[北京 a"),
)


def test_texts_show_a_pool_as_a_rule_writes_it(home) -> None:
    runner = CliRunner(env={"DAGSTER_HOME": str(home.path)})
    for arguments in COMMANDS:
        done = runner.invoke(main, arguments)
        assert done.exit_code in (0, 1, 2), (arguments, done.output)
        # Dagster's own command takes the name itself, and so does a file.
        lines = [
            line
            for line in done.output.splitlines()
            if not line.startswith(("    dagster instance concurrency set", "+"))
        ]
        found = [(arguments, line) for line in lines if INTERNAL.search(line)]
        assert found == []
    told = json.loads(runner.invoke(main, ["status", "--json"]).stdout)
    assert RAW in [pool["pool"] for pool in told["pools"]]  # A program is told the name itself.


PAGES = (
    "",
    f"pools/{quote(RAW, safe='')}",
    "assets/orders",
    "assets/left",
    f"runs/{HOLDING}",
    "doctor",
    "audit",
    f"change/limit?{urlencode({'pool': RAW, 'limit': 2})}",
    f"change/free?{urlencode({'subject': OVER})}",
)


def test_pages_show_a_pool_as_a_rule_writes_it(home) -> None:
    process = home.start("lifeguard", "serve", "--port", "0", "--allow-changes")
    url = eventually(lambda: re.search(r"on (http://\S+)/", process.output()))[1]
    for path in PAGES:
        page = eventually(lambda path=path: seen(f"{url}/{path}"))
        # What is pasted into a shell, and what a form sends, are the names themselves.
        text = re.sub(r"<pre.*?</pre>|<input[^>]*>", "", page, flags=re.DOTALL)
        shown = [*re.split(r"<[^>]*>", text), *re.findall(r'(?:title|aria-label)="([^"]*)"', text)]
        assert [part for part in shown if INTERNAL.search(part)] == [], path
        if RAW in unquote(path):
            assert SHOWN in html.unescape(text)


def seen(url: str) -> str | None:
    """A page, once the server has seen its deployment."""
    answer = httpx.get(url, timeout=PATIENT_SECONDS)
    assert answer.status_code in (200, 503), answer.text
    return answer.text if answer.status_code == 200 else None
