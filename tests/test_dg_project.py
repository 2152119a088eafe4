"""A project of Dagster's ``dg`` kind, with a folder of definitions and a component tree."""

from __future__ import annotations

import sys
from pathlib import Path
from textwrap import dedent

import dagster as dg
import pytest
from click.testing import CliRunner

from dagster_lifeguard import apply_per_asset_concurrency
from dagster_lifeguard.cli import main
from served import differences, in_pool_fields, served

pytestmark = pytest.mark.skipif(
    not hasattr(dg, "load_from_defs_folder"), reason="came with Dagster 1.11"
)

FILES = {
    "pyproject.toml": """
        [tool.dg]
        directory_type = "project"
        [tool.dg.project]
        root_module = "shop_project"
        """,
    "shop_project/__init__.py": "",
    "shop_project/defs/__init__.py": "",
    "shop_project/defs/assets.py": """
        import dagster as dg

        @dg.asset(automation_condition=dg.AutomationCondition.eager())
        def orders(): ...
        """,
    "shop_project/defs/nested/more.py": """
        import dagster as dg

        @dg.asset(deps=["orders"])
        def totals(): ...

        nightly = dg.ScheduleDefinition(name="nightly", target=[totals], cron_schedule="@daily")
        """,
    "shop_project/definitions.py": """
        from pathlib import Path

        import dagster as dg
        from dagster_lifeguard import apply_per_asset_concurrency

        @dg.definitions
        def defs():
            here = Path(__file__).parent
            return apply_per_asset_concurrency(dg.load_from_defs_folder(path_within_project=here))
        """,
}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, text in FILES.items():
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(dedent(text))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    for name in [name for name in sys.modules if name.split(".")[0] == "shop_project"]:
        del sys.modules[name]


def test_the_component_tree_stays_and_only_pools_differ(project: Path) -> None:
    base = dg.load_from_defs_folder(path_within_project=project / "shop_project")
    new = apply_per_asset_concurrency(base)
    assert new.component_tree is base.component_tree
    assert new.metadata == base.metadata
    changed = differences(served(base), served(new))
    assert changed
    assert [path for path in changed if not in_pool_fields(path)] == []


def test_check_finds_the_project_here(project: Path) -> None:
    result = CliRunner().invoke(main, ["check", "--no-instance"])
    assert result.exit_code == 0, result.output
    assert [line.split()[:4] for line in result.stdout.splitlines()[2:4]] == [
        ["orders", "asset", "1", "orders"],
        ["totals", "asset", "1", "totals"],
    ]
