"""Shares of a sample: sums, bounds, rules, and no pair without a chance."""

from fractions import Fraction
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pinfeather.sampling_quota import RULES, allocate, split

sizes = st.lists(st.integers(1, 3_000), min_size=1, max_size=12)
rules = st.sampled_from(sorted(RULES))


@given(sizes, st.integers(0, 4_000), rules)
def test_shares_sum_up_and_stay_within_their_bounds(sizes, more, rule):
    count = len(sizes) + more
    taken = allocate(sizes, count, rule)
    assert sum(taken) == min(count, sum(sizes))
    assert all(1 <= take <= size for take, size in zip(taken, sizes, strict=True))


@given(sizes, st.integers(0, 4_000), rules)
def test_a_larger_group_never_gets_less(sizes, more, rule):
    taken = allocate(sizes, len(sizes) + more, rule)
    ordered = [take for _, take in sorted(zip(sizes, taken, strict=True))]
    assert all(later >= earlier - 1 for earlier, later in pairwise(ordered))  # 1 by rounding


@pytest.mark.parametrize(
    ("rule", "expected"), [("equal", [70, 70, 70]), ("sqrt", [21, 63, 126]), ("proportional", [5, 41, 164])]
)
def test_shares_go_by_the_power_of_the_rule(rule, expected):
    assert allocate([100, 900, 3_600], 210, rule) == expected


def test_what_a_full_group_cannot_take_goes_to_the_others():
    assert allocate([3, 100, 100], 43, "equal") == [3, 20, 20]


def test_of_equal_remainders_the_first_group_gets_one_more():
    assert allocate([10, 10, 10], 5, "proportional") == [2, 2, 1]


cells = st.dictionaries(
    st.tuples(st.sampled_from("abc"), st.sampled_from("xy"), st.sampled_from("123")), st.integers(1, 50), max_size=18
)


@given(cells, st.integers(1, 60), st.lists(rules, min_size=3, max_size=3))
def test_strata_part_the_cells_and_take_what_is_wanted(cells, count, rules):
    strata = split(cells, count, rules)
    assert sorted(cell for stratum in strata for cell in stratum.cells) == sorted(cells)
    assert sum(stratum.take for stratum in strata) == min(count, sum(cells.values()))
    for stratum in strata:
        assert stratum.size == sum(cells[cell] for cell in stratum.cells)
        assert 1 <= stratum.take <= stratum.size
        told = [value for value in stratum.key if value is not None]
        assert all(cell[: len(told)] == tuple(told) for cell in stratum.cells)


def test_a_group_without_room_for_its_values_is_one_stratum():
    cells = {("en", "head"): 90, ("en", "tail"): 9, ("de", "head"): 1, ("de", "tail"): 1}
    strata = split(cells, 4, ["equal", "sqrt"])
    assert [(stratum.key, stratum.take) for stratum in strata] == [
        (("de", "head"), 1),
        (("de", "tail"), 1),
        (("en", "head"), 1),
        (("en", "tail"), 1),
    ]
    assert [stratum.key for stratum in split(cells, 3, ["sqrt", "sqrt"])] == [
        ("de", None),
        ("en", "head"),
        ("en", "tail"),
    ]
    assert [stratum.key for stratum in split(cells, 1, ["sqrt", "sqrt"])] == [(None, None)]


@given(cells, st.integers(1, 60), st.lists(rules, min_size=3, max_size=3))
def test_weights_of_a_stratum_sum_to_its_size(cells, count, rules):
    strata = split(cells, count, rules)
    total = sum((stratum.take * Fraction(stratum.size, stratum.take) for stratum in strata), Fraction())
    assert total == sum(cells.values())
