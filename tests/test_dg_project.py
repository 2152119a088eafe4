"""A project of Dagster's ``dg`` kind, with a folder of definitions and a component tree."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from textwrap import dedent
from typing import Any, ClassVar

import dagster as dg
import pytest
from click.testing import CliRunner, Result

from dagster_lifeguard import apply_per_asset_concurrency
from dagster_lifeguard.cli import main
from dagster_lifeguard.compat.components import DEFS_FOLDER_TAKES_YAML
from served import differences, in_pool_fields, served

if not hasattr(dg, "load_from_defs_folder"):
    pytest.skip("came with Dagster 1.11", allow_module_level=True)

from dagster_lifeguard.policy import components, protection
from dagster_lifeguard.policy.protection import DEFS_YAML, find_dg_project

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
    forget()


def forget() -> None:
    """Have the project's files imported anew, as another process would."""
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


# --- rules in the defs.yaml of the defs folder ----------------------------------------------------

RULES = """\
rules:
  - assets: "key:left"
    pools: [both]
  - assets: "*"
    pools: ["{asset}"]
"""
FOLDER = "type: dagster.DefsFolderComponent\n"

takes_yaml = pytest.mark.skipif(
    not DEFS_FOLDER_TAKES_YAML, reason="came with Dagster 1.13.8; the fact is tested below"
)


def loaded(project: Path) -> dg.Definitions:
    return dg.load_from_defs_folder(path_within_project=project / "shop_project")


def pools(defs: dg.Definitions) -> dict[str, str | None]:
    """The pool of each asset and of each check with an op of its own."""
    repository = defs.get_repository_def()
    return {
        **{
            key.to_user_string(): assets.op.pool
            for key, assets in repository.assets_defs_by_key.items()
        },
        **{key.name: checks.op.pool for key, checks in repository.asset_checks_defs_by_key.items()},
    }


class Pair(dg.Component, dg.Resolvable, dg.Model):
    """A component of a library: one op that makes two assets, as Sling's and dlt's do."""

    names: list[str]

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        @dg.multi_asset(specs=[dg.AssetSpec(name) for name in self.names], name="pair")
        def pair(): ...

        return dg.Definitions(assets=[pair])


class Broken(dg.Component, dg.Resolvable, dg.Model):
    """A component that cannot build."""

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        return 1 / 0


@pytest.fixture
def yaml_project(project: Path) -> Path:
    """The project as ``dg`` makes it today, with a component, and rules in its defs folder."""
    write(project, "shop_project/definitions.py", """
        from pathlib import Path

        import dagster as dg

        @dg.definitions
        def defs():
            return dg.load_from_defs_folder(path_within_project=Path(__file__).parent)
        """)  # fmt: skip
    write(
        project,
        "shop_project/defs/pair/defs.yaml",
        f"""
        type: {__name__}.Pair
        attributes:
          names: [left, right]
        """,
    )
    write(
        project,
        "shop_project/defs/checks.py",
        """
        import dagster as dg

        @dg.asset_check(asset="orders")
        def not_empty(): return dg.AssetCheckResult(passed=True)
        """,
    )
    write(project, "lifeguard.yaml", RULES)
    write(project, "shop_project/defs/defs.yaml", DEFS_YAML.format(config="lifeguard.yaml"))
    return project


def write(project: Path, name: str, text: str) -> Path:
    file = project / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(dedent(text))
    return file


def check(*arguments: str) -> Result:
    forget()
    return CliRunner().invoke(main, ["check", "--no-instance", *arguments])


def remedy() -> str:
    """What check says to do about definitions that lack their policy, whatever the width."""
    (error,) = json.loads(check("--json").stdout)["errors"]
    assert error["code"] == "not-applied"
    return error["remedy"]


