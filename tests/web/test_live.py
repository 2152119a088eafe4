"""Open pages: what changed is sent, once for all of them, over restarts and trouble."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from urllib.parse import urlsplit

import httpx
from homes import eventually
from told import Told, holds, pool, run
from web_server import serving

from dagster_lifeguard.compat.health import RunQueue
from dagster_lifeguard.errors import DeploymentError


class Changing(Told):
    """Counts how often it is looked at, and may be out of reach."""

    looks = 0
    is_gone = False

    def pools(self, names=None):
        self.looks += 1
        if self.is_gone:
            raise DeploymentError("told cannot be reached.", remedy="Wait.")
        return super().pools(names)


@contextmanager
def stream(url: str, page: str = "/"):
    """What a stream has sent so far of the pools of its page, as blocks and their HTML."""
    got: list[tuple[str, str]] = []
    with httpx.Client(timeout=None) as client, client.stream("GET", f"{url}/live", params={"page": page}) as response:  # fmt: skip
        assert response.headers["content-type"].startswith("text/event-stream")

        def read() -> None:
            event, data = "", []
            try:
                for line in response.iter_lines():
                    key, _, value = line.partition(": ")
                    if key == "event":
                        event = value
                    elif key == "data":
                        data.append(value)
                    elif not line and data:
                        if event in ("live_pools", "live_pool", "live_pause"):
                            got.append((event, "\n".join(data)))
                        event, data = "", []
            except (httpx.HTTPError, httpx.StreamError):
                return

        thread = threading.Thread(target=read, daemon=True)
        thread.start()
        yield got


def pools_in(got) -> list[str]:
    """What was sent of the block that tells all of one pool."""
    return [html for event, html in got if event == "live_pool"]


def test_what_changed_is_sent_to_every_open_page():
    told = Changing(states=[pool("orders", 1)])
    with serving(told) as url, stream(url) as one, stream(url) as other:
        eventually(lambda: one and other)
        assert one[0][0] == "live_pools"
        assert "r1" not in str(one)
        told.states = [pool("orders", 1, [holds("r1")]), pool("news", 7)]
        for got in (one, other):
            eventually(lambda got=got: "news" in got[-1][1])


def test_a_page_that_reads_the_same_is_not_sent_again():
    told = Changing(states=[pool("orders", 1)])
    with serving(told) as url, stream(url, "/pools/orders") as got:
        eventually(lambda: got)
        told.states = [pool("orders", 1), pool("other", 3)]
        with stream(url) as all_pools:
            eventually(lambda: all_pools and "other" in all_pools[-1][1])
        told.states = [pool("orders", 2), pool("other", 3)]
        eventually(lambda: len(pools_in(got)) > 1)
        assert len(pools_in(got)) == 2


def test_many_open_pages_cost_the_looks_of_one():
    told = Changing(states=[pool("orders", 1)])
    with serving(told) as url:
        answers = [httpx.get(f"{url}/pools.json") for _ in range(40)]
        assert {answer.status_code for answer in answers} == {200}
        before = told.looks
        with stream(url) as one, stream(url) as two, stream(url) as three:
            eventually(lambda: one and two and three and told.looks >= before + 4)
            told.states = [pool("orders", 5)]
            eventually(lambda: all("5" in got[-1][1] for got in (one, two, three)))


def test_trouble_is_told_and_is_over_again():
    told = Changing(states=[pool("orders", 1)])
    with serving(told) as url:
        eventually(lambda: httpx.get(f"{url}/healthz").status_code == 200)
        told.is_gone = True
        eventually(lambda: httpx.get(f"{url}/healthz").status_code == 503)
        # On a machine with much to do the first making of a page takes longer than is waited.
        answer = eventually(
            lambda: (a := httpx.get(f"{url}/pools.json").json()).get("trouble") and a
        )
        assert answer["trouble"] == "told cannot be reached."
        assert answer["rows"][0]["pool"]["pool"] == "orders"
        assert "told cannot be reached." in httpx.get(url).text
        told.is_gone = False
        eventually(lambda: httpx.get(f"{url}/healthz").status_code == 200)
        # The page is drawn from what was read last, and that is a moment older.
        eventually(lambda: httpx.get(f"{url}/pools.json").json()["trouble"] is None)


def metrics_with(url: str, sample: str) -> str:
    """The metrics once they have a sample: until the run queue was looked at, they have none."""
    text = httpx.get(f"{url}/metrics").text
    return text if f"\n{sample}{{" in text else ""


def test_runs_in_the_queue_are_told_where_their_pool_is_and_followed():
    def queued(run_id: str, pool: str = "orders"):
        return run(run_id, "QUEUED", pools=frozenset({pool}))

    told = Changing(
        states=[pool("orders", 1, [holds("a")]), pool("other", 1)],
        all_runs=[run("a"), queued("b"), queued("c")],
        told_queue=RunQueue(-1, (), True, 0),
    )
    with serving(told) as url:
        page = eventually(lambda: httpx.get(f"{url}/pools/orders.json").json())
        assert page["queued"]["count"] == 2
        first = page["queued"]["first"][0]
        assert (first["run_id"], first["place"]["blockages"][0]["name"]) == ("b", "orders")
        found = httpx.get(f"{url}/pools.json?show=waiting").json()
        rows, found = found["rows"], found["overview"]
        assert (found["in_queue"], found["queued"], found["waiting"]) == (2, 2, 2)
        told_of = [
            (each["pool"], each["waiting"], each["queued"])
            for each in (row["pool"] for row in rows)
        ]
        assert told_of == [("orders", 2, 2)]
        metrics = eventually(lambda: metrics_with(url, "lifeguard_pool_queued_runs"))
        assert 'lifeguard_pool_queued_runs{pool="orders"} 2.0' in metrics
        with stream(url, "/pools/orders") as one, stream(url, "/pools/other") as other, stream(url) as everything:  # fmt: skip
            eventually(lambda: pools_in(one) and pools_in(other) and "2 queued" in str(everything))
            assert "the pool <a" in str(one)
            before = len(pools_in(other))
            told.all_runs = [*told.all_runs, queued("dddddddd")]
            eventually(lambda: "dddddddd" in str(one) and "3 queued" in str(everything))
            assert len(pools_in(other)) == before  # which it does not concern


def test_one_that_never_answered_is_an_error_in_one_shape():
    told = Changing()
    told.is_gone = True
    with serving(told) as url:
        eventually(lambda: "reached" in httpx.get(f"{url}/pools.json").text)
        answer = httpx.get(f"{url}/pools.json")
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "deployment-refused")
        assert httpx.get(url).headers["refresh"] == "5"  # a person need not ask again


def test_who_comes_before_the_first_look_waits_for_it():
    class Slow(Changing):
        def pools(self, names=None):
            assert asked.wait(60)
            return super().pools(names)

    asked = threading.Event()
    told = Slow(states=[pool("orders", 1)])
    with serving(told) as url, ThreadPoolExecutor() as visitors:
        answer = visitors.submit(httpx.get, f"{url}/pools.json", timeout=60)
        asked.set()
        assert answer.result().status_code == 200


def test_a_page_comes_back_to_a_server_that_was_started_anew():
    told = Changing(states=[pool("orders", 1)])
    with serving(told) as url, stream(url) as got:
        eventually(lambda: got)
    told.states = [pool("later", 1)]
    with serving(told, port=urlsplit(url).port) as again, stream(again) as got:
        eventually(lambda: got and "later" in got[-1][1])


def test_there_is_no_stream_for_what_is_no_page():
    with serving(Changing()) as url:
        assert httpx.get(f"{url}/live", params={"page": "/nothing"}).status_code == 404
        long = {"page": f"/pools/orders?rows={'1' * 5000}"}
        assert httpx.get(f"{url}/live", params=long).status_code == 414
