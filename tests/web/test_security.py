"""Who gets an answer, and what is in it for a browser."""

from __future__ import annotations

import http.client
import json
import logging
import re
from contextlib import suppress
from urllib.parse import urlsplit

import httpx
import pytest
from told import Told, holds, pool
from web_server import TOKEN, serving

from dagster_lifeguard.errors import ConfigError
from dagster_lifeguard.web.errors import RequestRefusedError
from dagster_lifeguard.web.guesses import FREE, PAUSE_MAX, Guesses
from dagster_lifeguard.web.security import BODY_MAX, Access, own_address

HOSTILE = '"><script>alert(1)</script>'


@pytest.fixture(scope="module")
def told() -> Told:
    return Told(states=[pool(HOSTILE, 1, [holds("r", HOSTILE)]), pool("orders", 2)])


@pytest.fixture(scope="module")
def open_url(told):
    with serving(told) as url:
        yield url


@pytest.fixture(scope="module")
def locked_url(told):
    with serving(told, token=TOKEN, names=("pools.example.com",), allow_changes=True) as url:
        yield url


BEARER = {"Authorization": f"Bearer {TOKEN}"}


def asked(url: str, path: str, method: str = "GET", **headers: str) -> tuple[int, dict, str]:
    """What a client gets that says exactly this."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc)
    sent = {key.replace("_", "-"): value for key, value in headers.items()}
    connection.putrequest(method, path, skip_host="Host" in sent)
    for key, value in sent.items():
        connection.putheader(key, value)
    connection.endheaders()
    response = connection.getresponse()
    text = response.read().decode()
    connection.close()
    return response.status, dict(response.getheaders()), text


class TestHost:
    @pytest.mark.parametrize("host", ["127.0.0.1", "localhost:1", "[::1]:80", "LOCALHOST"])
    def test_names_of_this_machine(self, open_url, host):
        assert asked(open_url, "/", Host=host)[0] == 200

    @pytest.mark.parametrize(
        "host",
        ["evil.example", "evil.example:3080", "127.0.0.1.evil.example", "localhost.evil.example",
         "192.168.1.7", "", "localhost@evil.example", "evil.example#127.0.0.1", "[", "a b"],
    )  # fmt: skip
    def test_a_name_that_another_may_have_is_refused(self, open_url, host):
        status, _, text = asked(open_url, "/", Host=host)
        assert status in (400, 403)
        assert "orders" not in text

    def test_beyond_this_machine_numbers_are_fine_and_names_have_to_be_allowed(self):
        access = Access.of("0.0.0.0", 3080, TOKEN, ("pools.example.com",))
        for host in ("10.0.0.7:3080", "[fd00::1]", "pools.example.com", "Pools.Example.com:443"):
            assert access.knows_host(host)
        assert not access.knows_host("example.com")

    def test_beyond_this_machine_a_token_is_needed_and_a_long_one(self):
        with pytest.raises(ConfigError, match="needs a token"):
            Access.of("0.0.0.0", 3080, None)
        with pytest.raises(ConfigError, match="has 5 characters"):
            Access.of("127.0.0.1", 3080, "short")


class TestOrigin:
    @pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://127.0.0.1:1", "["])
    def test_a_page_of_another_site_gets_nothing(self, open_url, origin):
        for path in ("/pools.json", "/live?page=/", "/"):
            assert asked(open_url, path, Origin=origin)[0] == 403

    def test_nothing_of_it_is_embedded_elsewhere_but_a_link_is_followed(self, open_url):
        embedded = {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "no-cors"}
        assert asked(open_url, "/", **embedded)[0] == 403
        link = {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "navigate"}
        status, headers, _ = asked(open_url, "/", **link)
        assert (status, "Set-Cookie" in headers) == (200, False)
        assert asked(open_url, "/logout", "POST", **link)[0] == 403


class TestToken:
    def test_nothing_is_told_without_it(self, locked_url):
        for path in ("/", "/pools.json", "/metrics", "/live?page=/", "/change/limit?pool=orders"):
            answer = httpx.get(locked_url + path, headers={"Accept": "application/json"})
            assert answer.status_code == 401
            assert "orders" not in answer.text
            assert "told" not in answer.text
        page = httpx.get(locked_url + "/pools?x=1")
        assert page.status_code == 303
        assert page.headers["location"] == "/login?next=%2Fpools%3Fx%3D1"
        login = httpx.get(locked_url + page.headers["location"])
        assert login.status_code == 200
        assert "told" not in login.text
        assert httpx.get(locked_url + "/healthz").json() == {"ok": True}

    def test_a_program_sends_it(self, locked_url):
        assert httpx.get(locked_url + "/pools.json", headers=BEARER).status_code == 200
        assert httpx.get(locked_url + "/metrics", headers=BEARER).status_code == 200
        wrong = httpx.get(locked_url + "/pools.json", headers={"Authorization": "Bearer no"})
        assert (wrong.status_code, wrong.json()["error"]["code"]) == (401, "request-refused")

    def test_a_browser_logs_in_once_and_out_again(self, locked_url, caplog):
        caplog.set_level(logging.DEBUG)
        with httpx.Client(base_url=locked_url) as browser:
            wrong = browser.post("/login", data={"token": "x" * 20, "next": "/"})
            assert (wrong.status_code, "not the token" in wrong.text) == (403, True)
            done = browser.post("/login", data={"token": TOKEN, "next": "/pools"})
            assert (done.status_code, done.headers["location"]) == (303, "/pools")
            cookie = done.headers["set-cookie"]
            assert "HttpOnly; SameSite=Strict" in cookie
            assert TOKEN not in cookie
            assert browser.get("/").status_code == 200
            assert browser.post("/logout").status_code == 403  # not from a form of ours
            csrf = re.search(r'name="csrf" value="(\w+)"', browser.get("/change/limit?pool=orders&limit=3").text)[1]  # fmt: skip
            gone = browser.post("/logout", data={"csrf": csrf})
            assert gone.status_code == 303
            assert browser.get("/").status_code == 303
        assert TOKEN not in caplog.text
        assert csrf not in caplog.text

    def test_a_log_out_ends_every_copy_of_the_session(self, locked_url):
        with httpx.Client(base_url=locked_url) as browser:
            browser.post("/login", data={"token": TOKEN})
            copy = dict(browser.cookies)
            page = browser.get("/change/limit?pool=orders&limit=3").text
            csrf = re.search(r'name="csrf" value="(\w+)"', page)[1]
            assert httpx.get(locked_url, cookies=copy).status_code == 200
            with httpx.stream("GET", f"{locked_url}/live", cookies=copy, timeout=60) as open_page:
                lines = open_page.iter_lines()
                next(lines)
                browser.post("/logout", data={"csrf": csrf})
                for _ in lines:
                    pass  # The stream of another window ends too.
            assert httpx.get(locked_url, cookies=copy).status_code == 303
            browser.post("/login", data={"token": TOKEN})
            assert browser.get("/").status_code == 200

    def test_who_shows_many_wrong_tokens_has_to_wait(self, told):
        with (
            serving(told, token=TOKEN) as locked_url,
            httpx.Client(base_url=locked_url) as other,
        ):
            other.post("/login", data={"token": TOKEN})
            statuses = [403]
            while statuses[-1] == 403:  # A slow machine may let a pause go by between two.
                wrong = httpx.post(f"{locked_url}/login", data={"token": "x" * 20})
                statuses.append(wrong.status_code)
            assert statuses[-1] == 429
            assert len(statuses) > FREE
            program = httpx.get(f"{locked_url}/pools.json", headers={"Authorization": "Bearer no"})
            assert program.status_code in (401, 429)
            assert other.get("/").status_code == 200  # Who is logged in stays so.

    def test_a_cookie_of_another_making_is_none(self, locked_url):
        name = f"lifeguard-{urlsplit(locked_url).port}"
        for value in ("", "a.b.c", "a.99999999999." + "0" * 64, "x" * 4000):
            answer = httpx.get(locked_url + "/", headers={"Cookie": f"{name}={value}"})
            assert answer.status_code == 303

    def test_a_login_outlives_a_restart(self, told):
        with serving(told, token=TOKEN) as url, httpx.Client(base_url=url) as browser:
            browser.post("/login", data={"token": TOKEN})
            cookies = dict(browser.cookies)
        port = urlsplit(url).port
        with serving(told, token=TOKEN, port=port) as url:
            assert httpx.get(url, cookies=cookies).status_code == 200
        with serving(told, token=TOKEN + "!", port=port) as url:
            assert httpx.get(url, cookies=cookies).status_code == 303

    @pytest.mark.parametrize(
        "target",
        ["https://evil.example", "//evil.example", "/\\evil.example", "\\\\e", "x", "/\n/e", "//["],
    )
    def test_nobody_is_sent_elsewhere(self, target):
        assert own_address(target) == "/"
        assert own_address("/pools/a?x=1") == "/pools/a?x=1"


def test_wrong_tokens_make_their_address_wait_longer_each_time():
    now = [0.0]
    guesses = Guesses(lambda: now[0])
    for _ in range(FREE):
        guesses.add("a")
    guesses.refuse_hasty("a")
    waited = []
    for _ in range(9):
        guesses.add("a")
        with pytest.raises(RequestRefusedError) as refused:
            guesses.refuse_hasty("a")
        assert refused.value.status == 429
        guesses.refuse_hasty("b")
        before = now[0]
        while True:
            now[0] += 0.5
            with suppress(RequestRefusedError):
                guesses.refuse_hasty("a")
                break
        waited.append(now[0] - before)
    assert waited == [1, 2, 4, 8, 16, 32, PAUSE_MAX, PAUSE_MAX, PAUSE_MAX]
    guesses.forget("a")
    guesses.add("a")
    guesses.refuse_hasty("a")


class TestForms:
    FORM = {"pool": "orders", "limit": "3", "seen": "2"}  # noqa: RUF012

    def test_one_of_another_session_is_refused(self, locked_url):
        with httpx.Client(base_url=locked_url) as one, httpx.Client(base_url=locked_url) as other:
            for browser in (one, other):
                browser.post("/login", data={"token": TOKEN})
            page = other.get("/change/limit?pool=orders&limit=3").text
            csrf = re.search(r'name="csrf" value="(\w+)"', page)[1]
            for form in (self.FORM, {**self.FORM, "csrf": csrf}, {**self.FORM, "csrf": ""}):
                answer = one.post("/change/limit", data=form)
                assert (answer.status_code, "not from this session" in answer.text) == (403, True)

    def test_a_server_that_only_shows_changes_nothing(self, open_url):
        for path in ("/change/limit?pool=orders", "/change/free?subject=orders"):
            assert httpx.get(open_url + path).status_code == 403
            answer = httpx.post(open_url + path, data=self.FORM)
            assert (answer.status_code, "--allow-changes" in answer.text) == (403, True)

    def test_a_request_is_not_longer_than_a_form(self, open_url, locked_url):
        assert httpx.post(open_url + "/logout", content=b"x" * (BODY_MAX + 1)).status_code == 413

        def pieces():
            for _ in range(BODY_MAX // 1000 + 2):
                yield b"a=" + b"x" * 998

        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        assert (
            httpx.post(locked_url + "/login", content=pieces(), headers=headers).status_code == 413
        )
        assert httpx.get(open_url + "/?search=" + "x" * 9000).status_code == 414
        assert httpx.get(open_url + "/?search=" + "x" * 1001).status_code == 414


class TestAnswers:
    def test_each_tells_a_browser_what_to_refuse(self, open_url):
        for path in ("/", "/pools.json", "/nothing", "/healthz", "/metrics"):
            headers = httpx.get(open_url + path).headers
            policy = headers["content-security-policy"]
            assert "default-src 'none'" in policy
            assert "unsafe" not in policy
            assert "frame-ancestors 'none'" in policy
            assert headers["x-content-type-options"] == "nosniff"
            assert headers["referrer-policy"] == "same-origin"
            assert headers["cache-control"] == "no-store"
            assert "server" not in headers

    def test_names_are_escaped(self, open_url):
        page = httpx.get(open_url + "/").text
        assert "&lt;script&gt;alert(1)" in page
        assert "<script>alert" not in page
        assert not re.search(r"\son\w+=|style=|javascript:", page)
        assert HOSTILE in json.dumps(httpx.get(open_url + "/pools.json").json()).replace('\\"', '"')
        for path in (f"/pools/{HOSTILE}", f"/x?next={HOSTILE}", f"/login?next={HOSTILE}"):
            assert "<script>alert" not in httpx.get(open_url + path).text

    def test_errors_have_one_shape(self, open_url):
        found = httpx.get(open_url + "/nothing.json")
        assert found.status_code == 404
        assert found.json()["error"] == {
            "status": 404, "code": "not-found", "message": "Not Found.",
            "remedy": "Begin at the overview.", "names": [],
        }  # fmt: skip
        page = httpx.get(open_url + "/nothing")
        assert (page.status_code, "Not Found." in page.text) == (404, True)
