"""Slots inside a step, on every store: given, waited for, withdrawn, and never given back twice."""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from dagster_lifeguard.engine.rules.model import Demand, TicketKey
from dagster_lifeguard.engine.rules.rate import Rate
from dagster_lifeguard.errors import (
    ConfigError,
    DeadlockError,
    SlotsTimeoutError,
    StoreUnavailableError,
)

STEP = TicketKey("run", "step")


def until(condition):
    while not condition():
        time.sleep(0.005)


def waiting(process, pool: str = "p") -> list[TicketKey]:
    return [ticket.key for ticket in process.engine.snapshot(pool).waiting]


def held(process, pool: str = "p") -> list[TicketKey]:
    return [holding.key for holding in process.engine.snapshot(pool).holdings]


class Sleeper(threading.Thread):
    """Holds slots in a thread until it is told to go."""

    def __init__(self, slots) -> None:
        super().__init__()
        self.slots = slots
        self.inside, self.go = threading.Event(), threading.Event()
        self.error = None
        self.start()

    def run(self) -> None:
        try:
            with self.slots:
                self.inside.set()
                self.go.wait()
        except Exception as error:  # noqa: BLE001
            self.error = error


class TestThreads:
    def test_slots_are_held_for_the_length_of_the_block(self, process):
        one = process()
        one.engine.change_pool("p", limit=3)
        with one.slots(STEP, p=2) as found:
            (holding,) = one.engine.snapshot("p").holdings
            assert holding.key == found.key
            assert holding.fence == found.fence
            assert len(holding.slots["p"]) == 2
            assert found.key.step == STEP
        assert held(one) == []

    def test_they_are_given_back_when_the_block_fails(self, process):
        one = process()
        one.engine.change_pool("p", limit=1)
        with pytest.raises(ZeroDivisionError), one.slots(STEP, p=1):
            raise ZeroDivisionError
        assert held(one) == []

    def test_who_waits_is_woken_by_who_gives_back(self, process):
        one, other = process(), process()
        one.engine.change_pool("p", limit=1)
        with one.slots(STEP, p=1):
            sleeper = Sleeper(other.slots(TicketKey("other", "step"), p=1))
            until(lambda: waiting(one))
            assert not sleeper.inside.is_set()
        assert sleeper.inside.wait(60)
        sleeper.go.set()
        sleeper.join()
        assert sleeper.error is None
        assert held(one) == []

    @pytest.mark.parametrize("timeout", [0, 0.05])
    def test_a_timeout_says_why_and_withdraws(self, process, timeout):
        one, other = process(), process()
        pool = {"p%20q": 1}  # shown as it is in a rule's value
        one.engine.change_pool("p%20q", limit=1)
        with one.slots(STEP, **pool):
            with (
                pytest.raises(
                    SlotsTimeoutError, match=r"^p q was not free within .* p q is full, 0 ahead"
                ),
                other.slots(TicketKey("other", "step"), timeout, **pool),
            ):
                pass
            assert waiting(one, "p%20q") == []

    @pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
    def test_an_interruption_withdraws(self, process, error, monkeypatch):
        one, other = process(), process()
        one.engine.change_pool("p", limit=1)
        wait = one.engine.wait
        seen = []

        def interrupted(*arguments):
            if waiting(one):
                seen.append(waiting(one))
                raise error
            return wait(*arguments)

        with other.slots(TicketKey("other", "step"), p=1):
            monkeypatch.setattr(one.engine, "wait", interrupted)
            with pytest.raises(error), one.slots(STEP, p=1):
                pass
            assert len(seen) == 1
            assert waiting(one) == []

    def test_an_interruption_after_the_grant_gives_back(self, process, monkeypatch):
        one = process()
        one.engine.change_pool("p", limit=1)

        def interrupted(*arguments):
            raise KeyboardInterrupt

        monkeypatch.setattr(one.parts.steps, "started", interrupted)
        with pytest.raises(KeyboardInterrupt), one.slots(STEP, p=1):
            pass
        assert held(one) == []

    def test_all_pools_or_none(self, process):
        one, other = process(), process()
        for pool in "pq":
            one.engine.change_pool(pool, limit=1)
        with one.slots(STEP, p=1):
            with (
                pytest.raises(SlotsTimeoutError),
                other.slots(TicketKey("other", "step"), 0, p=1, q=1),
            ):
                pass
            assert held(one, "q") == []

    def test_a_higher_priority_goes_first(self, process):
        one = process()
        one.engine.change_pool("p", limit=1)
        with one.slots(STEP, p=1):
            low = Sleeper(one.slots(TicketKey("low", "step"), p=1))
            until(lambda: len(waiting(one)) == 1)
            high = Sleeper(one.slots(TicketKey("high", "step"), priority=1, p=1))
            until(lambda: len(waiting(one)) == 2)
        assert high.inside.wait(60)
        assert not low.inside.is_set()
        for sleeper in (high, low):
            sleeper.go.set()
            sleeper.join()

    def test_an_unlimited_pool_gives_at_once_and_has_no_fence(self, process):
        one = process()
        with one.slots(STEP, p=1) as found:
            assert found.fence == 0
            assert held(one) == []

    def test_a_template_is_no_name(self, process):
        with pytest.raises(ConfigError, match="which nothing fills in here"):
            process().desk.asking.demand("orders[{partition}]", 1)

    def test_several_slots_of_each_pool_of_an_expression(self, process):
        assert process().desk.asking.demand("b*2+a", 3) == Demand.of({"a": 3, "b": 6})

    @pytest.mark.parametrize("name", ["a+b", "a*2", "a**b", "x[{partition}]", "{hold:step}a"])
    @pytest.mark.parametrize("by", ["limit", "rate"])
    def test_a_pool_with_something_of_its_own_is_a_name_first(self, process, name, by):
        one = process()
        if by == "limit":
            one.engine.change_pool(name, limit=1)
        else:
            one.engine.change_pool(name, rate=Rate.parse("5/second"))
        assert one.desk.asking.demand(name, 2) == Demand.of({name: 2})

    @pytest.mark.parametrize("text", ["a**b", "a{b", "{hold:step}a+b"])
    def test_what_is_neither_pool_nor_expression_is_an_error(self, process, text):
        with pytest.raises(ConfigError, match=r"is not a (pool expression|template)"):
            process().desk.asking.demand(text, 1)

    def test_the_name_says_what_they_are_inside_of(self, process):
        one = process()
        one.engine.change_pool("p", limit=9)
        with one.slots(STEP, p=1) as outer:
            with one.slots(STEP, p=1) as inner:
                assert inner.key.around == (STEP, outer.key)
            with one.slots(TicketKey("other", "step"), p=1) as foreign:
                assert foreign.key.around == (TicketKey("other", "step"),)
            with one.slots(STEP, p=1) as again:
                assert again.key.around == (STEP, outer.key)
        with one.slots(STEP, p=1) as after:
            assert after.key.around == (STEP,)

    def test_for_one_use(self, process):
        one = process()
        slots = one.slots(STEP, p=1)
        with slots:
            pass
        with pytest.raises(ConfigError, match="were used before"), slots:
            pass

    def test_the_run_gives_them_back_too(self, process):
        one = process()
        one.engine.change_pool("p", limit=1)
        with one.slots(STEP, p=1):
            one.engine.release_run("run")
            assert held(one) == []
            with process().slots(TicketKey("other", "step"), p=1):
                pass

    def test_whoever_loses_them_is_interrupted_once(self, process):
        one = process()
        one.engine.change_pool("p", limit=9)
        step = one.step("run", p=1)
        with one.slots(step, p=1) as found:
            session = one.engine.session
            one.engine.leave()
            assert session is not None
            one.engine.release_run("run")
            one.parts.steps.lost((step, found.key))
            until(lambda: one.parts.ended)
        one.parts.steps.ended(step)
        assert one.parts.ended == ["interrupted"]


