"""Behind a proxy with TLS: logging in, forms, streams and restarts, in a real browser."""

from __future__ import annotations

import json
import re

import httpx
import pytest
from homes import limit
from playwright.sync_api import expect
from tls_proxy import VISITOR, tls_before
from told import Told
from web_server import TOKEN, serving, start_serving

NAME = "pools.localhost"  # which browsers take for this machine without asking anybody


def test_a_page_works_behind_a_proxy_with_tls(make_home, browser, tmp_path):
    home = make_home("sqlite")
    limit(home)
    log = tmp_path / "changes.jsonl"
    options = ("--allow-changes", "--allow-host", NAME, "--change-log", str(log))
    server, inner = start_serving(home, *options, LIFEGUARD_WEB_TOKEN=TOKEN)
    context = browser.new_context(ignore_https_errors=True)
    page = context.new_page()
    with tls_before(inner, NAME, tmp_path) as url:
        page.goto(f"{url}/pools/orders")
        expect(page.get_by_role("heading", level=1)).to_have_text("Log in")
        page.get_by_label("Access token").fill(TOKEN)
        page.get_by_role("button", name="Log in").click()
        expect(page).to_have_url(f"{url}/pools/orders")
        (cookie,) = context.cookies()
        assert (cookie["secure"], cookie["httpOnly"], cookie["sameSite"]) == (True, True, "Strict")

        expect(page.locator("#live")).to_have_text("live")
        limit(home, 7)
        expect(page.locator(".stats")).to_contain_text("of 7")

        page.get_by_role("spinbutton", name="Limit").fill("3")
        page.get_by_role("button", name="Change", exact=True).click()
        page.get_by_role("button", name="Set the limit to 3").click()
        expect(page.locator(".stats")).to_contain_text("of 3")
        (told,) = map(json.loads, log.read_text().splitlines())
        assert re.fullmatch(rf"{re.escape(VISITOR)} \(session \w{{6}}\)", told["who"])

        # While the server is gone the proxy answers that it is: the page comes back all the same.
        expect(page.locator("#live")).to_have_text("live")
        server.end()
        expect(page.locator("#live")).to_have_text("reconnecting")
        limit(home, 9)
        port = inner.rsplit(":", 1)[1]
        start_serving(home, *options, "--port", port, LIFEGUARD_WEB_TOKEN=TOKEN)
        expect(page.locator(".stats")).to_contain_text("of 9")

        _refuses_strangers(url)
        context.close()


def _refuses_strangers(url: str) -> None:
    port = url.rsplit(":", 1)[1]
    bearer = {"Authorization": f"Bearer {TOKEN}"}
    with httpx.Client(base_url=f"https://127.0.0.1:{port}", verify=False, headers=bearer) as client:
        own = {"Host": f"{NAME}:{port}"}
        for headers, status in (
            (own, 200),
            ({**own, "Origin": url}, 200),
            ({**own, "Origin": f"http://{NAME}:{port}"}, 403),  # somebody on the way, without TLS
            ({**own, "Origin": "https://evil.example"}, 403),
            ({"Host": f"evil.example:{port}"}, 403),
        ):
            assert client.get("/pools.json", headers=headers).status_code == status, headers


@pytest.mark.parametrize(("believed", "is_secure"), [("192.0.2.1", False), (None, True)])
def test_only_a_proxy_on_this_machine_is_believed_or_one_that_is_named(
    monkeypatch, believed, is_secure
):
    monkeypatch.delenv("FORWARDED_ALLOW_IPS", raising=False)
    if believed:
        monkeypatch.setenv("FORWARDED_ALLOW_IPS", believed)
    with serving(Told()) as url:
        answer = httpx.get(f"{url}/nothing", headers={"X-Forwarded-Proto": "https"})
        assert ("; Secure" in answer.headers["set-cookie"]) is is_secure