@takes_yaml
class TestRulesInTheDefsFolder:
    def test_they_reach_all_that_is_in_it_and_change_pools_alone(self, yaml_project: Path) -> None:
        protected = loaded(yaml_project)
        assert pools(protected) == {
            "orders": "orders",
            "totals": "totals",
            "left": "both",
            "right": "both",
            "not_empty": None,
        }
        (job,) = [j for j in protected.get_repository_def().get_all_jobs() if len(j.nodes) == 1]
        assert [node.definition.pool for node in job.nodes] == ["totals"]  # of the schedule
        yaml_project.joinpath("shop_project/defs/defs.yaml").unlink()
        changed = differences(served(loaded(yaml_project)), served(protected))
        assert changed
        assert [path for path in changed if not in_pool_fields(path)] == []

    def test_a_project_that_dagster_loads_itself(self, yaml_project: Path) -> None:
        yaml_project.joinpath("shop_project/definitions.py").unlink()
        autoload(yaml_project)
        assert check("--ignore", "one-rule-per-op").exit_code == 0

    def test_what_is_merged_beside_the_folder_is_found(self, yaml_project: Path) -> None:
        write(yaml_project, "shop_project/definitions.py", """
            from pathlib import Path

            import dagster as dg

            @dg.asset
            def outside(): ...

            @dg.definitions
            def defs():
                here = Path(__file__).parent
                return dg.Definitions.merge(
                    dg.load_from_defs_folder(path_within_project=here),
                    dg.Definitions(assets=[outside]),
                )
            """)  # fmt: skip
        result = check("--ignore", "one-rule-per-op")
        assert result.exit_code == 1
        assert "error not-applied: 1 asset does not" in result.stdout
        assert remedy() == (
            "shop_project/defs/defs.yaml reaches what is in its folder, by the rules of the file "
            "it names. Move the rest there, and name the file that was looked at. "
            "Or: End shop_project/definitions.py with: defs = "
            'Policy.from_yaml(Path(__file__).parents[1] / "lifeguard.yaml").apply(defs) '
            "(needs: from pathlib import Path; from dagster_lifeguard import Policy)"
        )

    def test_in_a_folder_within_they_are_refused(self, yaml_project: Path) -> None:
        text = DEFS_YAML.format(config="lifeguard.yaml")
        write(yaml_project, "shop_project/defs/nested/defs.yaml", text)
        yaml_project.joinpath("shop_project/defs/defs.yaml").unlink()
        result = check()
        assert result.exit_code == 2
        assert "nested/defs.yaml: pools_from would reach only what is in this" in result.output
        assert "Move it to " in result.output

    @pytest.mark.parametrize(
        ("rules", "told"),
        [
            (None, "lifeguard.yaml: No such file"),
            ("naming: x\n", "lifeguard.yaml:1:9: naming: 'x'"),
        ],
    )
    def test_a_wrong_file_is_told_as_such(
        self, yaml_project: Path, rules: str | None, told: str
    ) -> None:
        yaml_project.joinpath("lifeguard.yaml").unlink()
        if rules is not None:
            write(yaml_project, "other/lifeguard.yaml", rules)
            text = DEFS_YAML.format(config="other/lifeguard.yaml")
            write(yaml_project, "shop_project/defs/defs.yaml", text)
        result = check()
        assert (result.exit_code, told in result.output) == (2, True), result.output

    def test_a_component_that_fails_is_told_as_such(self, yaml_project: Path) -> None:
        write(yaml_project, "shop_project/defs/broken/defs.yaml", f"type: {__name__}.Broken\n")
        result = check()
        assert result.exit_code == 2
        told = (
            "shop_project.definitions cannot be loaded: ZeroDivisionError: division by zero (test"
        )
        assert told in result.output

    def test_init_writes_them(self, yaml_project: Path, home: Path) -> None:
        for name in ("lifeguard.yaml", "shop_project/defs/defs.yaml"):
            yaml_project.joinpath(name).unlink()
        assert remedy().startswith("Run lifeguard init")
        result = CliRunner().invoke(main, ["init", "--yes"])
        assert "Wrote shop_project/defs/defs.yaml.\n" in result.stdout
        assert result.stdout.endswith("Next: lifeguard check\n")
        assert check("--ignore", "one-rule-per-op").exit_code == 0
        again = CliRunner().invoke(main, ["init", "--yes"])
        assert again.stdout.endswith("Nothing to change.\n")

    def test_init_keeps_what_the_folder_says_already(self, yaml_project: Path, home: Path) -> None:
        file = write(yaml_project, "shop_project/defs/defs.yaml", FOLDER)
        assert remedy().startswith("Say in shop_project/defs/defs.yaml: template_vars_module")
        result = CliRunner().invoke(main, ["init", "--yes"])
        assert f"Next: {remedy()}\n" in result.stdout
        assert file.read_text() == FOLDER


