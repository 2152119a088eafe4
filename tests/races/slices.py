"""A long torture in slices: what each plays, and what was done so far, kept in a file."""

from __future__ import annotations

import hashlib
import json
import math
import random
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

DATABASES = ("sqlite", "postgres")
SIZES = (2, 4, 8)
LIMITS = (1, 2, 3, 5)
SPREADS_SECONDS = (0.0005, 0.002, 0.008)
TURNS = 20


@dataclass(frozen=True)
class Game:
    """One job of the fleet.

    Attributes:
        job: Its name in ``fleet.py``.
        processes: How many take part.
        limit: Of the pool.
        rounds: How many rounds, or turns between the kinds.
        spread_seconds: How far apart a release and a claim are at most, where they meet.
        seed: Of what the processes draw.
    """

    job: str
    processes: int
    limit: int
    rounds: int
    spread_seconds: float
    seed: int

    @property
    def grants(self) -> int:
        """How many claims are granted if no promise is broken; 0 where that is not known."""
        return self.rounds * {
            "claim_together": min(self.limit, self.processes),
            "release_meets_first_claim": 2,
            "hammer": self.processes,
        }.get(self.job, 0)


def seed_of(seed: int, database: str, number: int) -> int:
    """The seed of one slice."""
    digest = hashlib.sha256(f"{seed} {database} {number}".encode()).digest()
    return int.from_bytes(digest[:4], "big")


def games(seed: int, claims: int) -> list[Game]:
    """What a slice of so many granted claims plays."""
    dice = random.Random(seed)

    def game(job: str, processes: int, limit: int, each_round: int) -> Game:
        rounds = math.ceil(claims / 3 / each_round) if each_round else TURNS
        return Game(
            job, processes, limit, rounds, dice.choice(SPREADS_SECONDS), dice.getrandbits(31)
        )

    size, limit = dice.choice(SIZES), dice.choice(LIMITS)
    together = game("claim_together", size, limit, min(size, limit))
    meets = game("release_meets_first_claim", 2, 1, 2)
    size = dice.choice(SIZES)
    hammer = game("hammer", size, dice.choice(LIMITS), size)
    turns = game("take_turns", 4, dice.choice(LIMITS), 0)
    return [together, meets, hammer, turns]


@dataclass
class Done:
    """What was done on one database.

    Attributes:
        slices: How many slices were played, broken ones too.
        claims: How many claims were granted and passed the oracle, in slices that broke nothing.
        seconds: How long those slices took.
    """

    slices: int = 0
    claims: int = 0
    seconds: float = 0.0


@dataclass
class State:
    """What was done so far.

    Attributes:
        seed: The seed that the seeds of the slices are made from.
        slice_claims: How many granted claims a slice has at least.
        done: For each database.
        broken: The slices that broke a promise: database, number, seed, and what broke.
    """

    seed: int
    slice_claims: int
    done: dict[str, Done] = field(default_factory=lambda: {name: Done() for name in DATABASES})
    broken: list[dict[str, object]] = field(default_factory=list)

    def slices_of(self, claims: int) -> int:
        """How many slices so many claims need."""
        return math.ceil(claims / self.slice_claims)

    def seconds_left(self, databases: tuple[str, ...], claims: int) -> float | None:
        """How long the rest takes at the speed so far; None before a slice of each database."""
        seconds = 0.0
        for database in databases:
            done = self.done[database]
            left = self.slices_of(claims) - done.slices
            if left > 0 and not done.claims:
                return None
            if left > 0:
                seconds += left * self.slice_claims * done.seconds / done.claims
        return seconds

    def add(self, database: str, claims: int, seconds: float, broken: list[str]) -> None:
        """Take the next slice of a database down as played."""
        done = self.done[database]
        number, done.slices = done.slices, done.slices + 1
        if broken:
            seed = seed_of(self.seed, database, number)
            entry = {"database": database, "number": number, "seed": seed, "broken": broken}
            self.broken.append(entry)
        else:
            done.claims += claims
            done.seconds += seconds

    def write(self, path: Path) -> None:
        """Write it whole or not at all."""
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_suffix(".new")
        beside.write_text(json.dumps(asdict(self), indent=2) + "\n")
        beside.replace(path)

    @classmethod
    def read(cls, path: Path) -> State | None:
        """What was written; None if nothing was."""
        if not path.exists():
            return None
        found = json.loads(path.read_text())
        found["done"] = {name: Done(**done) for name, done in found["done"].items()}
        return cls(**found)
