"""How long a process trusts its lease, by its own clock: whatever the database does."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dagster_lifeguard.engine import heartbeat
from dagster_lifeguard.engine.heartbeat import Heartbeat
from dagster_lifeguard.engine.lease import Lease, process_clock

SECONDS = 30.0
PATIENT_SECONDS = 60.0


class TestTheLease:
    def test_it_is_over_before_the_database_says_so(self):
        found = Lease(SECONDS, asked_at=100.0)
        found.ask(110.0)
        assert 100.0 + 0.9 * SECONDS < found.over_at() < 100.0 + SECONDS

    def test_it_counts_from_the_sending_of_a_heartbeat_and_not_from_its_answer(self):
        found = Lease(SECONDS, asked_at=100.0)
        found.ask(110.0)
        found.renew(110.0)  # Answered at 125.0, say.
        found.ask(135.0)
        assert found.over_at() < 110.0 + SECONDS

    def test_a_process_that_was_stopped_asks_once_before_it_gives_up(self):
        found = Lease(SECONDS, asked_at=100.0)
        assert found.over_at() is None
        found.ask(500.0)
        assert found.over_at() == 500.0 + found.answer_seconds
        found.renew(500.0)
        assert found.over_at() is None
        assert found.ends_at > 500.0

    def test_tries_that_fail_do_not_put_off_the_end(self):
        found = Lease(SECONDS, asked_at=100.0)
        for now in (110.0, 111.0, 125.0, 128.0):
            found.ask(now)
        assert found.over_at() < 100.0 + SECONDS

    @given(
        st.floats(0.1, 3600.0),
        st.lists(st.tuples(st.floats(0.0, 1.0), st.floats(0.0, 10.0)), min_size=1, max_size=9),
    )
    def test_it_never_outlasts_what_others_grant(self, seconds, beats):
        """The database counts from the moment that it writes, which is at or after the sending."""
        found = Lease(seconds, asked_at=0.0)
        granted_until, now = seconds, 0.0
        for part, answer_seconds in beats:
            latest = found.ends_at - found.answer_seconds
            if latest < now:
                break  # As a process that was stopped: it may be late.
            asked_at = now + part * (latest - now)
            found.ask(asked_at)
            assert found.over_at() <= granted_until
            now = asked_at + answer_seconds
            found.renew(asked_at)
            granted_until = asked_at + seconds

    def test_its_clock_never_goes_back(self):
        assert process_clock() <= process_clock()


class Clock:
    """A clock that a test sets; it counts how often it was looked at."""

    def __init__(self) -> None:
        self.now = 100.0
        self.looks = 0
        self.looked = threading.Condition()

    def __call__(self) -> float:
        with self.looked:
            self.looks += 1
            self.looked.notify_all()
        return self.now

    def set(self, now: float) -> None:
        """Set it, and wait until it was looked at twice: the first look may have come before."""
        with self.looked:
            self.now = now
            seen = self.looks
            assert self.looked.wait_for(lambda: self.looks >= seen + 2, PATIENT_SECONDS)


class Database:
    """Answers heartbeats when it is told to."""

    def __init__(self) -> None:
        self.sent = threading.Semaphore(0)
        self.answers = threading.Semaphore(0)

    def beat(self) -> bool:
        self.sent.release()
        assert self.answers.acquire(timeout=PATIENT_SECONDS)
        return True


@pytest.fixture
def clock(monkeypatch):
    found = Clock()
    monkeypatch.setattr(heartbeat, "process_clock", found)
    return found


@pytest.fixture
def beating(clock):
    """A heartbeat over a database that is silent until it is told to answer."""
    database, lost = Database(), threading.Event()
    found = Heartbeat(SECONDS, 100.0, database.beat, lost.set, tidy=lambda: None)
    found.start()
    yield database, lost
    found.stop()
    database.answers.release(9)


def test_a_silent_database_cannot_put_off_the_end_of_the_lease(clock, beating):
    database, lost = beating
    clock.set(111.0)
    assert database.sent.acquire(timeout=PATIENT_SECONDS)
    clock.set(100.0 + 0.9 * SECONDS)
    assert not lost.is_set()
    clock.now = 100.0 + SECONDS
    assert lost.wait(PATIENT_SECONDS)
    assert not database.sent.acquire(blocking=False)  # The first one is still under way.


def test_a_late_answer_extends_the_lease_from_its_sending(clock, beating):
    database, lost = beating
    clock.set(111.0)
    assert database.sent.acquire(timeout=PATIENT_SECONDS)
    clock.set(125.0)
    database.answers.release()
    # The next one is due at once, and gets no answer.
    assert database.sent.acquire(timeout=PATIENT_SECONDS)
    clock.set(111.0 + 0.9 * SECONDS)
    assert not lost.is_set()
    clock.now = 111.0 + SECONDS
    assert lost.wait(PATIENT_SECONDS)


def test_a_process_that_was_stopped_beyond_its_lease_lives_on_if_the_database_says_so(
    clock, beating
):
    database, lost = beating
    database.answers.release()
    clock.set(10_000.0)
    assert database.sent.acquire(timeout=PATIENT_SECONDS)
    clock.set(10_011.0)
    assert database.sent.acquire(timeout=PATIENT_SECONDS)
    assert not lost.is_set()


def test_a_process_that_was_stopped_beyond_its_lease_waits_for_the_answer_but_not_for_long(
    clock, beating
):
    database, lost = beating
    clock.set(10_000.0)
    assert database.sent.acquire(timeout=PATIENT_SECONDS)
    assert not lost.is_set()
    clock.now = 10_001.0
    assert lost.wait(PATIENT_SECONDS)


def test_a_slow_answer_leaves_no_time_for_chores(clock):
    """They would take the time in which the answer to the next heartbeat must come."""
    database, chores = Database(), threading.Semaphore(0)
    found = Heartbeat(SECONDS, 100.0, database.beat, lambda: None, chores.release)
    found.start()
    clock.set(111.0)
    assert database.sent.acquire(timeout=PATIENT_SECONDS)
    clock.set(118.0)
    database.answers.release()
    clock.set(121.5)
    assert database.sent.acquire(timeout=PATIENT_SECONDS)
    assert not chores.acquire(blocking=False)
    database.answers.release()
    assert chores.acquire(timeout=PATIENT_SECONDS)
    found.stop()


def test_a_chore_that_fails_ends_no_heartbeat(caplog):
    beats, lost, enough = [], [], threading.Event()

    def beat():
        beats.append(1)
        if len(beats) > 2:
            enough.set()
        return True

    def tidy():
        raise ValueError("a bug")

    found = Heartbeat(6.0, process_clock(), beat, lambda: lost.append(1), tidy)
    found.start()
    assert enough.wait(PATIENT_SECONDS)
    found.stop()
    assert lost == []
    assert "a bug" in caplog.text
