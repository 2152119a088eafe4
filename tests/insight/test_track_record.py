"""How often the estimated range held: judged by replaying what a ledger and runs tell."""

from __future__ import annotations

from dataclasses import replace

import pytest
from rich.console import Console
from told import NOW, SETTINGS, Told, executed, pool

from dagster_lifeguard.cli.pool_tables import pool_report
from dagster_lifeguard.compat.health import RunQueue
from dagster_lifeguard.deployment.history import RunExecution
from dagster_lifeguard.engine.rules.model import Entry, EntryKind
from dagster_lifeguard.engine.rules.pool_settings import PoolSettings
from dagster_lifeguard.insight.durations import Durations
from dagster_lifeguard.insight.outlook import read_outlook
from dagster_lifeguard.insight.past import read_past_and_record
from dagster_lifeguard.insight.pools import look_into
from dagster_lifeguard.insight.run_queue import Queued
from dagster_lifeguard.insight.simulation.recent_past import launching_share, recent_past
from dagster_lifeguard.insight.simulation.track_record import (
    Judged,
    Rules,
    TrackRecord,
    judge,
    record_of,
)
from dagster_lifeguard.insight.waits import NOBODY
from dagster_lifeguard.insight.wording import record_text

ENGINE = replace(SETTINGS, engine=True)
RULES = Rules({"db": PoolSettings(1)})
WAITED = 5.0


def used(number: int, at: float, waited: float, held: float) -> list[Entry]:
    """A step that asked, waited, held and released, as the ledger tells it."""
    of_step = {"pool": "db", "run_id": f"r{number}", "step_key": "s", "slots": 1, "fence": number}
    granted = at + waited
    return [
        Entry(EntryKind.GRANTED, **of_step, seconds=waited, at=granted),
        Entry(EntryKind.RELEASED, **of_step, seconds=held, at=granted + held),
    ]


def ledger(holds, *, waits=None) -> list[Entry]:
    """Pairs of steps, of which the second asks in the middle of the first one's hold of 10 s.

    Args:
        holds: How long the first of each pair holds.
        waits: How many seconds after it began the second asks.
    """
    entries = []
    for number, held in enumerate(holds):
        begin = NOW + 100.0 * number
        asked = WAITED if waits is None else waits
        entries += used(2 * number + 1, begin, 0.0, held)
        entries += used(2 * number + 2, begin + asked, held - asked, 10.0)
    return sorted(entries, key=lambda entry: entry.at)


def judged(entries, rules=RULES, **more) -> tuple[list[Judged], int]:
    past = recent_past((), ENGINE, NOW, entries)
    return judge(past, rules, {}, **more)


class TestAtAPool:
    def test_what_always_takes_as_long_is_foreseen_exactly(self):
        found, without = judged(ledger([10.0] * 6))
        assert [(one.wait, one.typical, one.holds) for one in found] == [(5.0, 5.0, True)] * 4
        # Before the first two waits fewer than three holds had ended.
        assert without == 2

    def test_what_takes_longer_than_ever_before_is_missed(self):
        found, _ = judged(ledger([10.0] * 5 + [30.0]))
        assert [one.holds for one in found] == [True, True, True, False]
        assert record_of(found, 2, NOW) == TrackRecord(NOW, 4, 3, 2, 0.0)
        assert record_of(found, 2, NOW).share == 0.75

    def test_only_what_was_known_then_counts(self):
        # All later holds take 30 s. The first wait of that kind is estimated by the 10 s before.
        found, _ = judged(ledger([10.0] * 5 + [30.0] * 5))
        late = [one for one in found if one.wait > WAITED]
        assert late[0].latest == WAITED
        assert late[-1].latest == late[-1].wait == 25.0

    def test_who_is_ahead_counts(self):
        entries = ledger([10.0] * 4)
        begin = NOW + 1000.0
        more = used(21, begin, 0.0, 10.0) + used(22, begin + 1.0, 9.0, 10.0)
        more += used(23, begin + 2.0, 18.0, 10.0)
        found, _ = judged([*entries, *sorted(more, key=lambda entry: entry.at)])
        assert [(one.wait, one.typical) for one in found[-2:]] == [(9.0, 9.0), (18.0, 18.0)]

    def test_short_waits_are_not_judged_and_of_many_waits_some(self):
        assert judged(ledger([10.0] * 6, waits=9.5)) == ([], 0)
        found, without = judged(ledger([10.0] * 30), count_max=12)
        assert len(found) + without == 12
        found, without = judged(ledger([10.0] * 30), work=1)
        assert len(found) + without == 10

    def test_only_waits_for_a_pool(self):
        assert judged(ledger([10.0] * 6), pool="other") == ([], 0)
        assert len(judged(ledger([10.0] * 6), pool="db")[0]) == 4

    @pytest.mark.parametrize(
        ("moment", "count"),
        [
            (NOW + 307.0, 3),  # While a step waits: that wait is left out; so is all before.
            (NOW + 350.0, 2),
            (NOW - 10.0, 4),
        ],
    )
    def test_waits_under_other_limits_are_left_out(self, moment, count):
        entries = ledger([10.0] * 6)
        entries.append(Entry(EntryKind.LIMIT, "db", limit=1, at=moment))
        found, without = judged(sorted(entries, key=lambda entry: entry.at))
        assert len(found) + without <= count + 2
        first_after = 2 if moment > NOW else 4
        assert len(found) == first_after

    def test_the_limit_of_then_counts(self):
        entries = ledger([10.0] * 6)
        entries.append(Entry(EntryKind.LIMIT, "db", limit=1, at=NOW - 1.0))
        entries.append(Entry(EntryKind.LIMIT, "db", limit=9, at=NOW + 2000.0))
        found, _ = judged(entries, Rules({"db": PoolSettings(9)}))
        assert [one.typical for one in found] == [WAITED] * 4


