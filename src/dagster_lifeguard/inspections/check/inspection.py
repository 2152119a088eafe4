"""The inspection of code locations, each loaded apart from the others."""

from __future__ import annotations

import os
import sys
import traceback
import warnings
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, redirect_stdout
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING

from dagster_lifeguard.compat.components import cause_of
from dagster_lifeguard.compat.definitions import UNSTABLE_API_WARNINGS
from dagster_lifeguard.errors import LifeguardError, LoadError, first_line
from dagster_lifeguard.inspections.check.location import inspect_location

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from dagster_lifeguard.compat.locations import LocationOrigin
    from dagster_lifeguard.inspections.check.location import Location
    from dagster_lifeguard.policy.config import Config


def inspect_locations(
    origins: Sequence[LocationOrigin],
    config: Config | None,
    granularity: str,
    config_file: Path | None = None,
) -> list[Location]:
    """Inspect each code location; several, each in a process of its own.

    What the user's code prints goes to standard error. See ``inspect_location`` for the arguments.

    Raises:
        LoadError: The code of a location cannot be loaded.
    """
    asked = (config, granularity, config_file)
    if len(origins) == 1:
        return [_or_raise(origins[0], _inspect_one(origins[0], *asked))]
    # Modules of different locations may have one name, so each gets a process of its own.
    locations = []
    for origin in origins:
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
            try:
                found = process.submit(_inspect_one, origin, *asked).result()
            except BrokenProcessPool:
                found = "its process ended without an answer"
            locations.append(_or_raise(origin, found))
    return locations


def _or_raise(origin: LocationOrigin, found: Location | str) -> Location:
    if isinstance(found, str):
        raise LoadError(
            f"{origin.name} cannot be loaded: {found}.",
            remedy="Mend the code, or try dagster definitions validate for the whole traceback.",
            names=[origin.name],
        )
    return found


def _inspect_one(
    origin: LocationOrigin, config: Config | None, granularity: str, config_file: Path | None
) -> Location | str:
    """Return what was found, or in one line why the code could not be loaded."""
    try:
        with _standard_output_to_error(), warnings.catch_warnings():
            # They concern Dagster's API in the user's code, which is not what was asked for.
            for category in UNSTABLE_API_WARNINGS:
                warnings.simplefilter("ignore", category)
            return inspect_location(origin, config, granularity, config_file)
    except KeyboardInterrupt:
        raise
    except BaseException as raised:  # noqa: BLE001 - also code that calls sys.exit
        error = cause_of(raised)
        if isinstance(error, LifeguardError):
            raise error from None
        frame = traceback.extract_tb(error.__traceback__)[-1]
        place = f"({Path(frame.filename).name}:{frame.lineno})"
        return f"{type(error).__name__}: {first_line(error)} {place}"


@contextmanager
def _standard_output_to_error() -> Iterator[None]:
    """Keep what the user's code prints, in whatever way, out of our own output."""
    sys.stdout.flush()
    with redirect_stdout(sys.stderr):
        try:
            kept = os.dup(1)
            os.dup2(2, 1)
        except OSError:  # this process has no such descriptors
            yield
            return
        try:
            yield
        finally:
            os.dup2(kept, 1)
            os.close(kept)
