"""The JSON schema of lifeguard.yaml: as generated, shipped, and of one mind with the reader."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from jsonschema import Draft7Validator
from pages import ROOT, read_blocks
from preloaded import preloaded
from ruamel.yaml import YAML

from dagster_lifeguard.cli import main
from dagster_lifeguard.cli.init import STARTER
from dagster_lifeguard.cli.schema import FILE_NAME, schema_text
from dagster_lifeguard.errors import ConfigError
from dagster_lifeguard.policy.config import Config

SCHEMA = json.loads(schema_text())
PAGES = [ROOT / "README.md", *sorted(ROOT.joinpath("docs").rglob("*.md"))]
DOCUMENTED = [
    pytest.param(block.text, id=block.place)
    for page in PAGES
    for block in read_blocks(page)
    if block.language == "yaml" and Path(block.file_name or "").name == "lifeguard.yaml"
]
EXAMPLES = [
    pytest.param(file.read_text(encoding="utf-8"), id=str(file.relative_to(ROOT)))
    for file in sorted(ROOT.joinpath("examples").rglob("lifeguard.yaml"))
]
RULE = 'rules:\n  - assets: "*"\n    '


def errors(text: str) -> list[str]:
    value: Any = YAML(typ="safe").load(text)
    return [error.message for error in Draft7Validator(SCHEMA).iter_errors(value)]


def test_it_is_a_schema() -> None:
    Draft7Validator.check_schema(SCHEMA)


def test_it_is_as_generated_from_the_models() -> None:
    script = ROOT / "docs" / "generate_schema.py"
    printed, code = preloaded(os.getpid()).output_of([str(script), "--check"])
    assert code == 0, printed


def test_each_key_has_help() -> None:
    for part in (SCHEMA, *SCHEMA["$defs"].values()):
        assert part["description"]
        for name, key in part["properties"].items():
            assert key["description"].endswith("."), name


def test_the_command_prints_what_is_shipped() -> None:
    result = CliRunner().invoke(main, ["schema"])
    assert (result.exit_code, json.loads(result.stdout)) == (0, SCHEMA)


def test_it_is_in_the_wheel(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as files:
        assert files.read(f"dagster_lifeguard/policy/{FILE_NAME}").decode() == schema_text()


@pytest.mark.parametrize("text", [*DOCUMENTED, *EXAMPLES, pytest.param(STARTER, id="init")])
def test_it_takes_each_file_that_the_docs_show(text: str) -> None:
    Config.from_text(text, "lifeguard.yaml")
    assert errors(text) == []


@pytest.mark.parametrize(
    "text",
    [
        "default_limit: null\n",
        "pools:\n  a:\n  b: {limit: null, rate: null}\n  c: {rate: 5/day, burst: 3}\n",
        "pools:\n  d: {order: fair(tag:team)}\n  a/b[2026-01-01]: 0\n",
        RULE + 'pools: ["{tag:a b}-{group}[{partition}]*2+x", "y*007"]\n',
        RULE + "pools: []\n    override: true\n    checks: false\n    hold: asset\n",
    ],
)
def test_it_takes_what_the_reader_takes(text: str) -> None:
    Config.from_text(text, "lifeguard.yaml")
    assert errors(text) == []


@pytest.mark.parametrize(
    "text",
    [
        "- a\n",
        "rule: []\n",
        "engine: dagster\n",
        "naming: underscor\n",
        "default_limit: true\n",
        "default_limit: '1'\n",
        "default_limit: 1001\n",
        "rules: 3\n",
        "rules: [a]\n",
        'rules:\n  - assets: "*"\n',
        'rules:\n  - assets: ""\n    pools: []\n',
        "rules:\n  - assets: [a]\n    pools: []\n",
        RULE + "pool: [x]\n",
        RULE + "pools: x\n",
        RULE + "pools: [{asset}]\n",
        RULE + 'pools: ["a b"]\n',
        RULE + 'pools: ["a+"]\n',
        RULE + 'pools: ["{a"]\n',
        RULE + 'pools: ["{{asset}}"]\n',
        RULE + 'pools: ["a**2"]\n',
        RULE + 'pools: [""]\n',
        RULE + "pools: []\n    override: 1\n",
        RULE + "pools: []\n    on_conflict: skip\n",
        RULE + "pools: []\n    hold: run\n",
        "pools: 3\n",
        "pools:\n  a b: 1\n",
        "pools:\n  a: -1\n",
        "pools:\n  a: many\n",
        "pools:\n  a: {limt: 3}\n",
        "pools:\n  a: {limit: 1.5}\n",
        "pools:\n  a: {rate: 5 per minute}\n",
        "pools:\n  a: {burst: 3}\n",
        "pools:\n  a: {rate: 5/day, burst: 0}\n",
        "pools:\n  a: {order: fair}\n",
        "pools:\n  a: {order: fair(tag:)}\n",
    ],
)
def test_it_refuses_what_the_reader_refuses(text: str) -> None:
    with pytest.raises(ConfigError):
        Config.from_text(text, "lifeguard.yaml")
    assert errors(text) != []
