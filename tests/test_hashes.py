"""Hashes of keys and rows: the same in every engine, told apart where DuckDB's own are not, found and sorted whole."""

import hashlib

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from materialize import hashes
from materialize.ledger import DOUBTFUL_RAW
from materialize.scan import hashed


def test_texts_that_differ_in_two_digits_eight_apart_never_collide():
    """DuckDB's own hash takes about every tenth of these pairs for one."""
    import duckdb

    stems = [f"{n:014d}" for n in range(0, 10**14, 10**13 + 7)]
    ids = [f"{stem[:7]}{a}{stem[7:]}{b}" for stem in stems for a in range(10) for b in range(10)]
    table = pa.table({"id": ids, "ids": [[each] for each in ids], "blob": [each.encode() for each in ids]})
    count = "SELECT count(DISTINCT {}) FROM tables"
    con = duckdb.connect()
    con.register("tables", table)
    (plain,) = con.execute(count.format("hash(id)")).fetchone()
    assert plain < len(ids)
    for column, kind in (
        ("id", "VARCHAR"),
        ("id", "string"),
        ("ids", "VARCHAR[]"),
        ("ids", "string_list"),
        ("blob", "BLOB"),
    ):
        assert con.execute(count.format(hashed([(column, kind)]))).fetchone() == (len(ids),)
    nested = hashed([("{'a': id}", "STRUCT(a VARCHAR)")])
    assert con.execute(count.format(nested)).fetchone() == (len(ids),)


def test_the_engine_and_python_hash_keys_alike():
    import duckdb

    keys = ["", "a", "é", "\U0001f331", "x" * 200, "0", "\x1f"]
    con = duckdb.connect()
    con.register("keys", pa.table({"key": keys}))
    (column,) = con.execute("SELECT md5_number(key) FROM keys").fetch_arrow_table().columns
    wanted = hashes.key_hashes(keys)
    np.testing.assert_array_equal(hashes.halves(column), hashes.halves(wanted))
    assert wanted.to_pylist() == [hashlib.md5(key.encode()).digest() for key in keys]
    assert hashes.whole(*hashes.halves(wanted)).to_pylist() == wanted.to_pylist()
    assert hashes.halves(wanted.slice(2, 3))[0].tolist() == hashes.halves(wanted)[0][2:5].tolist()


pairs = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), max_size=20)


def _apart(rows):
    array = np.array(rows, np.uint64).reshape(-1, 2)
    return array[:, 0] << np.uint64(62), array[:, 1]


@given(rows=pairs)
def test_sorting_is_by_both_halves(rows):
    high, low = _apart(rows)
    order = hashes.sorting(high, low)
    assert [rows[place] for place in order] == sorted(rows)


@given(rows=pairs, other=pairs)
def test_finding_among_hashes_that_share_a_half(rows, other):
    inside = sorted(set(other))
    places = hashes.find(*_apart(rows), *_apart(inside))
    assert places.tolist() == [inside.index(row) if row in inside else -1 for row in rows]


@pytest.mark.parametrize("bits", [0, 1, 5, 16])
def test_buckets_are_spans_of_sorted_hashes(bits):
    high = np.sort(np.random.default_rng(0).integers(0, 2**64, 500, dtype=np.uint64))
    high[0], high[-1] = 0, 2**64 - 1
    for prefix in {int(each) for each in hashes.prefixes(high, bits)}:
        place = hashes.span(high, bits, prefix)
        assert (hashes.prefixes(high[place], bits) == prefix).all()
        assert place.stop - place.start == (hashes.prefixes(high, bits) == prefix).sum()


def test_no_fingerprint_is_that_of_a_doubt():
    zero = np.zeros(3, np.uint64)
    assert (hashes.raw_fingerprint(zero) != DOUBTFUL_RAW).all()
    assert len({int(hashes.combined({name: zero})[0]) for name in ("a", "b", "c")}) == 3
