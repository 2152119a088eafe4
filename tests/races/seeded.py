"""The whole engine by seed: plays a seed, and shortens what breaks a promise.

    python tests/races/seeded.py --seed 17 --steps 20000

``steps`` says what a seed plays, ``world`` does it, ``promises`` checks it, ``baton`` decides the
order of what is done at once, and ``shortening`` finds the few steps that matter.
"""

from __future__ import annotations

import argparse
import logging
import sys

import click
from shortening import broken, shortest
from steps import steps_of


def main():
    """Play one seed."""
    options = argparse.ArgumentParser()
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--steps", type=int, default=20_000)
    asked = options.parse_args()
    logging.disable(logging.CRITICAL)
    whole = steps_of(asked.seed, asked.steps)
    if broken(whole) is None:
        click.echo(f"seed {asked.seed}: {asked.steps:,} steps, nothing broken")
        return
    fewest, why = shortest(whole)
    click.echo(f"seed {asked.seed}, {len(fewest)} of {asked.steps:,} steps: {why}\n{fewest}")
    sys.exit(1)


if __name__ == "__main__":
    main()
