"""Addresses: every name of a pool has one, and it leads back to the name."""

from __future__ import annotations

from urllib.parse import parse_qsl, unquote, urljoin, urlsplit

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dagster_lifeguard.web import routes
from dagster_lifeguard.web.addresses import address_of, asset_in_dagster, run_in_dagster

HOST = "http://127.0.0.1:3080"


@pytest.fixture(autouse=True, scope="module")
def _pools():
    """Only addresses are looked at, so any page will do."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(routes, "PAGES_OF", {"pools": routes.Route("pool", lambda asked: asked)})
        yield


@given(st.text(min_size=1, max_size=60), st.booleans())
@example("a/b", True)
@example("..", False)
@example("x/../y", True)
@example("x.json", False)
@example("x.csv", False)
@example("//evil.example", False)
@example("a[b]*2+c?d#e%2F&f=g", True)
@example(" ü\n\0", False)
@example("limit", False)
def test_every_name_has_an_address_that_leads_back(name, as_json):
    address = address_of("pools", name, as_json=as_json)
    # As a browser resolves a link, and a server reads what it is asked for.
    parts = urlsplit(urljoin(HOST, address))
    assert parts.netloc == urlsplit(HOST).netloc
    found = routes.find_page(unquote(parts.path), dict(parse_qsl(parts.query)))
    assert found is not None
    assert (found[0].route, found[0].name) == (routes.PAGES_OF["pools"], name)
    assert found[1] == ("json" if as_json else "html")
    # The one form by which pages are kept leads there too.
    again = urlsplit(found[0].text)
    kept = routes.find_page(again.path, dict(parse_qsl(again.query)))
    assert kept is not None
    assert kept[0] == found[0]


def test_the_first_page_has_several_addresses():
    for path in ("/", "/pools", "/pools.json", "/overview.json"):
        found = routes.find_page(path, {"search": "x"})
        assert found is not None
        assert (found[0].text, found[1]) == (
            "/?search=x",
            "json" if path.endswith(".json") else "html",
        )
    found = routes.find_page("/pools.csv", {"search": "x", "table": "pools"})
    assert found is not None
    assert (found[0].text, found[1]) == ("/?rows=all&search=x", "csv")
    for path in ("/x", "/pools/", "/pools/.json"):
        assert routes.find_page(path, {}) is None


def test_names_stay_names_in_the_dagster_ui():
    assert run_in_dagster("http://d", "a/../b?c") == "http://d/runs/a%2F..%2Fb%3Fc"
    assert asset_in_dagster("http://d", "a/b c") == "http://d/assets/a/b%20c"
    assert run_in_dagster(None, "a") is None
