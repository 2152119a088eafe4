"""The search of the overview finds assets too."""

from __future__ import annotations

import httpx
from told import Told, pool
from web_server import serving

from dagster_lifeguard.errors import DeploymentError
from dagster_lifeguard.web import asset_names
from dagster_lifeguard.web.asset_names import AssetNames


class Counted(Told):
    reads = 0
    is_gone = False

    def assets(self):
        self.reads += 1
        if self.is_gone:
            raise DeploymentError("told is out of reach.", remedy="Wait.")
        return super().assets()


def test_the_asset_of_that_name_is_first_and_names_are_read_seldom(monkeypatch):
    told = Counted(asset_pools=dict.fromkeys(("a/orders_eu", "b/orders", "c/refunds"), ("db",)))
    names = AssetNames()
    assert names.matching(told, " ") == ()
    assert told.reads == 0
    assert names.matching(told, "ORDERS") == ("b/orders", "a/orders_eu")
    assert names.matching(told, "refunds") == ("c/refunds",)
    assert told.reads == 1
    monkeypatch.setattr(asset_names, "FRESH_SECONDS", 0.0)
    told.is_gone = True
    assert names.matching(told, "refunds") == ("c/refunds",)
    assert told.reads == 2


def test_a_search_tells_its_assets_and_how_many_more_there_are():
    told = Told(
        states=[pool("db")], asset_pools={f"sales/orders{n:02}": ("db",) for n in range(12)}
    )
    with serving(told) as url:
        found = httpx.get(f"{url}/pools.json?search=orders").json()
        assert (len(found["assets"]), found["asset_count"], found["rows"]) == (10, 12, [])
        text = httpx.get(f"{url}/?search=orders").text
        assert 'href="/assets/sales/orders00"' in text
        assert "and 2 more" in text
        assert httpx.get(f"{url}/pools.json").json()["assets"] == []
