"""The documentation as a site: it is whole, its links lead somewhere, and it fetches nothing."""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path

import pytest
from pages import ROOT

import dagster_lifeguard

pytest.importorskip("zensical", reason="needs the extra site, and Python 3.11")

sys.path.append(str(ROOT))
from website import build, checking, staging, versions

DOCS = ROOT / "docs"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site of this working copy; building it fails on a problem that is found by itself."""
    into = tmp_path_factory.mktemp("site")
    return build.build("dev", into, tmp_path_factory.mktemp("scratch"))


@pytest.fixture
def page(tmp_path: Path) -> Path:
    """A site of one page, without a problem."""
    file = tmp_path / "page.html"
    write(file, '<h1 id="top">Page</h1><a href="#top">top</a><a href="https://example.org">out</a>')
    assert checking.problems(tmp_path) == []
    return file


def write(file: Path, text: str) -> None:
    file.write_text(text, encoding="utf-8")
    checking.read_page.cache_clear()


class TestBuilt:
    def test_no_link_or_anchor_is_broken(self, site: Path) -> None:
        assert checking.broken_links(site) == []

    def test_nothing_is_fetched_from_elsewhere(self, site: Path) -> None:
        assert checking.fetched_from_elsewhere(site) == []

    def test_no_list_is_shown_as_text(self, site: Path) -> None:
        assert checking.lost_lists(site) == []

    def test_every_page_of_the_docs_is_in_the_navigation(self, site: Path) -> None:
        text = site.joinpath("index.html").read_text(encoding="utf-8")
        links = set(re.findall(r'<a href="(?:\./)?([^"#]+)" class="md-nav__link', text))
        for file in DOCS.rglob("*.md"):
            built = staging.place_of(file).removesuffix(".md") + ".html"
            assert site.joinpath(built).is_file()
            assert built in links

    def test_the_reference_shows_every_public_name(self, site: Path) -> None:
        page = site / "reference" / "api.html"
        headings = checking.read_page(page).names
        for name in dagster_lifeguard.__all__:
            assert f"dagster_lifeguard.{name}" in headings
        text = page.read_text(encoding="utf-8")
        assert "Give every asset a pool of its own" in text
        assert "dagster_lifeguard.Policy.from_yaml" in headings

    def test_the_schema_is_shown_and_can_be_downloaded(self, site: Path) -> None:
        schema = ROOT / "src" / "dagster_lifeguard" / "policy" / "lifeguard.schema.json"
        served = site / "schemas" / schema.name
        assert json.loads(served.read_text("utf-8")) == json.loads(schema.read_text("utf-8"))
        links = checking.read_page(site / "reference" / "schemas.html").links
        assert f"../schemas/{schema.name}" in links

    def test_recordings_and_screenshots_are_shown(self, site: Path) -> None:
        fetched = checking.read_page(site / "index.html").fetched
        assert {"images/terminal.svg", "images/page.webm", "images/page.png"} <= set(fetched)
        fetched = checking.read_page(site / "how-to" / "serve-a-page.html").fetched
        assert {"../images/page-overview.png", "../images/page-pool.png"} <= set(fetched)
        fetched = checking.read_page(site / "how-to" / "try-other-limits.html").fetched
        assert "../images/page-what-if.png" in fetched

    def test_every_page_can_be_found(self, site: Path) -> None:
        index = json.loads(site.joinpath("search.json").read_text(encoding="utf-8"))
        found = {item["location"].partition("#")[0] for item in index["items"]}
        pages = {file.relative_to(site).as_posix() for file in site.rglob("*.html")}
        assert pages <= found
        assert site.joinpath("search.js").is_file()  # the same, for pages opened as files

    def test_the_version_is_offered_with_its_pages(self, site: Path) -> None:
        text = site.parent.joinpath("versions.js").read_text(encoding="utf-8")
        listed = json.loads(text.removeprefix("window.lifeguardVersions = ").removesuffix(";\n"))
        assert [version["name"] for version in listed] == ["dev"]
        assert "tutorial.html" in listed[0]["pages"]
        assert 'url=dev/index.html"' in site.parent.joinpath("index.html").read_text("utf-8")


class TestProblems:
    @pytest.mark.parametrize(
        "html",
        [
            '<a href="gone.html">x</a>',
            '<a href="page.html#gone">x</a>',
            '<a href="#gone">x</a>',
            '<img src="gone.png">',
            '<video poster="gone.png"></video>',
        ],
    )
    def test_a_broken_link(self, page: Path, html: str) -> None:
        write(page, html)
        assert len(checking.broken_links(page.parent)) == 1

    @pytest.mark.parametrize(
        "html",
        [
            '<script src="https://example.org/x.js"></script>',
            '<script src="//example.org/x.js"></script>',
            '<link rel="stylesheet" href="https://example.org/x.css">',
            '<link rel="preconnect" href="https://example.org">',
            '<img src="https://example.org/x.png">',
            '<img srcset="https://example.org/x.png 2x">',
            "<style>@import 'https://example.org/x.css';</style>",
            '<p style="background: url(https://example.org/x.png)">x</p>',
        ],
    )
    def test_a_page_that_fetches_from_elsewhere(self, page: Path, html: str) -> None:
        write(page, html)
        assert len(checking.fetched_from_elsewhere(page.parent)) == 1

    def test_a_font_in_a_style_sheet(self, page: Path) -> None:
        css = "@font-face { src: url('https://example.org/x.woff2'); }"
        page.with_name("x.css").write_text(css)
        assert len(checking.fetched_from_elsewhere(page.parent)) == 1

    @pytest.mark.parametrize("text", ["Two:\n- one\n- two", "Two:\n1. one", "Two:\n| a | b |"])
    def test_a_list_that_is_text(self, page: Path, text: str) -> None:
        write(page, f"<p>{text}</p>")
        assert len(checking.lost_lists(page.parent)) == 1

    def test_a_page_without_a_place_in_the_navigation(self, monkeypatch, tmp_path: Path) -> None:
        monkeypatch.setattr(build, "navigation", lambda: ["index.md"])
        assert "tutorial.md" in build.not_in_navigation()
        with pytest.raises(build.BuildError, match=r"not in nav: .*tutorial\.md"):
            build.build("dev", tmp_path / "site", tmp_path / "scratch")


class TestStaging:
    @pytest.fixture
    def repository(self, monkeypatch, tmp_path: Path) -> Path:
        """A repository with a page in ``docs`` and a file beside it."""
        docs = tmp_path / "docs" / "how-to"
        docs.mkdir(parents=True)
        docs.parent.joinpath("images").mkdir()
        own = tmp_path / "website" / "pages"
        own.mkdir(parents=True)
        assets = tmp_path / "website" / "assets"
        assets.mkdir()
        tmp_path.joinpath("values.yaml").write_text("a: 1\n")
        for name, folder in {"ROOT": tmp_path, "DOCS": docs.parent, "OWN": own}.items():
            monkeypatch.setattr(staging, name, folder)
        monkeypatch.setattr(staging, "ASSETS", assets)
        monkeypatch.setattr(staging, "SCHEMAS", tmp_path)
        return tmp_path

    def staged(self, repository: Path, text: str) -> str:
        repository.joinpath("docs", "how-to", "x.md").write_text(text)
        target = repository / "staged"
        staging.Staging(target).make()
        return target.joinpath("how-to", "x.md").read_text()

    def test_a_file_outside_the_docs_is_a_page_too(self, repository: Path) -> None:
        text = self.staged(repository, "[values](../../values.yaml)")
        assert text == "[values](../project/values.yaml.md)"
        shown = repository.joinpath("staged", "project", "values.yaml.md").read_text()
        assert shown == "# values.yaml\n\n````yaml\na: 1\n````\n"

    def test_what_is_in_code_is_no_link(self, repository: Path) -> None:
        text = "```text\n[x](gone.md)\n```\n`[x](gone.md)`\n"
        assert self.staged(repository, text) == text

    def test_a_link_to_nothing(self, repository: Path) -> None:
        with pytest.raises(staging.StagingError, match=r"docs/how-to/x\.md links to \.\./gone\.md"):
            self.staged(repository, "[x](../gone.md)")


def test_versions_stand_side_by_side(tmp_path: Path) -> None:
    for name in ("dev", "0.9.0", "0.10.0", "assets"):
        tmp_path.joinpath(name).mkdir()
        if name != "assets":
            tmp_path.joinpath(name, "index.html").write_text("x")
    assert versions.names(tmp_path) == ["0.10.0", "0.9.0", "dev"]
    versions.list_versions(tmp_path)
    assert 'url=0.10.0/index.html"' in tmp_path.joinpath("index.html").read_text()
    shutil.rmtree(tmp_path / "0.10.0")
    versions.list_versions(tmp_path)
    assert 'url=0.9.0/index.html"' in tmp_path.joinpath("index.html").read_text()