class TestCoroutines:
    def test_slots_are_held_for_the_length_of_the_block(self, process):
        one = process()
        one.engine.change_pool("p", limit=2)

        async def work() -> None:
            async with one.slots(STEP, p=2) as found:
                assert held(one) == [found.key]

        asyncio.run(work())
        assert held(one) == []

    def test_a_database_that_fails_while_many_wait_does_not_leave_them(self, process, monkeypatch):
        """The thread that watches for them asks on: who waits is told by its own claim."""
        one, other = process(look_again_seconds=0.05), process()
        one.engine.change_pool("p", limit=1)
        holder = other.step("other", p=1)
        wait, failures = one.desk.asking.wait, []

        def fails_at_first(*arguments):
            if len(failures) < 2:
                failures.append(arguments)
                raise StoreUnavailableError("away", remedy="none")
            if len(failures) == 2:
                failures.append(arguments)
                other.end(holder)
            return wait(*arguments)

        monkeypatch.setattr(one.desk.asking, "wait", fails_at_first)

        async def work() -> None:
            async with one.slots(STEP, p=1) as found:
                assert held(one) == [found.key]

        asyncio.run(asyncio.wait_for(work(), 60))
        assert len(failures) == 3

    def test_many_tasks_share_a_few_slots_and_the_loop_goes_on(self, process):
        one = process()
        one.engine.change_pool("p", limit=3)
        inside, most, ticks = 0, 0, 0
        full = asyncio.Event()

        async def task() -> None:
            nonlocal inside, most
            async with one.slots(STEP, p=1):
                inside += 1
                most = max(most, inside)
                if inside == 3:
                    full.set()
                await full.wait()
                before = ticks
                # The loop is not blocked by those who wait.
                while ticks < before + 3:  # noqa: ASYNC110
                    await asyncio.sleep(0)
                inside -= 1

        async def tick() -> None:
            nonlocal ticks
            while True:
                ticks += 1
                await asyncio.sleep(0)

        async def work() -> None:
            ticking = asyncio.create_task(tick())
            await asyncio.gather(*(task() for _ in range(12)))
            ticking.cancel()

        asyncio.run(work())
        assert most == 3
        assert held(one) == waiting(one) == []

    def test_a_task_waits_for_another_process(self, process):
        one, other = process(), process()
        one.engine.change_pool("p", limit=1)
        sleeper = Sleeper(other.slots(TicketKey("other", "step"), p=1))
        assert sleeper.inside.wait(60)

        async def work() -> None:
            async with one.slots(STEP, p=1):
                pass

        with ThreadPoolExecutor(1) as pool:
            done = pool.submit(asyncio.run, work())
            until(lambda: waiting(other))
            sleeper.go.set()
            done.result()
        sleeper.join()

    def test_a_cancelled_task_withdraws(self, process):
        one, other = process(), process()
        one.engine.change_pool("p", limit=1)

        async def wait_in_line() -> None:
            async with one.slots(STEP, p=1):
                raise AssertionError("let in")

        async def work() -> None:
            task = asyncio.create_task(wait_in_line())
            while not waiting(other):  # noqa: ASYNC110
                await asyncio.sleep(0.005)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert waiting(other) == []

        with other.slots(TicketKey("other", "step"), p=1):
            asyncio.run(work())

    def test_a_timeout_withdraws(self, process):
        one, other = process(), process()
        one.engine.change_pool("p", limit=1)

        async def work() -> None:
            async with one.slots(STEP, 0.05, p=1):
                pass

        with other.slots(TicketKey("other", "step"), p=1):
            with pytest.raises(SlotsTimeoutError):
                asyncio.run(work())
            assert waiting(other) == []

    def test_slots_around_are_known_to_the_tasks_inside(self, process):
        one = process()
        one.engine.change_pool("p", limit=9)

        async def task() -> tuple[TicketKey, ...]:
            async with one.slots(STEP, p=1) as found:
                return found.key.around

        async def work() -> list[tuple[TicketKey, ...]]:
            return await asyncio.gather(task(), task())

        with one.slots(STEP, p=1) as outer:
            assert asyncio.run(work()) == [(STEP, outer.key)] * 2


