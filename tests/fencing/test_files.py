"""Files that refuse a late writer: whole or not at all, and never an older fence over a newer."""

from __future__ import annotations

import multiprocessing
import os
import signal
from pathlib import Path

import pytest

from dagster_lifeguard.client.fencing import files
from dagster_lifeguard.client.fencing.files import fenced_file
from dagster_lifeguard.errors import ConfigError, LateWriterError


def write(path, fence: int, text: str) -> None:
    with fenced_file(path, fence) as draft:
        draft.write_text(text)


def names_in(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def write_half(path, fence: int) -> None:
    with fenced_file(path, fence) as draft:
        draft.write_text("half of it")
        raise ZeroDivisionError


def test_a_smaller_fence_is_refused_and_any_other_let_in(tmp_path):
    path = tmp_path / "orders.csv"
    for fence, text in [(3, "a"), (3, "b"), (12, "c")]:
        write(path, fence, text)
        assert path.read_text() == text
    with pytest.raises(LateWriterError, match=r"written with fence 12, .* late with fence 4"):
        write(path, 4, "d")
    assert path.read_text() == "c"
    assert names_in(tmp_path) == [".orders.csv.fence", "orders.csv"]


def test_the_draft_has_the_directory_and_the_suffix_of_the_file(tmp_path):
    with fenced_file(str(tmp_path / "orders.csv.gz"), 1) as draft:
        assert draft.parent == tmp_path
        assert draft.suffixes[-2:] == [".csv", ".gz"]
        draft.touch()


def test_a_block_that_fails_replaces_nothing(tmp_path):
    path = tmp_path / "orders"
    write(path, 1, "a")
    with pytest.raises(ZeroDivisionError):
        write_half(path, 2)
    assert path.read_text() == "a"
    assert names_in(tmp_path) == [".orders.fence", "orders"]
    write(path, 1, "b")  # Fence 2 has replaced nothing.


def test_a_block_that_writes_nothing_is_an_error(tmp_path):
    with pytest.raises(ConfigError, match="Nothing was written"), fenced_file(tmp_path / "x", 1):
        pass
    assert names_in(tmp_path) == []


def test_a_file_that_holds_no_fence(tmp_path):
    (tmp_path / ".orders.fence").write_text("seven")
    with pytest.raises(ConfigError, match=r"\.orders\.fence holds no fence"):
        write(tmp_path / "orders", 1, "a")


def die_between(path, at: str) -> None:
    """Write, and be killed when a step of the replacement comes."""

    def die(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    if at == "rename":
        files.Path.replace = die
    else:
        files._replace = die
    write(path, 5, "of the dead")


@pytest.mark.parametrize(("at", "lets_in"), [("look", True), ("rename", False)])
def test_a_writer_that_dies_before_its_rename_lets_no_late_one_in(tmp_path, at, lets_in):
    path = tmp_path / "orders"
    write(path, 1, "a")
    process = multiprocessing.get_context("spawn").Process(target=die_between, args=(path, at))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert path.read_text() == "a"
    if lets_in:  # It had not come to its look.
        write(path, 2, "b")
    else:
        with pytest.raises(LateWriterError):
            write(path, 4, "b")
        write(path, 5, "b")  # Its lock went with it.
    assert path.read_text() == "b"


def test_the_file_is_on_disk_before_its_name_and_the_fence_before_both(tmp_path, monkeypatch):
    """A crash of the machine between two steps finds the old file, or a whole new one."""
    path = tmp_path / "orders"
    write(path, 1, "old")
    done = []
    fsync, replace = os.fsync, Path.replace

    def recorded_fsync(descriptor):
        synced = os.fstat(descriptor)
        (name,) = [
            "directory" if found == tmp_path else found.suffix.removeprefix(".") or "file"
            for found in (tmp_path, *tmp_path.iterdir())
            if os.path.samestat(found.stat(), synced)
        ]
        done.append((name, os.pread(descriptor, 30, 0) if name == "fence" else None))
        fsync(descriptor)

    def recorded_replace(self, target):
        done.append(("replace", self.read_bytes()))
        return replace(self, target)

    monkeypatch.setattr(files.os, "fsync", recorded_fsync)
    monkeypatch.setattr(Path, "replace", recorded_replace)
    with fenced_file(path, 7) as draft:
        draft.write_text("new")
        draft_name = draft.suffix.removeprefix(".")
    assert done == [
        (draft_name, None),
        ("fence", b"00000000000000000007\n"),
        ("directory", None),
        ("replace", b"new"),
        ("directory", None),
    ]
    assert path.read_text() == "new"
