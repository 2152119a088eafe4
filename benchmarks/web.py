"""What the web page costs: 50 open pages on 1,000 pools with 10 changes a second.

A real instance on SQLite with the engine, `lifeguard serve` as its own process, another process
that claims and frees slots, and here the browsers: each has one stream open, and pages are asked
for meanwhile. Every second a pool takes another's place, and the time until an open page shows it
is taken.
"""

from __future__ import annotations

import asyncio
import itertools
import multiprocessing
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg
import httpx

from dagster_lifeguard.insight.durations import quantile
from measures import Measure

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

CHANGES_PER_SECOND = 10
PAGES_PER_SECOND = 5
HOLDERS = 100
GOAL_SECONDS = 3.0
GOAL_MB = 300
STANZA = """
telemetry: {{enabled: false}}
storage:
  custom:
    module: dagster_lifeguard.storage
    class: LifeguardSqliteStorage
    config: {{base_dir: {home}}}
"""


def measures(*, full: bool) -> Iterator[Measure]:
    """The page; in full at 1,000 pools for a minute, and at 10,000."""
    for pools, pages, seconds in ((1000, 50, 60), (10_000, 50, 60)) if full else ((200, 20, 10),):
        yield from _at(pools, pages, seconds)


def _at(pools: int, pages: int, seconds: int) -> list[Measure]:
    with tempfile.TemporaryDirectory(prefix="lifeguard-bench-web-") as home:
        os.environ.update(DAGSTER_HOME=home, DAGSTER_DISABLE_TELEMETRY="1")
        Path(home, "dagster.yaml").write_text(STANZA.format(home=home))
        with dg.DagsterInstance.get() as instance:
            for number in range(pools):
                instance.event_log_storage.set_concurrency_slots(_pool(number), 2)
        with Path(home, "serve.log").open("w+b") as log:
            server = subprocess.Popen(
                [sys.executable, "-m", "dagster_lifeguard", "serve", "--port", "0"],
                stderr=log,
                env=os.environ | {"PYTHONWARNINGS": "ignore"},
            )
            changer = multiprocessing.get_context("spawn").Process(
                target=_change, args=(pools,), daemon=True
            )
            changer.start()
            try:
                url = _address(server, Path(home, "serve.log"))
                return asyncio.run(_measure(url, pools, pages, seconds))
            finally:
                changer.terminate()
                server.terminate()
                server.wait()


def _pool(number: int) -> str:
    return f"team{number % 10}/pool{number:05}"


def _change(pools: int) -> None:
    """Claim and free slots, so many a second, until terminated."""
    held: list[tuple[str, str]] = []
    with dg.DagsterInstance.get() as instance:
        log = instance.event_log_storage
        begun = time.monotonic()
        number = 0
        while True:
            number += 1
            if len(held) >= HOLDERS:
                log.free_concurrency_slot_for_step(*held.pop(0))
            else:
                run_id = f"run{number:09}"
                log.claim_concurrency_slot(_pool(number * 7 % pools), run_id, "step")
                held.append((run_id, "step"))
            time.sleep(max(0.0, begun + number / CHANGES_PER_SECOND - time.monotonic()))


def _address(server: subprocess.Popen[bytes], log: Path) -> str:
    while server.poll() is None:
        found = re.search(r"on (http://\S+)/", log.read_text())
        if found:
            with suppress(httpx.TransportError):
                if httpx.get(f"{found[1]}/healthz").status_code == httpx.codes.OK:
                    return found[1]
        time.sleep(0.1)
    sys.exit(log.read_text())


