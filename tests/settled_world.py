"""Scans that may leave files out beside scans that read all, runs without a store, and files that change in place."""

import os

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from scan_world import NONE, SPACE, VIEWS

from materialize.file_states import file_clock, file_states, source_files
from materialize.ledger import Ledger
from materialize.plan import open_pin_scan, pin_changes
from materialize.points import ledger_entries
from materialize.scan import FeatureScan, connect, raw_engine

FILES = 2


def youngest(world):
    """When a source file changed last."""
    return max(file_states(source_files(view.source)).latest for view in world.views.values())


def ripe(world):
    """Let the file system's clock pass the youngest source file, as it does between any two commands."""
    while file_clock(world.folder).now <= youngest(world):
        pass


def answers(world, held=NONE, noting=True, pins_first=False, rescan=False):
    """What scans of all views and of the pins say, and how many of the files they left out."""
    with Ledger(world.paths) as ledger, connect(world.paths.ledger, noting=noting, rescan=rescan) as con:
        found = {}

        def see_pins():
            pins = open_pin_scan(con, world.definitions, SPACE, ledger, held)
            kinds = {
                each.pin_id: (each.kind, each.raw, each.text) for batch in pin_changes(pins, SPACE) for each in batch
            }
            counts = (pins.rows, pins.known, pins.unchanged, pins.still_empty, pins.held)
            found["pins"] = (kinds, [key for key, _, _ in pins.gone], counts)

        if pins_first:
            see_pins()
        for name, view in world.views.items():
            rows = FeatureScan(con, view, ledger.of(f"view:{name}"), held)
            changed = {row["key"]: row["raw"] for batch in rows.changes() for row in batch.to_pylist()}
            found[name] = (changed, rows.gone, (rows.rows, rows.known))
        if not pins_first:
            see_pins()
        return found, con.file_counts()


def left_out(world, **how):
    """Files that a scan leaves out, of all; what it says must be what is read."""
    ripe(world)
    found, (files, same) = answers(world, **how)
    assert found == answers(world, noting=False, held=how.get("held", NONE))[0]
    return same, files


def write(world, run, held=NONE, steps=99, leave=NONE, pins=True):
    """A run as ``materialize`` does it, without a store: doubt, write, fold, settle; it dies after so many steps.

    :param leave: keys that are left for later runs.
    :param pins: whether the space is written, or the views alone, as where the run is one over another space.
    """
    with Ledger(world.paths) as ledger, connect(world.paths.ledger, noting=True) as con:
        for step in _steps(world, ledger, con, run, held, leave, pins):
            step()
            steps -= 1
            if not steps:
                return


def _steps(world, ledger, con, run, held, leave, pins):
    if pins:
        yield from _pin_steps(world, ledger, con, run, held, leave)
    for name in VIEWS:
        yield from _view_steps(world, ledger, con, run, held, leave, name)


def _pin_steps(world, ledger, con, run, held, leave):
    pins = open_pin_scan(con, world.definitions, SPACE, ledger, held)
    for changes in pin_changes(pins, SPACE):
        batch = [change for change in changes if change.pin_id not in leave]
        yield lambda batch=batch: ledger.doubt(SPACE.name, run, [change.pin_id for change in batch])
        yield lambda batch=batch: ledger.write(SPACE.name, run, ledger_entries(batch))
    yield lambda: ledger.remove(SPACE.name, run, [key for key, _, _ in pins.gone if key not in leave])
    yield lambda: ledger.set_engine(SPACE.name, raw_engine())
    yield lambda: ledger.fold(SPACE.name)
    yield lambda: pins.settle(run)


def _view_steps(world, ledger, con, run, held, leave, name):
    space = f"view:{name}"
    rows = FeatureScan(con, world.views[name], ledger.of(space), held)
    for batch in rows.changes():
        batch = batch.filter(pc.invert(pc.is_in(batch["key"], pa.array(sorted(leave), pa.string()))))
        blank = {
            "text_fp": pa.nulls(batch.num_rows, pa.binary(16)),
            "payload_fp": pa.nulls(batch.num_rows, pa.uint64()),
        }
        entries = pa.table({**{column: batch[column] for column in ("key", "raw", "event_timestamp")}, **blank})
        yield lambda space=space, entries=entries: ledger.write(space, run, entries)
    gone = [key for key in rows.gone if key not in leave]
    yield lambda space=space, gone=gone: ledger.remove(space, run, gone)
    yield lambda space=space: ledger.set_engine(space, raw_engine())
    yield lambda space=space: ledger.fold(space)
    yield lambda rows=rows: rows.settle(run)


def rewrite(path, change=lambda rows: rows):
    """Change rows of a file and write it again into the same inode, the time of its modification set back."""
    before = path.stat()
    table = pq.read_table(path)
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(change(table.to_pylist()), schema=table.schema), sink, compression="NONE")
    path.write_bytes(sink.getvalue().to_pybytes())
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    return before.st_size == path.stat().st_size
