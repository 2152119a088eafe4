"""SQLite files on a disk that is full: nothing is granted, nothing is lost, and it goes on after.

Each test is a job in a process for which a small file system is mounted where the storage keeps
its files; what the processes say goes elsewhere.
"""

from __future__ import annotations

import errno
import sqlite3
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from homes import Home, eventually
from private_mounts import tiny, under

from dagster_lifeguard.errors import StoreUnavailableError

if TYPE_CHECKING:
    from collections.abc import Iterator

MEGABYTES = 16
LEASE_SECONDS = 3.0


def emptied(connection: sqlite3.Connection) -> bool:
    """Whether the log was written back and cut; else there is room in it to write over."""
    (busy, _, _) = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    return not busy


@contextmanager
def full_disk(home: Home) -> Iterator[None]:
    """Fill the storage's disk to the last byte, the room that is left in SQLite's logs included."""
    for path in (home.path / "history" / "runs").glob("*.db"):
        with closing(sqlite3.connect(path)) as connection:
            # Not done, and no error, while another process is at work in it.
            eventually(lambda c=connection: emptied(c))
    filler = home.path / "history" / "filler"
    with filler.open("wb", buffering=0) as stream:
        for size in (1 << 16, 1):
            try:
                while stream.write(b"0" * size):
                    pass
            except OSError as error:
                assert error.errno == errno.ENOSPC  # noqa: PT017 - what the loop is for
    try:
        yield
    finally:
        filler.unlink()


@contextmanager
def tiny_home(path: Path) -> Iterator[tuple[Home, object]]:
    """A home, and its storage, with a limit of 1."""
    home = Home(path, "sqlite", {"sqlite": {"base_dir": str(path)}}, LEASE_SECONDS)
    home.write()
    try:
        with home.instance() as instance:
            log = instance.event_log_storage
            log.set_concurrency_slots("orders", 1)
            yield home, log
            with closing(sqlite3.connect(log.path_for_shard("index"))) as connection:
                assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    finally:
        home.close()


def claimed(log, run_id: str) -> bool:
    return log.claim_concurrency_slot("orders", run_id, "step").is_claimed


def is_blocked(log, run_id: str) -> bool:
    entries = log.get_logs_for_run(run_id)
    return any("blocked by" in (e.dagster_event.message or "") for e in entries)


def holders(log) -> list[str]:
    return [slot.run_id for slot in log.get_concurrency_info("orders").claimed_slots]


def claim(path: Path) -> StoreUnavailableError:
    with tiny_home(path) as (home, log):
        with full_disk(home), pytest.raises(StoreUnavailableError) as told:
            claimed(log, "a")
        assert holders(log) == []
        assert claimed(log, "a")
        return told.value


def release(path: Path) -> StoreUnavailableError:
    with tiny_home(path) as (home, log):
        assert claimed(log, "a")
        assert not claimed(log, "b")
        with full_disk(home):
            with pytest.raises(StoreUnavailableError) as told:
                log.free_concurrency_slot_for_step("a", "step")
            assert holders(log) == ["a"]
            assert not claimed(log, "b")  # It waits on: that writes nothing.
        # This process lives on, and its lease with it: it gives back what it could not.
        eventually(lambda: claimed(log, "b"), 30)
        kinds = [(e.kind.value, e.run_id) for e in log.lifeguard.engine.store.ledger() if e.run_id]
        assert kinds == [("granted", "b"), ("released", "a"), ("granted", "a")]
        return told.value


def wait_in_a_run(path: Path) -> str:
    with tiny_home(path) as (home, log):
        assert claimed(log, "a")
        process = home.materialize("held")
        (ticket,) = eventually(lambda: log.lifeguard.engine.snapshot("orders").waiting)
        # Dagster has written what it writes before a step waits: else that is what fails.
        eventually(lambda: is_blocked(log, ticket.key.run_id))
        with full_disk(home):
            # It waits for as long as its lease is good, and then can get no other.
            assert process.wait() != 0
            # So does this process, which would hold on if there were room in time.
            eventually(lambda: log.lifeguard.engine.session is None)
        assert list(home.control.glob("held.*")) == []
        home.go()
        # What the two processes held and waited for is free when their leases have run out.
        after = home.materialize("held")
        assert after.wait() == 0, after.output()
        assert holders(log) == []
        return process.output()


def on_a_tiny_disk(job, path: Path):
    (path / "history").mkdir()
    return under(tiny(path / "history", MEGABYTES), job, path)


def test_a_run_that_waits_on_a_full_disk_fails_and_executes_no_step(tmp_path):
    output = on_a_tiny_disk(wait_in_a_run, tmp_path)

    # Dagster loses the error, for it cannot write either; the process says it all the same.
    lines = [line for line in output.splitlines() if " gets no slot: " in line]
    assert len(lines) == 1, output
    (line,) = lines
    assert "index.db: database or disk is full" in line
    assert line.endswith("its disk is not full; nothing was granted.")


@pytest.mark.parametrize("job", [claim, release], ids=lambda job: job.__name__)
def test_a_full_disk_is_a_clear_error_and_passes(tmp_path, job):
    told = on_a_tiny_disk(job, tmp_path)

    assert "index.db: " in told.message
    assert "full" in told.message
    assert "its disk is not full; nothing was granted" in told.remedy