async def _measure(url: str, pools: int, pages: int, seconds: int) -> list[Measure]:
    addresses = ["/", "/?search=mark-", *(f"/?search=team{n}" for n in range(3))]
    addresses += [f"/pools/{_pool(n)}" for n in range(pages - len(addresses))]
    opened = [addresses[n % len(addresses)] for n in range(pages)]
    limits = httpx.Limits(max_connections=None)
    marks: dict[str, float] = {}
    seen: dict[str, float] = {}
    counts = [0] * pages
    async with httpx.AsyncClient(base_url=url, timeout=None, limits=limits) as client:
        streams = [
            asyncio.create_task(_follow(client, page, n, counts, marks, seen))
            for n, page in enumerate(opened)
        ]
        await asyncio.sleep(5)  # all are open, and the server is warm
        (cpu, memory), began = await _used(client), time.monotonic()
        memories = [memory]
        marker = asyncio.create_task(_mark(marks))
        times, metrics = [], []
        number = 0
        while time.monotonic() - began < seconds:
            number += 1
            asked = time.monotonic()
            answer = await client.get(addresses[number % len(addresses)])
            answer.raise_for_status()
            times.append(time.monotonic() - asked)
            if number % PAGES_PER_SECOND == 0:
                asked = time.monotonic()
                memories.append((await _used(client))[1])
                metrics.append(time.monotonic() - asked)
            await asyncio.sleep(max(0.0, began + number / PAGES_PER_SECOND - time.monotonic()))
        took = time.monotonic() - began
        share = ((await _used(client))[0] - cpu) / took
        for task in (marker, *streams):
            task.cancel()
        await asyncio.gather(marker, *streams, return_exceptions=True)
    shown = [seen[mark] - marks[mark] for mark in seen]
    name = f"Page of {pools:,} pools, {pages} open, {CHANGES_PER_SECOND} changes/s"
    quarter = max(1, len(memories) // 4)
    seen_percent = 100 * len(shown) / max(1, len(marks))
    first, last = (statistics.median(of) / 1e6 for of in (memories[:quarter], memories[-quarter:]))
    return [
        *_spread(f"{name}: a page", times),
        *_spread(f"{name}: /metrics", metrics),
        *_spread(f"{name}: a change is shown", shown),
        Measure(f"{name}: changes shown", seen_percent, "%", better="higher"),
        Measure(f"{name}: events sent", sum(counts), "", better="higher"),
        Measure(f"{name}: server's share of a core", 100 * share, "%"),
        Measure(f"{name}: server's memory, first quarter", first, "MB", None, GOAL_MB),
        Measure(f"{name}: server's memory, last quarter", last, "MB", None, GOAL_MB),
    ]


async def _follow(
    client: httpx.AsyncClient,
    page: str,
    number: int,
    counts: list[int],
    marks: dict[str, float],
    seen: dict[str, float],
) -> None:
    async with client.stream("GET", "/live", params={"page": page}) as response:
        async for line in response.aiter_lines():
            if line.startswith("event:"):
                counts[number] += 1
            elif "mark-" in page:
                for mark in re.findall(r"mark-\d+", line):
                    if mark in marks:
                        seen.setdefault(mark, time.monotonic())


async def _mark(marks: dict[str, float]) -> None:
    """Every second, add a pool and delete the one before, so that a page has room for it."""
    with dg.DagsterInstance.get() as instance:
        log = instance.event_log_storage
        for number in itertools.count():
            await asyncio.to_thread(log.set_concurrency_slots, f"mark-{number}", 1)
            marks[f"mark-{number}"] = time.monotonic()
            await asyncio.sleep(1)
            await asyncio.to_thread(log.delete_concurrency_limit, f"mark-{number}")


async def _used(client: httpx.AsyncClient) -> tuple[float, float]:
    """The server's processor seconds and bytes of memory, as its own metrics tell."""
    text = (await client.get("/metrics")).text
    found = dict(
        re.findall(r"^process_(cpu_seconds_total|resident_memory_bytes) (\S+)$", text, re.MULTILINE)
    )
    return float(found["cpu_seconds_total"]), float(found["resident_memory_bytes"])


def _spread(name: str, seconds: Sequence[float]) -> Iterator[Measure]:
    ordered = sorted(seconds)
    for text, rank, goal in (("p50", 0.5, None), ("p95", 0.95, GOAL_SECONDS * 1000)):
        if ordered:  # A busy machine may show no change in time.
            yield Measure(f"{name}, {text}", 1000 * quantile(ordered, rank), "ms", None, goal)
