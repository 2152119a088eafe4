"""Pages of documentation as a user would play them: each block written, loaded or run in order."""

from __future__ import annotations

import doctest
import importlib
import os
import re
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomli
import yaml
from click.testing import CliRunner
from packaging.requirements import Requirement
from preloaded import preloaded

from dagster_lifeguard import Policy
from dagster_lifeguard.cli import main
from dagster_lifeguard.compat.instance import instance_config_problem

ROOT = Path(__file__).parents[2]
FENCE = re.compile(r"^```(?P<language>\S*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
FILE_NAME = re.compile(r"# (?P<name>[\w./-]+\.(?:py|toml|yaml|yml))\b")
PURE_OUTPUT = ("text", "json")


class UnknownBlockError(AssertionError):
    """A block that nobody checks."""


@dataclass(frozen=True)
class Block:
    """One fenced block of a page."""

    page: Path
    line: int
    language: str
    text: str

    @property
    def file_name(self) -> str | None:
        """The file that a block of code is, by the comment on its first line."""
        match = FILE_NAME.match(self.text)
        return match["name"] if match else None

    @property
    def place(self) -> str:
        return f"{self.page.name}:{self.line}"

    def commands(self) -> list[tuple[str, str]]:
        """Each command after a ``$``, with the output that the page shows for it."""
        parts = re.split(r"^\$ ", self.text, flags=re.MULTILINE)
        if parts[0].strip():
            raise UnknownBlockError(f"{self.place}: a console block starts with a command: $ ...")
        return [(head, tail) for head, _, tail in (part.partition("\n") for part in parts[1:])]


def read_blocks(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    assert text.count("```") == 2 * len(FENCE.findall(text)), f"{page}: a fence without its end"
    return [
        Block(page, text.count("\n", 0, match.start()) + 1, match["language"], match["text"])
        for match in FENCE.finditer(text)
    ]


class Reader:
    """Someone who follows a page to the letter, in an empty directory and with an empty home."""

    def __init__(self, directory: Path, monkeypatch: Any) -> None:
        self.project = directory / "project"
        self.home = directory / "home"
        self.project.mkdir()
        self.home.mkdir()
        self.monkeypatch = monkeypatch
        self.names: dict[str, Any] = {"__name__": "page"}
        monkeypatch.chdir(self.project)
        monkeypatch.setenv("DAGSTER_HOME", str(self.home))
        # A file may be written twice within one second, which its compiled form would not show.
        monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def follow(self, page: Path) -> None:
        for block in read_blocks(page):
            handle = {
                "python": self._python,
                "toml": self._toml,
                "yaml": self._yaml,
                "console": self._console,
            }.get(block.language)
            if handle is not None:
                handle(block)
            elif block.language not in PURE_OUTPUT:
                raise UnknownBlockError(f"{block.place}: who checks {block.language!r}?")

    # --- files ------------------------------------------------------------------------------------

    def _write(self, block: Block) -> Path:
        assert block.file_name is not None
        file = Path(block.file_name)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(block.text, encoding="utf-8")
        return file.resolve()

    def _python(self, block: Block) -> None:
        names = self.names
        if block.file_name is not None:
            file = self._write(block)
            if block.text.startswith(f"# {block.file_name}: a script"):
                return  # a console block runs it
            names = {"__name__": file.stem, "__file__": str(file)}
        exec(compile(block.text, block.place, "exec", dont_inherit=True), names)

    def _toml(self, block: Block) -> None:
        tomli.loads(block.text)
        if block.file_name is not None:
            self._write(block)

    def _yaml(self, block: Block) -> None:
        name = Path(block.file_name or "").name
        if name == "lifeguard.yaml":
            Policy.from_yaml(self._write(block))
        elif name in ("workspace.yaml", "defs.yaml"):
            self._write(block)
        elif name in ("dagster.yaml", "deployment_settings.yaml"):
            self.home.joinpath("dagster.yaml").write_text(block.text, encoding="utf-8")
            assert instance_config_problem(str(self.home)) is None, block.place
        elif name == "workflow.yml":
            (job,) = yaml.safe_load(block.text)["jobs"].values()
            for command in [line for step in job["steps"] if "run" in step
                            for line in step["run"].splitlines()]:  # fmt: skip
                self._run(command, "", block)
        else:
            raise UnknownBlockError(f"{block.place}: which file is this? Its first line says so.")

    # --- commands ---------------------------------------------------------------------------------

    def _console(self, block: Block) -> None:
        for command, output in block.commands():
            self._run(command, output, block)

    def _run(self, command: str, shown: str, block: Block) -> None:
        word, *arguments = shlex.split(command.replace("$PWD", str(Path.cwd())), comments=True)
        run = getattr(self, f"_run_{word}", None)
        if run is None:
            raise UnknownBlockError(f"{block.place}: who checks the command {word!r}?")
        printed, exit_code = run(arguments)
        where = f"{block.place}: {command}\n{printed}"
        assert exit_code == _expected_exit_code(shown), where
        if shown:
            assert same(shown, printed), f"{where}\n--- is not what the page shows:\n{shown}"

    def _run_lifeguard(self, arguments: list[str]) -> tuple[str, int]:
        target = None
        if ">" in arguments:
            *arguments, _, target = arguments
        done = CliRunner().invoke(main, arguments)
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
        self._forget_modules()
        if target is None:
            return done.output, done.exit_code
        Path(target).write_text(done.stdout, encoding="utf-8")
        return "", done.exit_code

    def _forget_modules(self) -> None:
        """Make the next command import the reader's files anew, as its own process would."""
        for name, module in list(sys.modules.items()):
            if str(getattr(module, "__file__", None)).startswith(str(self.project)):
                del sys.modules[name]

    def _run_dagster(self, arguments: list[str]) -> tuple[str, int]:
        return self._run_python(["-m", "dagster", *arguments])

    def _run_python(self, arguments: list[str]) -> tuple[str, int]:
        return preloaded(os.getpid()).output_of(arguments)

    def _run_cat(self, arguments: list[str]) -> tuple[str, int]:
        return "".join(Path(name).read_text(encoding="utf-8") for name in arguments), 0

    def _run_mkdir(self, arguments: list[str]) -> tuple[str, int]:
        for name in arguments:
            Path(name).mkdir()
        return "", 0

    def _run_cd(self, arguments: list[str]) -> tuple[str, int]:
        self.monkeypatch.chdir(arguments[0])
        return "", 0

    def _run_export(self, arguments: list[str]) -> tuple[str, int]:
        name, _, value = arguments[0].partition("=")
        self.monkeypatch.setenv(name, value)
        return "", 0

    def _run_pip(self, arguments: list[str]) -> tuple[str, int]:
        """Installing would need a network; that the names are ours needs none."""
        assert arguments[0] == "install"
        if arguments[1:] == ["--editable", "."]:  # the reader's own project
            # At the end, as pip does: Dagster loads modules without the first entry.
            self.monkeypatch.setattr(sys, "path", [*sys.path, str(Path("src").resolve())])
            importlib.invalidate_caches()
            return "", 0
        project = ROOT.joinpath("pyproject.toml").read_text(encoding="utf-8")
        extras = project.partition("[project.optional-dependencies]")[2].partition("\n[")[0]
        for text in arguments[1:]:
            requirement = Requirement(text)
            assert f'\nname = "{requirement.name}"\n' in project, text
            assert requirement.extras <= set(re.findall(r"^(\w+) = ", extras, re.MULTILINE)), text
        return "", 0

    def _run_make(self, arguments: list[str]) -> tuple[str, int]:
        """Not run here: `make test` would run this test. But there must be such a target."""
        makefile = ROOT.joinpath("Makefile").read_text()
        for target in arguments:
            assert re.search(rf"^{re.escape(target)}:.*## ", makefile, re.MULTILINE), target
        return "", 0


def _expected_exit_code(shown: str) -> int:
    """What the output on a page implies: findings are 1, a mistake in what was asked is 2."""
    if re.search(r"^Error: ", shown, re.MULTILINE):
        return 2
    found = r"^(\d+ errors?, \d+ warnings?(, \d+ notes?)?|Drift: .*)$"
    return int(bool(re.search(found, shown, re.MULTILINE)))


def same(shown: str, printed: str) -> bool:
    """Compare output as a reader would: ``...`` stands for anything, trailing space for nothing."""
    want, got = (
        "".join(f"{line.rstrip()}\n" for line in text.strip().splitlines())
        for text in (shown, printed)
    )
    want = re.sub(r"^\.\.\.\n", "...", want, flags=re.MULTILINE)  # no line at all will do
    return doctest.OutputChecker().check_output(want, got, doctest.ELLIPSIS)
