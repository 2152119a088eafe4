"""Changes over the page: shown first, confirmed, done, and told; on real instances."""

from __future__ import annotations

import csv
import html
import json
import re
import time
from contextlib import ExitStack, closing

import dagster as dg
import httpx
import pytest
from homes import Home, eventually, free_port, limit, serve
from web_server import TOKEN, serving

from dagster_lifeguard.deployment.open import open_deployment
from dagster_lifeguard.engine.rules.model import Demand
from dagster_lifeguard.engine.rules.pool_settings import PoolSettings, own_limits

BEARER = {"Authorization": f"Bearer {TOKEN}", "Accept": "application/json"}


@pytest.fixture(params=["stock", "engine", "endpoint"])
def world(request) -> str:
    return request.param


@pytest.fixture
def home(world, make_home, monkeypatch) -> Home:
    home = make_home("sqlite", stock=world != "engine")
    monkeypatch.setenv("DAGSTER_HOME", str(home.path))
    limit(home)
    return home


@pytest.fixture
def deployment(world, home):
    url = None
    if world == "endpoint":
        port = free_port()
        serve(home, port)
        url = f"http://127.0.0.1:{port}"
    with closing(open_deployment(url)) as found:
        yield found


@pytest.fixture
def claim(home):
    """Claims a slot for a run, in the name of a process that lives as long as the test."""
    with home.instance() as instance:
        log = instance.event_log_storage
        yield lambda run_id: log.claim_concurrency_slot("orders", run_id, "step").is_claimed


class Browser:
    """A person with a browser: follows a form that a page shows."""

    def __init__(self, url: str) -> None:
        self.client = httpx.Client(base_url=url, timeout=60)

    def page(self, path: str, **query: str | list[str]) -> str:
        answer = self.client.get(path, params=query)
        assert answer.status_code == 200, answer.text
        return answer.text

    def confirm(self, page: str) -> httpx.Response:
        form = page[page.rindex('method="post"') :]
        action = re.search(r'action="([^"]+)"', form)[1]
        fields = re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)"', form)
        return self.client.post(action, data={k: html.unescape(v) for k, v in fields})


def test_of_a_pool_of_all_partitions_nothing_can_be_set(world, home, deployment):
    with ExitStack() as stack:
        if world == "engine":
            engine = stack.enter_context(home.instance()).event_log_storage.lifeguard.engine
            assert engine.claim("run", "step", Demand.of({"{all}daily[*]": 1})).granted
        browser = Browser(stack.enter_context(serving(deployment, allow_changes=True)))
        assert "Pause" in browser.page("/pools/orders")
        if world == "engine":
            page = browser.page("/pools/{all}daily[*]")
            assert ("1,000" in page, "Pause" in page) == (True, False)
        for path, query in (("limit", {"limit": "3"}), ("pause", {})):
            answer = browser.client.get(
                f"/change/{path}", params={"pool": "{all}daily[*]", **query}
            )
            assert answer.status_code == 400
            assert "stands for all partitions" in answer.text


def test_a_limit_is_raised_paused_and_resumed(claim, deployment, tmp_path):
    log = tmp_path / "changes.jsonl"
    assert claim("first")
    assert not claim("second")
    with serving(deployment, allow_changes=True, change_log=log) as url:
        browser = Browser(url)
        page = browser.page("/change/limit", pool="orders", limit="3")
        assert "limit 1 becomes 3" in page
        assert "1 of 1 waiting step will start: second" in page
        assert own_limits(deployment.pool_settings())["orders"] == 1  # nothing is done by looking
        done = browser.confirm(page)
        assert (done.status_code, done.headers["location"]) == (303, "/pools/orders")
        assert own_limits(deployment.pool_settings())["orders"] == 3

        stale = browser.confirm(page)
        assert (stale.status_code, "changed meanwhile: it is 3 now" in stale.text) == (409, True)

        page = browser.page("/change/pause", pool="orders")
        assert "stays held until the steps end" in page
        assert browser.confirm(page).status_code == 303
        assert own_limits(deployment.pool_settings())["orders"] == 0
    # It is known after a restart what to resume to.
    with serving(deployment, allow_changes=True, change_log=log) as url:
        browser = Browser(url)
        assert "Resume to 3" in browser.page("/change/limit", pool="orders")
        page = browser.page("/change/resume", pool="orders")
        assert browser.confirm(page).status_code == 303
        assert own_limits(deployment.pool_settings())["orders"] == 3
    told = [json.loads(line) for line in log.read_text().splitlines()]
    assert [(t["what"], t["pool"], t["before"], t["after"]) for t in told] == [
        ("limit", "orders", 1, 3), ("limit", "orders", 3, 0), ("limit", "orders", 0, 3),
    ]  # fmt: skip
    assert all(re.fullmatch(r"127\.0\.0\.1 \(session \w{6}\)", t["who"]) for t in told)


