"""Copies of files and folders: equal, sparse, and with little to write."""

from __future__ import annotations

import os
import random
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from materialize.stores import files
from materialize.stores.files import copy_sparse, copy_tree, read_ahead

MB = 1 << 20
Edits = st.lists(st.tuples(st.integers(0, 3 * MB), st.binary(min_size=1, max_size=9000)), max_size=5)


def write(path: Path, size: int, edits: list[tuple[int, bytes]]) -> None:
    with open(path, "r+b" if path.exists() else "wb") as file:
        file.truncate(size)
        for position, content in edits:
            file.seek(position)
            file.write(content)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 3 * MB), Edits, st.none() | st.tuples(st.integers(0, 3 * MB), Edits))
def test_a_copy_equals_its_source_whatever_was_there(tmp_path_factory, size, edits, former):
    folder = tmp_path_factory.mktemp("copy")
    source, target = folder / "source", folder / "target"
    write(source, size, edits)
    if former is not None:
        write(target, *former)
    copy_sparse(source, target)
    assert target.read_bytes() == source.read_bytes()


def test_holes_stay_holes(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    write(source, 64 * MB, [(0, b"begin"), (40 * MB, b"middle")])
    copy_sparse(source, target)
    assert target.stat().st_size == 64 * MB
    assert target.stat().st_blocks * 512 <= source.stat().st_blocks * 512 < MB


@pytest.mark.skipif(sys.platform != "linux", reason="there is no such call elsewhere")
@pytest.mark.parametrize(
    ("most", "parts"),
    [
        (0, []),
        (4096, [(0, 4096)]),
        (8192, [(0, 4096), (40 * MB, 4096)]),
        (1 << 30, [(0, 4096), (40 * MB, 8192)]),
    ],
)
def test_data_is_read_ahead_and_holes_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int, parts: list[tuple[int, int]]
) -> None:
    path = tmp_path / "file"
    write(path, 64 * MB, [(0, b"begin"), (40 * MB, bytes(8192))])
    asked: list[tuple[int, int]] = []
    monkeypatch.setattr(files.os, "posix_fadvise", lambda _, start, length, __: asked.append((start, length)))
    assert read_ahead(path, most) == sum(length for _, length in parts)
    assert asked == parts
    assert read_ahead(tmp_path / "none", most) == 0


@pytest.mark.skipif(sys.platform != "linux", reason="there is no such call elsewhere")
def test_the_system_is_asked_for_no_more_at_once_than_it_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a longer request Linux reads the first part only: 8 of 32 MB on one machine, 128 KiB on others."""
    path = tmp_path / "file"
    path.write_bytes(random.Random(6).randbytes(300 << 10))
    asked: list[tuple[int, int]] = []
    monkeypatch.setattr(files.os, "posix_fadvise", lambda _, start, length, __: asked.append((start, length)))
    assert read_ahead(path, MB) == 300 << 10
    assert asked == [(0, 128 << 10), (128 << 10, 128 << 10), (256 << 10, 44 << 10)]


def test_only_pages_that_differ_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = random.Random(5).randbytes(3 * MB)
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(content)
    target.write_bytes(content)
    written: list[tuple[int, int]] = []
    pwrite = os.pwrite

    def noting(fd: int, data: bytes, offset: int) -> int:
        written.append((offset, len(data)))
        return pwrite(fd, data, offset)

    monkeypatch.setattr(files.os, "pwrite", noting)
    monkeypatch.setattr(files, "_clone", lambda *_: False)  # a file system that shares blocks writes nothing at all
    copy_sparse(source, target)
    assert written == []
    write(source, 3 * MB, [(4095, b"ab"), (MB + 5000, b"c"), (3 * MB - 1, b"d")])
    copy_sparse(source, target)
    assert written == [(0, 8192), (MB + 4096, 4096), (3 * MB - 4096, 4096)]
    assert target.read_bytes() == source.read_bytes()


def test_a_folder_is_brought_up_to_date(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    for folder in ("segments/one", "wal"):
        (source / folder).mkdir(parents=True)
        (source / folder / "data").write_text(folder)
    (source / "turned").mkdir()
    (source / "empty").touch()
    (target / "segments" / "gone").mkdir(parents=True)
    (target / "segments" / "gone" / "data").write_text("old")
    (target / "turned").write_text("was a file")
    copy_tree(source, target, skip=frozenset({"wal"}))
    assert sorted(str(path.relative_to(target)) for path in target.rglob("*")) == [
        "empty",
        "segments",
        "segments/one",
        "segments/one/data",
        "turned",
    ]
    assert (target / "segments" / "one" / "data").read_text() == "segments/one"