def autoload(project: Path) -> None:
    pyproject = project / "pyproject.toml"
    text = pyproject.read_text()
    pyproject.write_text(text.replace("root_module", "autoload_defs = true\nroot_module"))


class TestRemedies:
    """Each project is told what it has, and not what another one would have."""

    def test_definitions_that_load_the_folder(
        self, yaml_project: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(protection, "DEFS_FOLDER_TAKES_YAML", False)  # as before 1.13.8
        yaml_project.joinpath("shop_project/defs/defs.yaml").unlink()
        line = 'defs = Policy.from_yaml(Path(__file__).parents[1] / "lifeguard.yaml").apply(defs)'
        imports = "from pathlib import Path; from dagster_lifeguard import Policy"
        assert remedy() == f"End shop_project/definitions.py with: {line} (needs: {imports})"
        file = yaml_project / "shop_project/definitions.py"
        file.write_text(f"{file.read_text()}\n{imports}\n{line}\n")
        assert check("--ignore", "one-rule-per-op").exit_code == 0

    def test_dagster_loads_the_folder_itself(
        self, yaml_project: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(protection, "DEFS_FOLDER_TAKES_YAML", False)
        yaml_project.joinpath("shop_project/defs/defs.yaml").unlink()
        yaml_project.joinpath("shop_project/definitions.py").unlink()
        autoload(yaml_project)
        assert "take out autoload_defs, and let shop_project/definitions.py" in remedy()

    def test_before_1_13_8_a_defs_yaml_in_the_folder_is_refused(
        self, yaml_project: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for module in (components, protection):
            monkeypatch.setattr(module, "DEFS_FOLDER_TAKES_YAML", False)
        result = check()
        assert result.exit_code == 2
        assert "cannot serve a project with a defs.yaml in the defs folder itself" in result.output
        assert "End shop_project/definitions.py with: defs = Policy" in result.output

    def test_a_workspace_of_files_and_modules(self, tmp_path: Path, plain: Path) -> None:
        write(
            plain,
            "a.py",
            "import dagster as dg\n@dg.asset\ndef a(): ...\ndefs = dg.Definitions(assets=[a])\n",
        )
        write(
            plain,
            "lake/b.py",
            "import dagster as dg\n@dg.asset\ndef b(): ...\ndefs = dg.Definitions(assets=[b])\n",
        )
        write(
            plain,
            "workspace.yaml",
            "load_from:\n  - python_file: a.py\n  - python_module: {module_name: lake.b, working_directory: .}\n",
        )
        found = json.loads(check("--json").stdout)["errors"]
        assert [error["remedy"] for error in found] == [
            f"End {file} with: defs = apply_per_asset_concurrency(defs) (needs: from dagster_lifeguard "
            "import apply_per_asset_concurrency)"
            for file in ("a.py", "lake/b.py")
        ]
        write(plain, "lifeguard.yaml", RULES)
        found = json.loads(check("--json").stdout)["errors"]
        assert [error["remedy"].partition(": ")[2].partition(" (")[0] for error in found] == [
            'defs = Policy.from_yaml(Path(__file__).with_name("lifeguard.yaml")).apply(defs)',
            'defs = Policy.from_yaml(Path(__file__).parents[1] / "lifeguard.yaml").apply(defs)',
        ]


class TestFindingTheProject:
    @pytest.mark.parametrize(
        ("name", "text", "folder", "definitions"),
        [
            ("pyproject.toml", '[tool.dg.project]\nroot_module = "shop"\n', "src/shop/defs", "src/shop/definitions.py"),
            ("dg.toml", '[project]\nroot_module = "shop"\n', "src/shop/defs", "src/shop/definitions.py"),
            ("dg.toml", '[project]\nroot_module = "shop"\nautoload_defs = true\n', "src/shop/defs", None),
            ("dg.toml", '[project]\nroot_module = "shop"\ndefs_module = "shop.other"\n', "src/shop/other", "src/shop/definitions.py"),
            ("dg.toml", '[project]\nroot_module = "flat"\ncode_location_target_module = "flat.code"\n', "flat/defs", "flat/code.py"),
        ],
    )  # fmt: skip
    def test_by_its_files(
        self, plain: Path, name: str, text: str, folder: str, definitions: str | None
    ) -> None:
        for made in ("src/shop/defs", "src/shop/other", "flat/defs"):
            plain.joinpath(made).mkdir(parents=True)
        write(plain, name, text)
        found = find_dg_project(Path())
        assert found is not None
        assert found.defs_folder == Path(folder)
        assert found.definitions == (None if definitions is None else Path(definitions))

    @pytest.mark.parametrize(
        "text",
        [
            "",
            '[project]\nname = "shop"\n',
            "[tool]\ndg = 3\n",
            "[tool.dg.project]\nroot_module = 3\n",
            '[tool.dg.project]\nroot_module = "not_there"\n',
            '[tool.dg]\ndirectory_type = "workspace"\n',
        ],
    )
    def test_there_is_none(self, plain: Path, text: str) -> None:
        write(plain, "pyproject.toml", text)
        assert find_dg_project(Path()) is None

    @pytest.mark.parametrize("text", [b"[tool\n", 'name = "é"\n'.encode("latin-1")])
    def test_a_file_that_is_no_toml(self, plain: Path, home: Path, text: bytes) -> None:
        plain.joinpath("pyproject.toml").write_bytes(text)
        result = CliRunner().invoke(main, ["init", "--yes"])
        assert (result.exit_code, "Error: pyproject.toml: " in result.output) == (2, True)
        assert not plain.joinpath("lifeguard.yaml").exists()


@pytest.fixture
def plain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "plain"
    path.mkdir()
    monkeypatch.chdir(path)
    monkeypatch.syspath_prepend(str(path))
    return path


class TestFactsOfDagster:
    """Why rules stand in ``post_processing``, and not in a component of ours."""

    def test_a_code_server_lists_components_if_the_folder_may_have_yaml(
        self, yaml_project: Path
    ) -> None:
        write(yaml_project, "shop_project/defs/defs.yaml", FOLDER)
        data: Any = importlib.import_module("dagster._core.remote_representation.external_data")
        tree = loaded(yaml_project).component_tree
        try:
            data.ComponentTreeSnap.from_tree(tree)
        except Exception:  # noqa: BLE001 - as each code server then does
            assert not DEFS_FOLDER_TAKES_YAML
        else:
            assert DEFS_FOLDER_TAKES_YAML

    def test_a_subclass_of_the_folder_is_not_called(self, yaml_project: Path) -> None:
        """Once it is, a ``type:`` of ours can stand for the whole folder."""
        text = f"type: {__name__}.OurFolder\n"
        write(yaml_project, "shop_project/defs/defs.yaml", text)
        assert set(pools(loaded(yaml_project))) >= {"orders", "left"}
        assert OurFolder.calls == []

    def test_a_component_cannot_replace_the_definitions_of_its_siblings(
        self, yaml_project: Path
    ) -> None:
        """Once it can, a component in a folder of its own can stand for the whole tree."""
        write(yaml_project, "shop_project/defs/defs.yaml", FOLDER)
        write(yaml_project, "shop_project/defs/ours/defs.yaml", f"type: {__name__}.OfSiblings\n")
        with pytest.raises(dg.DagsterInvalidDefinitionError, match="orders"):
            pools(loaded(yaml_project))


class OurFolder(dg.DefsFolderComponent):
    """A folder whose class is ours."""

    calls: ClassVar[list[str]] = []

    @classmethod
    def load(cls, attributes: Any, context: dg.ComponentLoadContext) -> dg.DefsFolderComponent:
        cls.calls.append("load")
        return super().load(attributes, context)

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        self.calls.append("build_defs")
        return super().build_defs(context)


class OfSiblings(dg.Component, dg.Resolvable, dg.Model):
    """A component that builds what another one builds too, with pools."""

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        before_1_12 = not hasattr(context, "build_defs")
        build: Any = context.build_defs_at_path if before_1_12 else context.build_defs
        return apply_per_asset_concurrency(build("assets.py"))
