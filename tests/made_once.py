"""Repositories that are made once a test run, by the first of pytest-xdist's workers that wants them; and copies."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from feature_repo.paths import RepoPaths


def run_folder(temp: pytest.TempPathFactory) -> Path:
    """The folder that all workers of a run share."""
    base = temp.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base  # a worker's is a folder in that of the run


def made_once(temp: pytest.TempPathFactory, name: str, make: Callable[[Path], Any]) -> Path:
    """The folder ``repo`` of a folder called ``name``, filled by ``make(folder)``, for reading only.

    A worker that comes while another one is making it waits; after a failure the next one tries again.
    """
    parent = run_folder(temp) / "made_once" / name
    parent.mkdir(parents=True, exist_ok=True)
    folder, done = parent / "repo", parent / "done"
    with (parent / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # let go by the kernel if the worker dies
        if not done.exists():
            shutil.rmtree(folder, ignore_errors=True)
            make(folder)
            done.touch()
    return folder


def copied(source: Path, target: Path) -> RepoPaths:
    """A copy without the store, for commands of ours: the sources of its views are its own files."""
    # Without the store: the engine's files are sparse, and a plain copy fills hundreds of megabytes.
    shutil.copytree(source, target, symlinks=True, ignore=shutil.ignore_patterns("online"))
    kept = target / "data" / "definitions.json"
    kept.write_text(kept.read_text().replace(str(source), str(target)))
    return RepoPaths(target)


def moved(source: Path, target: Path) -> RepoPaths:
    """A copy without the store, for Feast too: as if it had been applied where it is, which takes seconds."""
    from feast.protos.feast.core.Registry_pb2 import Registry
    from google.protobuf import text_format

    paths = copied(source, target)
    there = text_format.MessageToString(Registry.FromString(paths.registry.read_bytes()))
    here = text_format.Parse(there.replace(str(source), str(target)), Registry())
    paths.registry.write_bytes(here.SerializeToString())
    (target / "data" / "definitions.json").unlink()  # it is of the former registry
    return paths
