"""What every command prints: no value is cut, on a terminal of 80 columns and in a pipe."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import dagster as dg
import pytest
import yaml
from click.testing import CliRunner
from homes import Home
from rich.text import Text

from dagster_lifeguard.cli import main

if TYPE_CHECKING:
    from collections.abc import Iterator

WIDTH = 80
SEEN = 12
"""A value is shown where so many characters of its beginning are."""

LONG = "finance_marts_customer_lifetime_value_by_acquisition_channel"
SPACED = f"sales/{LONG}"
POOL = f"数据仓库_{LONG}_größe"
OTHER = f"stripe_api_of_the_{LONG}"

DEFINITIONS = f"""
import dagster as dg
from dagster_lifeguard import Policy

@dg.asset(pool="{POOL}")
def {LONG}(): ...

@dg.asset(key_prefix="sales", group_name="group_of_{LONG}", name="{LONG}")
def other(): ...

@dg.multi_asset(specs=[dg.AssetSpec(f"{{n}}0_member_of_{LONG}") for n in range(3)])
def several():
    for n in range(3):
        yield dg.MaterializeResult(asset_key=f"{{n}}0_member_of_{LONG}")

defs = dg.Definitions(assets=[{LONG}, other, several])
"""

POLICY = {
    "engine": "lifeguard",
    "rules": [
        {"assets": f'key:"sales/{LONG}"', "pools": ["{asset}", OTHER]},
        {"assets": "*", "pools": ["{asset}"]},
    ],
    "pools": {
        POOL: {"limit": 7, "rate": "100/minute", "order": "fair(tag:team)"},
        OTHER: 3,
        f"unused_{OTHER}": 2,
    },
}

SOFT = ("plan", "audit", "pull", "free")
"""What prints sentences that the terminal itself wraps."""

COMMANDS = (
    ("check", "-f", "defs.py"),
    ("check", "-f", "defs.py", "--summary"),
    ("status", "--all"),
    ("status", POOL, "--all"),
    ("explain", LONG),
    ("explain", SPACED),
    ("explain", "b0000000"),
    ("plan", "--all"),
    ("pull", "--dry-run"),
    ("free", POOL, "--dry-run"),
    ("doctor",),
    ("audit", "--long-wait", "1s"),
    ("timeline", LONG),
    ("timeline", POOL),
    ("engine", "status"),
)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    """A project and its instance, with a holder, waiters and a queued run."""
    path = tmp_path_factory.mktemp("whole")
    home = Home(path, "sqlite", {"sqlite": {"base_dir": str(path)}})
    home.settings["concurrency"] = {"pools": {"default_limit": 1}}
    home.write()
    (path / "defs.py").write_text(DEFINITIONS, encoding="utf-8")
    (path / "lifeguard.yaml").write_text(
        yaml.safe_dump(POLICY, allow_unicode=True), encoding="utf-8"
    )

    @dg.asset(pool=POOL, name=LONG)
    def made() -> None: ...

    @dg.asset(pool=f"{{hold:step}}{OTHER}+{POOL}", name=LONG, key_prefix="sales")
    def also() -> None: ...

    with home.instance() as instance:
        log = instance.event_log_storage
        log.set_concurrency_slots(POOL, 1)
        log.set_concurrency_slots(OTHER, 2)
        assert dg.materialize([made, also], instance=instance).success
        for letter in "abc":
            run_id = f"{letter}0000000-1111-2222-3333-444444444444"
            job = f"{letter}_job_of_{LONG}"
            status = dg.DagsterRunStatus.STARTED
            instance.add_run(dg.DagsterRun(job_name=job, run_id=run_id, status=status))
            log.claim_concurrency_slot(POOL, run_id, f"{letter}_{letter}_step_of_{LONG}")
        yield home


def printed(home: Home, arguments: tuple[str, ...], *, terminal: bool) -> str:
    environment = {"DAGSTER_HOME": str(home.path), "COLUMNS": str(WIDTH)}
    if terminal:
        environment["TTY_COMPATIBLE"] = environment["FORCE_COLOR"] = "1"
    done = CliRunner(env=environment).invoke(main, arguments)
    assert done.exit_code in (0, 1), done.output
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", done.stdout)


def texts(found: Any) -> Iterator[str]:
    """All texts in what ``--json`` prints, names of pools that are keys too."""
    if isinstance(found, str):
        yield found
    elif isinstance(found, dict):
        for key, value in found.items():
            yield from (key, *texts(value))
    elif isinstance(found, list):
        for value in found:
            yield from texts(value)


@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
@pytest.mark.parametrize("terminal", [True, False], ids=["terminal", "pipe"])
def test_each_value_is_whole(
    place: Home, arguments: tuple[str, ...], monkeypatch, *, terminal: bool
) -> None:
    monkeypatch.chdir(place.path)
    text = printed(place, arguments, terminal=terminal)
    found = json.loads(printed(place, (*arguments, "--json"), terminal=False))

    joined = " ".join(text.split())
    names = {v for v in texts(found) if len(v) > SEEN and not re.search(r"\d s of its lease", v)}
    shown = {value for value in names if value[:SEEN] in joined}
    assert shown, "nothing that JSON tells is shown"
    cut = {
        v for v in shown if v not in text and (" " not in v or " ".join(v.split()) not in joined)
    }
    assert not cut, text
    assert "…" not in text
    if terminal and arguments[0] not in SOFT:
        _assert_is_tidy(text)


def _assert_is_tidy(text: str) -> None:
    """A line is wider than the terminal only for one word that is long."""
    for line in text.splitlines():
        longest = max((Text(word).cell_len for word in line.split()), default=0)
        assert Text(line).cell_len <= WIDTH or longest > WIDTH // 2, line
