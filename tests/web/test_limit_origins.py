"""What set the limit of each pool, and where it differs from lifeguard.yaml."""

from __future__ import annotations

import httpx
from homes import eventually, limit
from told import NOW, Told, pool
from web_server import serving, start_serving

from dagster_lifeguard.engine.rules.model import Entry, EntryKind
from dagster_lifeguard.engine.rules.rate import Rate
from dagster_lifeguard.insight.durations import Durations
from dagster_lifeguard.insight.overview import summarize
from dagster_lifeguard.insight.waits import NOBODY
from dagster_lifeguard.web.changes import PoolChange
from dagster_lifeguard.web.limit_origins import LimitOrigin, LimitOriginReader, LimitOrigins

FILE = (
    "engine: lifeguard\nrules: []\npools: {orders: 4, api: {limit: 2, rate: 5/minute}, kept: 3}\n"
)


def of(origins, state, change=None):
    return origins.of(summarize(state, NOBODY, Durations(NOW, NOW), NOW), change)


def told() -> Told:
    states = [pool("orders", 1), pool("api", 2), pool("kept", 3), pool("elsewhere", 7)]
    return Told(states=[*states, pool("usual", 1, default=True), pool("free", None)])


def test_a_pool_is_compared_with_the_file(tmp_path):
    file = tmp_path / "lifeguard.yaml"
    file.write_text(FILE)
    found = LimitOriginReader(file).read(told())
    drifts = {"orders": "the file says 4", "api": "the file says rate 5/minute"}
    assert (found.file, found.trouble, found.drifts) == ("lifeguard.yaml", "", drifts)
    sources = {state.pool: of(found, state).source for state in told().states}
    assert sources == {
        "orders": "own",
        "api": "own",
        "kept": "file",
        "elsewhere": "own",
        "usual": "default",
        "free": "none",
    }


def test_a_rate_that_the_file_is_without_is_told(tmp_path):
    file = tmp_path / "lifeguard.yaml"
    file.write_text("engine: lifeguard\nrules: []\npools: {api: 2}\n")
    told = Told(states=[pool("api", 2, rate=Rate(5, 60))])
    assert LimitOriginReader(file).read(told).drifts == {"api": "the file says no rate"}


def test_a_file_that_became_wrong_is_told_and_the_page_goes_on(tmp_path):
    file = tmp_path / "lifeguard.yaml"
    file.write_text("pools: 5\n")
    with serving(told(), file=file) as url:
        found = eventually(lambda: (f := httpx.get(f"{url}/pools.json").json())["file"] and f)
        assert "pools" in found["file_trouble"]
        file.write_text(FILE)
        found = eventually(
            lambda: (f := httpx.get(f"{url}/pools.json?show=drift").json())["drifts"] and f
        )
        assert [row["pool"]["pool"] for row in found["rows"]] == ["api", "orders"]
        assert "2 pools</a> differ from lifeguard.yaml" in httpx.get(url).text


def test_when_and_by_whom_a_limit_was_set_is_told_as_far_as_it_is_known():
    state = pool("orders", 5)
    entry = Entry(EntryKind.LIMIT, "orders", limit=5, at=NOW - 60)
    known = LimitOrigins(changed={"orders": entry})
    change = PoolChange(NOW - 59, "ann", "limit", "orders", 1, 5)
    assert of(LimitOrigins(), state) == LimitOrigin("own")
    assert of(known, state) == LimitOrigin("own", NOW - 60)
    assert of(known, state, change) == LimitOrigin("own", NOW - 60, "ann")
    assert of(LimitOrigins(), state, change) == LimitOrigin("own", NOW - 59, "ann")
    # Somebody else set the same limit again later; or another one was set meanwhile.
    again = LimitOrigins(changed={"orders": Entry(EntryKind.LIMIT, "orders", limit=5, at=NOW)})
    assert of(again, state, PoolChange(NOW - 999, "ann", "limit", "orders", 1, 5)).who == ""
    assert of(known, pool("orders", 6), change) == LimitOrigin("own")


def test_the_ledger_tells_when_the_limit_of_a_pool_was_set(make_home):
    home = make_home("sqlite")
    limit(home)
    _, url = start_serving(home)

    def origin():
        (row,) = httpx.get(f"{url}/pools.json").json()["rows"]
        return row["origin"]["source"] == "own" and row["origin"]["at"]

    first = eventually(origin)
    home.run("dagster", "instance", "concurrency", "set", "orders", "3")
    assert eventually(lambda: (at := origin()) and at > first and at)
