"""The pages of the site, as Zensical reads them: those of ``docs/``, and files that they link to.

In the repository a page links to files outside ``docs/`` by relative paths, which work on GitHub.
The site has a page for each such file: its Markdown, or its text as a block of code. Links are
rewritten to these pages, so a link is right in both places or the build fails.
"""

from __future__ import annotations

import os
import re
import shutil
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
OWN = ROOT / "website" / "pages"
ASSETS = ROOT / "website" / "assets"
SCHEMAS = ROOT / "src" / "dagster_lifeguard"

_FENCE = re.compile(r"^ *```.*?^ *```\n?", re.MULTILINE | re.DOTALL)
_CODE = re.compile(r"`[^`\n]+`")
_LINK = re.compile(r"(?<=\]\()(?P<file>[^)\s#]+)(?P<rest>(#[^)\s]*)?)(?=\))")
_ATTRIBUTE = re.compile(
    r"""(?<=[\s<])(?P<name>src|href|poster)="(?P<file>[^"#]+)(?P<rest>(#[^"]*)?)\""""
)
_LANGUAGES = {".yaml": "yaml", ".yml": "yaml", ".py": "python", ".sql": "sql", ".toml": "toml"}
_MADE_BY_TOOLS = {"logs", "target", "__pycache__"}


class StagingError(Exception):
    """A page links to something that the site cannot have."""


@dataclass
class Staging:
    """Pages that are put together in a directory, until nothing is missing that they link to.

    Attributes:
        target: The directory.
        waiting: Files of the repository whose pages are still to be made.
        places: For each file that has a page, the path of the page under ``target``.
    """

    target: Path
    waiting: list[Path] = field(default_factory=list)
    places: dict[Path, str] = field(default_factory=dict)

    def make(self) -> None:
        """Put all pages and their pictures into the directory, which is emptied before.

        Raises:
            StagingError: A page links to a file that does not exist.
        """
        shutil.rmtree(self.target, ignore_errors=True)
        shutil.copytree(DOCS / "images", self.target / "images")
        shutil.copytree(ASSETS, self.target / "assets")
        for schema in sorted(SCHEMAS.rglob("*.schema.json")):
            self._write(f"schemas/{schema.name}", schema.read_text(encoding="utf-8"))
        for page in [*sorted(DOCS.rglob("*.md")), *sorted(OWN.rglob("*.md"))]:
            self._place(page)
        while self.waiting:
            file = self.waiting.pop()
            self._write(self.places[file], self._text(file))

    def _text(self, file: Path) -> str:
        if file.suffix == ".md":
            text = self._with_links(file.read_text(encoding="utf-8"), file)
            return text + _schemas() if file == OWN / "reference" / "schemas.md" else text
        if file.is_dir():
            return self._with_links(_directory(file), file / "README.md")
        language = "docker" if file.name == "Dockerfile" else _LANGUAGES.get(file.suffix, "text")
        shown = file.read_text(encoding="utf-8").rstrip("\n")
        return f"# {file.relative_to(ROOT)}\n\n````{language}\n{shown}\n````\n"

    def _place(self, file: Path) -> str:
        if file not in self.places:
            self.places[file] = place_of(file)
            self.waiting.append(file)
        return self.places[file]

    def _with_links(self, text: str, file: Path) -> str:
        """Rewrite the links of a page from where it is in the repository to where it is staged."""
        here = Path(place_of(file)).parent

        def linked(target: str) -> str:
            if "://" in target or target.startswith("mailto:"):
                return target
            found = Path(os.path.normpath(file.parent / target))
            if not found.exists():
                raise StagingError(f"{file.relative_to(ROOT)} links to {target}: no such file")
            if found.is_relative_to(DOCS / "images"):
                place = found.relative_to(DOCS).as_posix()
            elif found.is_relative_to(ASSETS):
                place = f"assets/{found.relative_to(ASSETS).as_posix()}"
            else:
                place = self._place(found)
            return Path(os.path.relpath(place, here)).as_posix()

        def of_link(match: re.Match[str]) -> str:
            return linked(match["file"]) + match["rest"]

        def of_attribute(match: re.Match[str]) -> str:
            target = linked(match["file"])
            # What is written as HTML is not touched by Zensical: it names the built page.
            target = f"{target.removesuffix('.md')}.html" if target.endswith(".md") else target
            return f'{match["name"]}="{target}{match["rest"]}"'

        def prose(part: str) -> str:
            return _ATTRIBUTE.sub(of_attribute, _LINK.sub(of_link, part))

        return _outside(_FENCE, text, lambda part: _outside(_CODE, part, prose))

    def _write(self, place: str, text: str) -> None:
        file = self.target / place
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")


def place_of(file: Path) -> str:
    """Return where the page of a file of the repository is staged."""
    if file == DOCS / "index.md":
        return "all-pages.md"
    for folder in (DOCS, OWN):
        if file.is_relative_to(folder):
            return file.relative_to(folder).as_posix()
    # Zensical makes an index.html of README.md, whose address a link in HTML would not know.
    name = file.relative_to(ROOT).as_posix().replace("README.md", "readme.md")
    if file.is_dir():
        return f"project/{name}/files.md"
    return f"project/{name}" if file.suffix == ".md" else f"project/{name}.md"


def _outside(code: re.Pattern[str], text: str, change: object) -> str:
    """Change what lies between the matches of ``code``, and leave these as they are."""
    assert callable(change)
    done, end = [], 0
    for match in code.finditer(text):
        done += [change(text[end : match.start()]), match.group()]
        end = match.end()
    return "".join([*done, change(text[end:])])


def _directory(directory: Path) -> str:
    """Return a page that links to the files of text in a directory of the repository."""
    files = [
        file.relative_to(directory)
        for file in sorted(directory.rglob("*"))
        if file.suffix in _LANGUAGES and not _MADE_BY_TOOLS & set(file.parts)
    ]
    lines = "".join(f"- [{file}]({file.as_posix()})\n" for file in files)
    return f"# {directory.relative_to(ROOT)}\n\n{lines}"


def _schemas() -> str:
    """Each JSON schema of the package: where it is to be had, and what it says."""
    parts = []
    for schema in sorted(SCHEMAS.rglob("*.schema.json")):
        shown = schema.read_text(encoding="utf-8").rstrip("\n")
        parts.append(
            f"\n## {schema.name}\n\n"
            f'<a href="../schemas/{schema.name}" download>Download {schema.name}</a>\n\n'
            f"```json\n{shown}\n```\n"
        )
    return "".join(parts)
