"""Worlds at length: part of ``make torture``, or with options of your own.

    python tests/races/worlds.py --claims 100000 --seed 7

Plays worlds, each by a seed of its own, until so many claims were granted and checked. What was done
is kept in ``.torture/world.json`` after each slice: an interrupted run goes on where it stopped. A
seed that breaks a promise is shortened at once, and makes the exit code 1.

The options are those of ``torture.py``, which plays on databases. What names only databases there
(``--database sqlite``, ``--rerun sqlite:17``) plays nothing here.
"""

from __future__ import annotations

import argparse
import logging
import random
import sys
import time
from pathlib import Path

import click
from shortening import shortest
from slices import Done, State, seed_of
from steps import steps_of
from world import BrokenPromiseError, play

STATE = Path(__file__).parents[2] / ".torture" / "world.json"
CLAIMS = 10_000_000
SLICE = 20_000
STEPS = 6_000
WORLD = "world"


def play_slice(seed: int, claims: int) -> tuple[int, list[str]]:
    """Play worlds until so many claims were granted: how many were, and what broke."""
    granted = 0
    while granted < claims:
        steps = steps_of(seed, STEPS)
        try:
            granted += play(steps).granted
        except BrokenPromiseError:
            fewest, found = shortest(steps)
            return granted, [f"seed {seed}: {found}; play({fewest})"]
        seed += 1
    return granted, []


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--claims", type=int, default=CLAIMS, help="granted, in all worlds")
    parser.add_argument("--slice", type=int, help=f"claims of a slice (default: {SLICE:,})")
    parser.add_argument("--seed", type=int, help="of the whole (default: drawn)")
    parser.add_argument("--database", action="append", help="world, or nothing is played")
    parser.add_argument("--fresh", action="store_true", help="forget what was done so far")
    parser.add_argument("--rerun", metavar="world:NUMBER", help="play one slice again, alone")
    parser.add_argument("--state", type=Path, default=STATE, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    name, _, number = (options.rerun or f"{WORLD}:").partition(":")
    if name != WORLD or WORLD not in (options.database or [WORLD]):
        return 0

    state = None if options.fresh else State.read(options.state)
    for option, kept in (("seed", state and state.seed), ("slice", state and state.slice_claims)):
        asked = getattr(options, option)
        if state and asked is not None and asked != kept:
            parser.error(f"the worlds under way have --{option} {kept}; begin anew with --fresh")
    if state is None:
        seed = options.seed if options.seed is not None else random.SystemRandom().getrandbits(31)
        state = State(seed, options.slice or SLICE, {WORLD: Done()})
    logging.disable(logging.CRITICAL)
    try:
        if number:
            _, broken = play_slice(seed_of(state.seed, WORLD, int(number)), state.slice_claims)
            for text in broken:
                click.echo(f"BROKEN: {text}")
            return int(bool(broken))
        go_on(state, options.claims, options.state)
    finally:
        logging.disable(logging.NOTSET)
    done = state.done[WORLD]
    for entry in state.broken:
        click.echo("BROKEN, again alone with --rerun world:{number}: {broken}".format(**entry))
    click.echo(
        f"world, seed {state.seed}: {done.claims:,} claims granted and checked in "
        f"{done.seconds:.0f} s of CPU, {len(state.broken)} slices broken"
    )
    return int(bool(state.broken))


def go_on(state: State, claims: int, path: Path) -> None:
    """Play the slices that are missing."""
    planned, done = state.slices_of(claims), state.done[WORLD]
    while done.slices < planned:
        begun = time.process_time()
        seed = seed_of(state.seed, WORLD, done.slices)
        granted, broken = play_slice(seed, state.slice_claims)
        state.add(WORLD, granted, time.process_time() - begun, broken)
        state.write(path)
        left = state.seconds_left((WORLD,), claims)
        click.echo(
            f"world  slice {done.slices:,} of {planned:,} (seed {seed}): {granted:,} claims, "
            f"{len(broken)} broken; {done.claims:,} of {claims:,}; left: "
            f"{'?' if left is None else f'{left / 60:.0f} min'}"
        )


if __name__ == "__main__":
    sys.exit(main())
