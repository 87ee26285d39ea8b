"""Rows of a scan in memory and on disk: read in pieces, handed to Arrow, and missed when somebody removed them."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scan_world import World

from feature_repo.errors import PinfeatherError
from materialize.hashes import arrow
from materialize.spill import HashedRows, Scratch


@given(st.lists(st.booleans()), st.lists(st.integers(-(2**63), 2**63 - 1)), st.integers(1, 3))
def test_numbers_become_arrow_arrays(truths, numbers, step):
    there, values = np.array(truths, bool)[::step], np.array(numbers, np.int64)[::step]
    assert arrow(there).to_pylist() == there.tolist()
    assert arrow(values).to_pylist() == values.tolist()


def test_rows_of_a_bucket_come_in_pieces_out_of_many_batches(tmp_path):
    rows = HashedRows(tmp_path / "rows", 2, 1)
    numbers = np.arange(40, dtype=np.uint64)
    high = (numbers % np.uint64(2)) << np.uint64(63)
    for start in range(0, 40, 8):
        rows.add(np.stack([high, numbers], axis=1)[start : start + 8])
    scratch = Scratch()
    pieces = [piece[:, 1].tolist() for piece in rows.pieces(1, 10, scratch)]
    assert [len(piece) for piece in pieces] == [12, 8]
    assert sorted(number for piece in pieces for number in piece) == list(range(1, 40, 2))
    (tmp_path / "rows").write_bytes(b"")
    with pytest.raises(PinfeatherError, match="ended early"):
        list(rows.pieces(0, 10, scratch))
    rows.close()


def test_an_unchanged_scan_does_not_load_pandas(tmp_path):
    """It takes longer than the scan; nothing on the way needs it."""
    world = World(tmp_path).pins({f"pin {n}": {"title": f"hat {n}"} for n in range(30)})
    world.scan(write=True)
    world.rows("pin_text", write=True)
    script = (
        "import sys; from pathlib import Path; sys.path.insert(0, sys.argv[2]);"
        "from scan_world import World; world = World(Path(sys.argv[1]));"
        "assert world.scan() == ({}, [], 30); assert world.rows('pin_text') == ({}, []);"
        "sys.exit('pandas' in sys.modules)"
    )
    command = [sys.executable, "-c", script, str(world.folder), str(Path(__file__).parent)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
