"""Arrow arrays out of Python and numpy and back, without pandas."""

import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feature_repo.aggregates.arrays import blobs, column, numbers, strings
from tests.growing_log import event, pin, put, put_log, start


@settings(deadline=None)
@given(st.lists(st.none() | st.text(max_size=5), max_size=20))
def test_texts_and_missing_ones_come_back(values):
    found = strings(values)
    found.validate(full=True)
    assert found.to_pylist() == values
    assert found.cast(pa.string()).to_pylist() == values


@settings(deadline=None)
@given(st.lists(st.binary(max_size=5), max_size=20))
def test_bytes_come_back(values):
    assert blobs(values).cast(pa.binary()).to_pylist() == values


@settings(deadline=None)
@given(st.lists(st.integers(-(2**31), 2**31 - 1), max_size=20), st.sampled_from(["int32", "int64", "float32"]))
def test_numbers_are_shared_between_numpy_and_arrow(values, kind):
    values = np.array(values, kind)
    made = column(values)
    assert made.equals(pa.array(values))
    assert np.array_equal(numbers(made), values)
    assert np.array_equal(numbers(made[1:]), values[1:])
    assert numbers(made[1:]).dtype == kind
    assert not len(values) or np.shares_memory(numbers(made), values)


def test_only_contiguous_numbers_make_a_column():
    with pytest.raises((ValueError, BufferError)):
        column(np.arange(10)[::2])


def test_a_merge_loads_no_pandas(tmp_path):
    paths = start(tmp_path)
    put_log(paths, {"0.parquet": [event(1), event(2, user="bob")]})
    run = (
        "import sys; from pathlib import Path; from feature_repo.aggregates import aggregate; "
        "from feature_repo.paths import RepoPaths; "
        f"print(aggregate(RepoPaths(Path({str(tmp_path)!r}))).log, 'pandas' in sys.modules)"
    )

    def said():
        return subprocess.run([sys.executable, "-c", run], capture_output=True, text=True, check=True).stdout.split()

    assert said() == ["full", "False"]
    put(paths, "pins", [pin("p1"), pin("p2"), pin("p3")])
    put_log(paths, {"0.parquet": [], "1.parquet": [event(3, query="a new one", pin_id="p3")]})
    assert said() == ["merged", "False"]