def ran(number: int, submitted: float, launched: float, seconds: float, starts=0.0):
    return RunExecution(
        f"r{number}", "job", "SUCCESS", submitted, launched, launched + starts, launched + seconds, ()
    )  # fmt: skip


class TestInTheQueue:
    QUEUE = RunQueue(1, (), heeds_pools=True, buffer=0, interval_seconds=1.0)

    def test_the_wait_of_a_run_is_judged(self):
        # One run at a time, each for 10 s; every second one waits for the one before.
        runs = []
        for pair in range(5):
            begin = NOW + 100.0 * pair
            runs += [
                ran(2 * pair, begin, begin, 10.0),
                ran(2 * pair + 1, begin + 4, begin + 10.5, 10),
            ]
        found, without = judge(recent_past(runs, ENGINE, NOW, ()), Rules({}, self.QUEUE), {})
        assert without == 2
        assert [(one.is_of_run, one.wait) for one in found] == [(True, 6.5)] * 3
        assert all(6.0 <= one.soonest <= one.latest <= 7.0 for one in found)

    def test_a_launcher_that_waits_for_the_start_is_told_by_the_launches(self):
        serial = [ran(n, NOW, NOW + 5.0 * n, 60.0, starts=5.0) for n in range(6)]
        past = recent_past(serial, ENGINE, NOW, ())
        assert launching_share(past.runs) == 1.0
        at_once = [ran(n, NOW, NOW + 1.0 * n, 60.0, starts=5.0) for n in range(6)]
        assert launching_share(recent_past(at_once, ENGINE, NOW, ()).runs) == 0.2
        # A limit that keeps the queue for longer tells nothing.
        assert launching_share(recent_past(serial[:3], ENGINE, NOW, ()).runs) == 0.0


class TestWords:
    RECORD = TrackRecord(NOW, waits=200, held=156, without=3, error=0.2)

    def test_in_words(self):
        assert record_text(self.RECORD) == (
            "of 200 waits of the last week, 78 % started within the estimated range; half of them "
            "within 20 % of its middle"
        )
        assert "too few waits" in record_text(TrackRecord(NOW, 0, 0))

    def test_it_stands_in_the_report_of_a_pool(self):
        state = pool("db", 1)
        past = Durations(NOW, NOW)
        outlook = read_outlook(Told([state]), SETTINGS, [state], past, NOW, ())
        console = Console(width=200, record=True)
        console.print(pool_report(
            look_into(state, NOBODY, {}, past, NOW, outlook), Queued(0, ()), name="x", now=NOW,
            window=0.0, settings=SETTINGS, rows_max=None, record=self.RECORD,
        ))  # fmt: skip
        assert "of 200 waits of the last week, 78 % started" in console.export_text()

    def test_event_logs_tell_it_where_there_is_no_ledger(self):
        told = Told([pool("db", 1)], past=[
            executed(f"x{n}", {"s": "db"}, 10.0, waited=3.0) for n in range(4)
        ])  # fmt: skip
        durations, record = read_past_and_record(told, SETTINGS, NOW - 86400, NOW, "db")
        assert durations.holds["db"].seconds == (10.0,) * 4
        assert record.waits + record.without == 4