class TestDeadlocks:
    def test_the_youngest_of_two_gives_up_and_the_other_goes_on(self, process):
        one, other = process(), process()
        for pool in "pq":
            one.engine.change_pool(pool, limit=1)
        first, second = one.step("first", p=1), other.step("second", q=1)
        sleeper = Sleeper(one.slots(first, q=1))
        until(lambda: waiting(one, "q"))
        with pytest.raises(DeadlockError) as caught, other.slots(second, p=1):
            pass
        assert caught.value.names == ("p", "q")
        assert "(run second) waits for p; step[slots:" in caught.value.message
        assert (
            "(run first) waits for q. The first, which is the youngest, gave up."
            in caught.value.message
        )
        assert waiting(one, "p") == []
        other.end(second)  # As its step fails with this error.
        assert sleeper.inside.wait(60)
        sleeper.go.set()
        sleeper.join()
        assert sleeper.error is None

    def test_a_ring_of_four_whose_last_link_is_a_coroutine(self, process):
        processes = [process() for _ in range(4)]
        pools = "pqrs"
        for pool in pools:
            processes[0].engine.change_pool(pool, limit=1)
        steps = [one.step(pool, **{pool: 1}) for one, pool in zip(processes, pools, strict=True)]
        sleepers = []
        for number in range(3):
            wanted = pools[number + 1]
            sleepers.append(Sleeper(processes[number].slots(steps[number], **{wanted: 1})))
            until(lambda wanted=wanted: waiting(processes[0], wanted))

        async def close() -> None:
            async with processes[3].slots(steps[3], p=1):
                pass

        with pytest.raises(DeadlockError) as caught:
            asyncio.run(close())
        assert caught.value.names == ("p", "q", "r", "s")
        assert waiting(processes[0], "p") == []
        processes[3].end(steps[3])
        for sleeper, one, step in reversed(list(zip(sleepers, processes, steps, strict=False))):
            assert sleeper.inside.wait(60)
            sleeper.go.set()
            sleeper.join()
            assert sleeper.error is None
            one.end(step)

    def test_one_step_that_waits_for_its_own_pool(self, process):
        one = process()
        pool = {"p%20q": 1}
        one.engine.change_pool("p%20q", limit=1)
        step = one.step("run", **pool)
        with (
            pytest.raises(DeadlockError, match="waits for slots of p q that it holds itself"),
            one.slots(step, **pool),
        ):
            pass

    def test_slots_inside_slots(self, process):
        one, other = process(), process()
        for pool in "pq":
            one.engine.change_pool(pool, limit=1)
        first, second = TicketKey("first", "step"), TicketKey("second", "step")

        def nested() -> None:
            with one.slots(first, p=1):
                inside.set()
                with one.slots(first, q=1):
                    pass

        with other.slots(second, q=1):
            inside = threading.Event()
            thread = threading.Thread(target=nested)
            thread.start()
            inside.wait()
            until(lambda: waiting(other, "q"))
            with pytest.raises(DeadlockError), other.slots(second, p=1):
                pass
            assert held(other, "q") != []
        thread.join()
        assert held(other, "p") == held(other, "q") == []

    def test_at_a_fair_pool_whoever_is_ahead_by_its_share_sets_slots_aside(self, process):
        one, other = process(patience_seconds=0.0), process(patience_seconds=0.0)
        one.engine.change_pool("p", limit=2)
        one.engine.change_pool("p", fair_by="team")
        step = one.step("first", p=1)
        tags = {"team": "second"}
        assert not other.engine.claim(
            "second", "step", Demand.of({"p": 2}), tags=lambda: tags
        ).granted
        with pytest.raises(DeadlockError, match="waits for slots of p that it holds itself"):
            one.slots(step, priority=0, p=1).__enter__()
        one.end(step)
        assert other.engine.claim("second", "step", Demand.of({"p": 2}), tags=lambda: tags).granted

    def test_both_ask_at_once(self, process):
        """Each has written its ticket before it looks: both see the circle, one gives up."""
        one, other = process(look_again_seconds=0.05), process(look_again_seconds=0.05)
        for pool in "pq":
            one.engine.change_pool(pool, limit=1)
        both = threading.Barrier(2, timeout=60)
        for process_ in (one, other):
            check = process_.desk.asking.check

            def at_once(key, seconds, check=check, waited=[]):  # noqa: B006 - once for each
                if not waited:
                    waited.append(key)
                    both.wait()
                check(key, seconds)

            process_.desk.asking.check = at_once
        outcomes = []

        def work(process_, run_id: str, first: str, then: str) -> None:
            step = process_.step(run_id, **{first: 1})
            ready.wait()
            try:
                with process_.slots(step, **{then: 1}):
                    outcomes.append("let in")
            except DeadlockError:
                outcomes.append("gave up")
            finally:
                process_.end(step)

        ready = threading.Barrier(2, timeout=60)
        threads = [
            threading.Thread(target=work, args=(one, "first", "p", "q")),
            threading.Thread(target=work, args=(other, "second", "q", "p")),
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(outcomes) == ["gave up", "let in"]

    def test_nothing_is_asked_about_who_holds_nothing(self, process, monkeypatch):
        one, other = process(), process()
        one.engine.change_pool("p", limit=1)
        asking = one.desk.asking
        monkeypatch.setattr(asking, "_pools_around", lambda key: pytest.fail("asked"))
        with other.slots(TicketKey("other", "step"), p=1):
            with pytest.raises(SlotsTimeoutError), one.slots(STEP, 0, p=1):
                pass
            one.step("run", q=1)  # Unlimited: it holds nothing.
