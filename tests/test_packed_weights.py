"""Weights that are packed once: products as numpy's, and only where OpenBLAS does as expected."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedders import packed_weights
from embedders.packed_weights import PlainWeight, Rows, Weights, find_kernel, work_place

needs_kernel = pytest.mark.skipif(find_kernel() is None, reason="no OpenBLAS for AVX2 in this numpy")


def filled(array):
    """``array`` as the first rows of a place."""
    rows = Rows.zeros(*array.shape)
    rows.array[: len(array)] = array
    return rows


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 40), st.integers(1, 900), st.integers(1, 450), st.booleans(), st.integers(0, 2**32 - 1))
def test_products_of_any_shape_are_those_of_numpy_and_are_added(count, inner, out, plain, seed):
    random = np.random.default_rng(seed)
    weights = [random.standard_normal((out, inner), np.float32) for _ in range(2)]
    room = Weights(sum(each.size for each in weights))
    if plain:
        room._kernel = None
    rows = random.standard_normal((count, inner), np.float32)
    before = random.standard_normal((count, out), np.float32)
    for weight, product in [(each, room.keep(each)) for each in weights]:  # both are packed before one is used
        place = filled(before)
        product.add(filled(rows), place, work_place(count))
        exact = before + rows.astype(float) @ weight.T
        assert np.abs(place.array[:count] - exact).max() < 1e-5 * (1 + np.abs(exact).max()) * np.sqrt(inner)
        assert not place.array[count:].any()


def test_a_weight_stays_when_the_array_it_came_from_changes():
    weight = np.eye(8, dtype=np.float32)
    product = Weights(weight.size).keep(weight)
    weight[:] = 7
    place = Rows.zeros(4, 8)
    product.add(filled(np.full((4, 8), 3, np.float32)), place, work_place(4))
    np.testing.assert_array_equal(place.array, 3)


@needs_kernel
@pytest.mark.parametrize(("inner", "out", "room"), [(9, 8, 4), (8, 9, 4), (8, 8, 0)])
def test_shapes_that_do_not_fit_are_refused_as_memory_would_be_overwritten(inner, out, room):
    product = Weights(64).keep(np.eye(8, dtype=np.float32))
    with pytest.raises(ValueError, match="does not fit"):
        product.add(Rows.zeros(4, inner), Rows.zeros(4, out), work_place(room))


@needs_kernel
def test_routines_with_other_results_are_not_used():
    kernel = find_kernel()
    assert packed_weights._right(kernel)
    double = replace(kernel, multiply=lambda m, n, k, factor, *rest: kernel.multiply(m, n, k, 2 * factor, *rest))
    assert not packed_weights._right(double)
    assert not packed_weights._right(replace(kernel, pack_rows=lambda *parts: 0))


def test_where_openblas_computes_for_another_processor_numpy_multiplies():
    code = (
        "from embedders.packed_weights import find_kernel, Weights; import numpy as np;"
        "print(find_kernel(), type(Weights(4).keep(np.eye(2, dtype=np.float32))).__name__)"
    )
    environment = os.environ | {"OPENBLAS_CORETYPE": "Sandybridge"}
    root = Path(packed_weights.__file__).parents[1]
    run = subprocess.run([sys.executable, "-c", code], cwd=root, env=environment, capture_output=True, text=True)
    assert run.stdout.split() == ["None", PlainWeight.__name__], run.stderr