def test_a_new_pool_gets_a_limit_whatever_its_name(home, deployment):
    with serving(deployment, allow_changes=True) as url:
        browser = Browser(url)
        for name in ("new", "a/b[x]", '"><b>&', "..", "ü ß%2F"):
            page = browser.page("/change/limit", pool=name, limit="4")
            done = browser.confirm(page)
            assert own_limits(deployment.pool_settings())[name] == 4
            assert "of 4" in browser.page(done.headers["location"])  # which knows it at once
        for name, text in (("", "4"), (" x", "4"), ("a\nb", "4"), ("x", "-1"), ("x", "1e3"), ("x", "9" * 9)):  # fmt: skip
            answer = browser.client.get("/change/limit.json", params={"pool": name, "limit": text})
            assert answer.status_code in (200, 400, 503)
            if name:
                assert "error" in answer.json()
        assert set(own_limits(deployment.pool_settings())) == {
            "new",
            "a/b[x]",
            '"><b>&',
            "..",
            "ü ß%2F",
            "orders",
        }


def test_what_is_dead_is_freed_and_the_next_can_go_in(claim, home, deployment, world):
    with home.instance() as instance:
        over = dg.DagsterRunStatus.FAILURE
        instance.add_run(dg.DagsterRun(job_name="job", run_id="gone", status=over))
    assert claim("gone")
    assert not claim("next")
    with serving(deployment, allow_changes=True, token=TOKEN) as url:
        told = httpx.get(f"{url}/change/free.json?subject=orders", headers=BEARER).json()
        (item,) = told["found"]
        assert item["run_id"] == "gone"
        assert item["alive"] is (world == "engine")  # there, this process lives and says so
        done = httpx.post(f"{url}/change/free", headers=BEARER, data={"subject": "orders"})
        if world == "engine":
            assert done.json()["changes"] == []
            assert not claim("next")
            form = {"subject": "orders", "force": "yes"}
            done = httpx.post(f"{url}/change/free", headers=BEARER, data=form)
        (change,) = done.json()["changes"]
        assert (change["what"], change["run_id"], change["pool"]) == ("free", "gone", "orders")
        assert (change["who"], change["forced"]) == ("127.0.0.1 (bearer)", world == "engine")
        assert eventually(lambda: claim("next"))


def test_a_limit_out_of_bounds_is_the_visitors_mistake(deployment):
    bounds = deployment.settings()
    wrong = [str(bounds.limit_max + 1), "999999999", "-1", "1e3", "9" * 40]
    if bounds.limit_min:
        wrong.append(str(bounds.limit_min - 1))
    with serving(deployment, token=TOKEN, allow_changes=True) as url:
        for text in wrong:
            query = {"pool": "orders", "limit": text}
            for answer in (
                httpx.get(f"{url}/change/limit.json", params=query, headers=BEARER, timeout=60),
                httpx.post(f"{url}/change/limit", data=query, headers=BEARER, timeout=60),
            ):
                assert (answer.status_code, answer.json()["error"]["code"]) == (
                    400,
                    "config-invalid",
                )
    assert own_limits(deployment.pool_settings()) == {"orders": 1}


def test_several_pools_are_paused_and_resumed_together(world, home, deployment):
    limit(home, 4, "stock/api")
    limit(home, 0, "paused")
    with serving(deployment, allow_changes=True) as url:
        browser = Browser(url)
        chosen = ["orders", "stock/api", "paused"]
        page = browser.page("/change/several", do="pause", pool=chosen)
        assert "Pause 2 pools" in page
        assert "it is paused already" in page
        assert browser.confirm(page).headers["location"] == "/"
        assert own_limits(deployment.pool_settings()) == dict.fromkeys(chosen, 0)
        stale = page = browser.page("/change/several", do="resume", pool=chosen)
        assert "stock/api: limit 0 becomes 4." in page
        assert "its limit before the pause is not known" in page
        assert browser.confirm(page).status_code == 303
        after = {"orders": 1, "stock/api": 4, "paused": 0}
        assert own_limits(deployment.pool_settings()) == after
        found = browser.client.get("/pools/stock/api.json").json()["changes"]
        assert [(each["before"], each["after"]) for each in found] == [(0, 4), (4, 0)]
        assert browser.confirm(stale).status_code == 409
        assert own_limits(deployment.pool_settings()) == after


