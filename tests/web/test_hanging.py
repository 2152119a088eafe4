"""A deployment that hangs: what asks it nothing is answered all the same."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import httpx
from homes import eventually
from told import Told, holds, pool
from web_server import serving


class Hanging(Told):
    """Answers until it is told to hang; then every question waits."""

    def __init__(self, *args, **more) -> None:
        super().__init__(*args, **more)
        self.may_answer = threading.Event()
        self.may_answer.set()
        self.hanging = 0

    def _wait(self) -> None:
        self.hanging += 1
        self.may_answer.wait(120)
        self.hanging -= 1

    def pools(self, names=None):
        self._wait()
        return super().pools(names)

    def settings(self):
        self._wait()
        return super().settings()

    def unfinished_runs(self, *statuses):
        self._wait()
        return super().unfinished_runs(*statuses)


def test_what_is_kept_is_shown_while_the_deployment_hangs():
    told = Hanging(states=[pool("orders", 1, [holds("r")])])
    with serving(told, allow_changes=True) as url, ThreadPoolExecutor(20) as people:
        queued = 'lifeguard_pool_queued_runs{pool="orders"}'
        eventually(lambda: queued in httpx.get(f"{url}/metrics", timeout=60).text)
        told.may_answer.clear()
        asked = [
            people.submit(httpx.get, f"{url}/change/free.json?subject=orders", timeout=120)
            for _ in range(20)
        ]
        try:
            # As many as may, and the reader that looks.
            eventually(lambda: told.hanging >= 5)
            assert httpx.get(f"{url}/metrics", timeout=60).status_code == 200
            assert httpx.get(f"{url}/pools.json", timeout=60).status_code == 200
        finally:
            told.may_answer.set()
        assert {answer.result().status_code for answer in asked} == {200}
