"""The documentation says what is so: blocks are played, names and links are looked up."""

from __future__ import annotations

import dataclasses
import json
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

import click
import pytest
from pages import ROOT, Reader, UnknownBlockError, read_blocks
from preloaded import preloaded

import dagster_lifeguard
from dagster_lifeguard import LifeguardError
from dagster_lifeguard.cli import main
from dagster_lifeguard.cli.demo import verdict_rows
from dagster_lifeguard.cli.flights.acts import PROTECTED, UNPROTECTED, Evidence
from dagster_lifeguard.cli.group import CommandGroup
from dagster_lifeguard.compat.components import DEFS_FOLDER_TAKES_YAML
from dagster_lifeguard.inspections.check.codes import CODES
from dagster_lifeguard.inspections.doctor.examination import CHECKS, GROUPS
from dagster_lifeguard.inspections.finding import Finding
from dagster_lifeguard.policy.config import Config, PoolSpec, Rule
from dagster_lifeguard.storage.config import StorageOptions
from dagster_lifeguard.web.errors import RequestRefusedError

if TYPE_CHECKING:
    from collections.abc import Iterator

DOCS = ROOT / "docs"
README = ROOT / "README.md"
PAGES = [
    README,
    *(ROOT / name for name in ("CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md")),
    *sorted(DOCS.rglob("*.md")),
]
LINK = re.compile(r"\[[^\]]*\]\((?P<target>[^)\s]+)\)")


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def reference(name: str) -> str:
    return DOCS.joinpath("reference", name).read_text(encoding="utf-8")


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_block_does_what_the_page_says(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = Reader(tmp_path, monkeypatch)
    if page.name == "protect-a-dg-project.md" and not DEFS_FOLDER_TAKES_YAML:
        pytest.skip("its reader has Dagster 1.13.8 or newer")
    if page.name in ("tutorial.md", "check-in-ci.md"):  # whose readers have no instance
        monkeypatch.delenv("DAGSTER_HOME")
    elif page != README:  # whose reader has an empty home
        reader.home.joinpath("dagster.yaml").write_text(
            "telemetry: {enabled: false}\nconcurrency: {pools: {default_limit: 1}}\n"
        )
    reader.follow(page)


@pytest.mark.parametrize(
    "block",
    [
        "```rust\nfn main() {}\n```\n",
        "```\nno language\n```\n",
        "```console\n$ curl example.org\n```\n",
        "```console\nlifeguard check\n```\n",
        "```yaml\na: 1\n```\n",
    ],
)
def test_a_block_that_nobody_checks_is_an_error(
    block: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = tmp_path / "page.md"
    page.write_text(block)
    with pytest.raises(UnknownBlockError):
        Reader(tmp_path, monkeypatch).follow(page)


@pytest.mark.parametrize(
    "block",
    [
        "```python\nassert 1 == 2\n```\n",
        "```console\n$ lifeguard --version\nsomething else\n```\n",
        "```console\n$ lifeguard check -f none.py\n```\n",
        "```console\n$ make no-such-target\n```\n",
        "```console\n$ pip install dagster-lifegard\n```\n",
        "```console\n$ pip install dagster-lifeguard[extra]\n```\n",
    ],
)
def test_a_block_that_is_wrong_is_an_error(
    block: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = tmp_path / "page.md"
    page.write_text(block)
    with pytest.raises(AssertionError):
        Reader(tmp_path, monkeypatch).follow(page)


def test_the_verdict_in_the_readme_has_the_demos_rows() -> None:
    nothing = [Evidence(act, (), (), {}, 0.0) for act in (UNPROTECTED, PROTECTED)]
    text = README.read_text(encoding="utf-8")
    shown = [line for line in text.splitlines() if re.match(r"\S.*\S {3,}\S", line)]
    for fact, *_ in verdict_rows(*nothing):
        assert sum(line.startswith(f"{fact}  ") for line in shown) == 1, fact


class TestReference:
    def test_the_command_reference_is_as_generated(self) -> None:
        script = DOCS / "generate_cli_reference.py"
        printed, code = preloaded(os.getpid()).output_of([str(script), "--check"])
        assert code == 0, printed

    def test_every_command_and_option(self) -> None:
        text = reference("cli.md")
        for path, command in commands(main, "lifeguard"):
            assert f"`{path}`" in text
            for parameter in command.params:
                words = parameter.opts
                if isinstance(parameter, click.Argument):
                    words = [parameter.metavar or parameter.human_readable_name]
                assert all(word in text for word in words), (path, words)

    def test_help_shows_no_escape(self) -> None:
        assert "\\b" not in reference("cli.md")

    def test_every_code_of_findings_and_errors(self) -> None:
        text = reference("findings.md")
        assert RequestRefusedError in set(errors(LifeguardError))  # the web page's is imported
        codes = {*CODES, *(error.code for error in errors(LifeguardError))}
        headings = re.findall(r"^### `([\w-]+)`$", text, re.MULTILINE)
        assert sorted(headings) == sorted(codes)
        for error in errors(LifeguardError):
            assert f"`{error.__name__}`" in text

    def test_every_check_of_the_doctor(self) -> None:
        text = reference("doctor.md")
        sections = re.split(r"^### ", text.partition("## What `--fix` does")[0], flags=re.MULTILINE)
        told = [re.match(r"`([\w-]+)`\n\n(\w+), (\w+)[.;]", part) for part in sections[1:]]
        assert [match and match.groups() for match in told] == [
            (check.code, check.severity.capitalize(), check.source) for check in CHECKS.values()
        ]
        for part in sections[1:]:
            assert re.search(r"Cause: .*[Rr]emedy:\s", part, re.DOTALL), part
        headings = re.findall(r"^## (.*)$", text, re.MULTILINE)
        assert headings[: len(GROUPS)] == list(GROUPS)

    @pytest.mark.parametrize("model", [Config, Rule, PoolSpec])
    def test_every_setting(self, model: type[Config | Rule | PoolSpec]) -> None:
        text = reference("lifeguard-yaml.md")
        for field in model.model_fields:
            assert re.search(rf"^\| `{field}` \|", text, re.MULTILINE), field

    def test_every_setting_of_the_engine(self) -> None:
        text = DOCS.joinpath("operating", "engine.md").read_text(encoding="utf-8")
        for option in dataclasses.fields(StorageOptions):
            shown = f"{option.default:g}" if option.type == "float" else f"`{option.default}`"
            assert re.search(rf"^\| `{option.name}` \| {shown} \|", text, re.MULTILINE), option

    def test_every_field_of_the_json(self) -> None:
        page = DOCS / "reference" / "check-json.md"
        ((_, shown),) = [
            command for block in read_blocks(page) if block.language == "console"
            for command in block.commands()
        ]  # fmt: skip
        printed = json.loads(shown)
        finding = {field.name for field in dataclasses.fields(Finding)} - {"severity"}
        for field in {*printed, *printed["assets"][0], *finding}:
            assert re.search(rf"^\| `{field}` \|", page.read_text(), re.MULTILINE), field

    def test_every_public_name(self) -> None:
        text = reference("python.md")
        for name in dagster_lifeguard.__all__:
            assert re.search(rf"^## `{name}", text, re.MULTILINE), name

    def test_the_public_names_are_these(self) -> None:
        assert sorted(dagster_lifeguard.__all__) == [
            "Alert",
            "LifeguardClient",
            "LifeguardError",
            "Policy",
            "PoolSpec",
            "Rule",
            "apply_per_asset_concurrency",
            "build_pool_alert_sensor",
            "fence",
            "slots",
        ]


def test_the_readme_and_the_table_of_executors_say_the_same() -> None:
    """Which executor claims is no fact of ours: it goes with the versions that were looked at."""
    page = (DOCS / "operating" / "executors.md").read_text()
    readme = (ROOT / "README.md").read_text()
    (row,) = re.findall(r"^\| Executors \| (.*) \|$", readme, re.MULTILINE)
    table = page.partition("| Executor | Claims a slot | Tested |")[2].partition("\n\n")[0]
    for library, word in (("dagster-celery", "yes"), ("dagster-dask", "no")):
        of_page = set(re.findall(rf"{library} [\d.]+\d", table))
        of_readme = set(re.findall(rf"{library} [\d.]+\d", row))
        assert of_readme
        assert of_readme <= of_page
        name = library.removeprefix("dagster-")
        (claims,) = re.findall(rf"^\| `{name}`.*? \| (.*?) \|", table, re.MULTILINE)
        assert re.split(r"\W", claims)[0] == word
        assert f"{name.capitalize()} {'claims' if word == 'yes' else 'never claims'}" in row


def test_every_promise_is_guarded_by_tests_that_exist() -> None:
    text = DOCS.joinpath("concepts", "safety.md").read_text(encoding="utf-8")
    named = re.findall(r"`(tests/[\w/.]+)::(\w+)`", text)
    for promise in ("S1", "S2", "S3", "L1", "L2", "L3"):
        assert re.search(rf"^\| \*\*{promise}\*\* .*`tests/", text, re.MULTILINE), promise
    for file, test in named:
        assert f"\ndef {test}(" in ROOT.joinpath(file).read_text(encoding="utf-8"), test


class TestLinks:
    @pytest.mark.parametrize("page", PAGES, ids=name_of)
    def test_each_leads_somewhere(self, page: Path) -> None:
        for target, heading in links(page):
            assert target.exists(), f"{name_of(page)} -> {target}"
            if heading:
                assert heading in anchors(target), f"{name_of(page)} -> {target}#{heading}"

    def test_every_page_is_reached_from_the_index(self) -> None:
        reached: set[Path] = set()
        waiting = [DOCS / "index.md"]
        while waiting:
            page = waiting.pop()
            if page not in reached:
                reached.add(page)
                waiting += [t for t, _ in links(page) if t.suffix == ".md" and t.is_file()]
        assert set(DOCS.rglob("*.md")) <= reached


def commands(group: click.Group, path: str) -> Iterator[tuple[str, click.Command]]:
    yield path, group
    found = group.loaded() if isinstance(group, CommandGroup) else group.commands
    for name, command in found.items():
        if isinstance(command, click.Group):
            yield from commands(command, f"{path} {name}")
        else:
            yield f"{path} {name}", command


def errors(base: type[LifeguardError]) -> Iterator[type[LifeguardError]]:
    yield base
    for error in base.__subclasses__():
        yield from errors(error)


def links(page: Path) -> Iterator[tuple[Path, str]]:
    """Where the relative links of a page lead: a file, and a heading in it if they name one."""
    for match in LINK.finditer(page.read_text(encoding="utf-8")):
        if "://" not in match["target"]:
            file, _, heading = match["target"].partition("#")
            yield (page.parent / file).resolve() if file else page, heading


def anchors(page: Path) -> set[str]:
    """The names that a page's headings can be linked by."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