def test_a_limit_until_a_time_is_shown_set_and_ended(world, deployment, tmp_path):
    log = tmp_path / "changes.jsonl"
    with serving(deployment, allow_changes=True, change_log=log) as url:
        browser = Browser(url)
        asked = {"pool": "orders", "limit": "3", "until": "2h"}
        if world != "engine":
            answer = browser.client.get("/change/limit.json", params=asked)
            assert answer.status_code >= 400
            assert "A limit until a time needs the engine" in answer.json()["error"]["message"]
            assert 'name="until"' not in browser.page("/change/limit", pool="orders")
            assert 'name="until"' not in browser.page("/pools/orders")
            assert own_limits(deployment.pool_settings()) == {"orders": 1}
            return
        assert 'name="until"' in browser.page("/pools/orders")
        page = browser.page("/change/limit", **asked)
        assert re.search(r"limit 1 becomes 3 until [\d: -]+, then 1\.", page)
        assert re.search(r"Set the limit to 3 until [\d: -]+</button>", page)
        assert browser.confirm(page).status_code == 303
        settings = deployment.pool_settings()["orders"]
        assert (settings.limit, settings.lasting_limit) == (3, 1)
        assert settings.fall_back.at == pytest.approx(time.time() + 7200.0, abs=900.0)
        assert browser.confirm(page).status_code == 409  # What it shows is not what is there.

        eventually(
            lambda: re.search(
                r"Temporary limit: 3 until [\d: -]+, then 1\.", browser.page("/pools/orders")
            )
        )
        told = browser.client.get("/pools/orders.json").json()
        assert told["pool"]["summary"]["fall_back"] == {"at": settings.fall_back.at, "limit": 1}
        assert told["changes"][0]["until"] == settings.fall_back.at
        assert told["account"]["changes"][0]["until"] == settings.fall_back.at
        assert "The limit 3 is temporary" in browser.page("/")
        eventually(lambda: "temporary limit" in browser.page("/"))  # What set it is read rarely.
        (row,) = csv.DictReader(browser.client.get("/pools.csv").text.splitlines())
        assert float(row["limit_until"]) == pytest.approx(settings.fall_back.at, abs=0.01)

        page = browser.page("/change/limit", pool="orders", limit="back")
        assert "End the temporary limit</button>" in page
        assert browser.confirm(page).status_code == 303
        assert deployment.pool_settings() == {"orders": PoolSettings(1)}
        eventually(lambda: "Temporary limit" not in browser.page("/pools/orders"))
    told = [json.loads(line) for line in log.read_text().splitlines()]
    assert [(t["before"], t["after"], t["until"] is None) for t in told] == [
        (1, 3, False),
        (3, 1, True),
    ]


def test_a_pause_until_a_time_is_resumed_by_hand_too(world, deployment):
    if world != "engine":
        return
    with serving(deployment, allow_changes=True) as url:
        browser = Browser(url)
        deployment.set_limit("api", 4)
        page = browser.page("/change/several", do="pause", pool=["orders", "new", "api"])
        assert 'name="until"' in page
        page = browser.page(
            "/change/several", do="pause", pool=["orders", "new", "api"], until="45m"
        )
        assert re.search(r"Pause 3 pools until [\d: -]+</button>", page)
        assert re.search(r"orders: limit 1 becomes 0 until [\d: -]+, then 1\.", page)
        assert browser.confirm(page).headers["location"] == "/"
        found = deployment.pool_settings()
        lasting = {"api": 4, "new": None, "orders": 1}
        assert {pool: s.lasting_limit for pool, s in found.items()} == lasting
        assert {s.limit for s in found.values()} == {0}
        assert len({s.fall_back.at for s in found.values()}) == 1
        page = browser.page("/pools/orders")
        assert re.search(r"Paused: no step starts until [\d: -]+\.", page)

        # The limits before the pause are known, whoever paused the pools.
        page = browser.page("/change/resume", pool="api")
        assert browser.confirm(page).status_code == 303
        page = browser.page("/change/several", do="resume", pool=["orders", "new"])
        assert browser.confirm(page).status_code == 303
        assert deployment.pool_settings() == {"api": PoolSettings(4), "orders": PoolSettings(1)}


@pytest.mark.parametrize("until", ["tomorrow", "2001-01-01 06:00"])
def test_what_is_no_end_of_a_limit_is_the_visitors_mistake(world, deployment, until):
    if world != "engine":
        return
    with serving(deployment, token=TOKEN, allow_changes=True) as url:
        query = {"pool": "orders", "limit": "3", "until": until}
        for answer in (
            httpx.get(f"{url}/change/limit.json", params=query, headers=BEARER, timeout=60),
            httpx.post(f"{url}/change/limit", data=query, headers=BEARER, timeout=60),
        ):
            assert (answer.status_code, answer.json()["error"]["code"]) == (400, "config-invalid")
        query["until"] = "2h"
        done = httpx.post(f"{url}/change/limit", data=query, headers=BEARER, timeout=60)
        assert done.json()["changes"][0]["until"] is not None


def test_what_is_no_choice_of_pools_is_told(world, deployment):
    if world != "stock":
        pytest.skip("It is refused before anything is asked of the deployment.")
    with serving(deployment, allow_changes=True) as url:
        for query, status, text in (
            ({"do": "pause"}, 400, "No pool is chosen."),
            ({"do": "delete", "pool": "orders"}, 400, "Nothing is to be done."),
            ({"do": "pause", "pool": [f"p{n}" for n in range(201)]}, 400, "201 pools are chosen."),
            ({"do": "pause", "pool": "a\tb"}, 400, "is no name of a pool"),
        ):
            answer = httpx.get(f"{url}/change/several.json", params=query)
            assert (answer.status_code, text in answer.text) == (status, True), answer.text
