"""The pairs of queries and pins: two sorted streams become one, in row groups of one length, beside the other views."""

import json
from itertools import pairwise

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feature_repo.aggregates import VIEW_SCHEMAS, aggregate, pair_rows
from feature_repo.aggregates.engagement import PRIOR_SAVES, rate_sql, rates
from feature_repo.aggregates.session import Resources
from feature_repo.columns import arrow_type
from feature_repo.contracts import CONTRACTS
from feature_repo.errors import PinfeatherError
from feature_repo.paths import PARTS, RepoPaths

keys = st.dictionaries(st.integers(0, 40), st.integers(0, 2), max_size=30)
cuts = st.lists(st.integers(0, 30), max_size=4)


def stream(rows, cuts):
    """Items of ascending keys, the second column being the count, cut at some places, none of them empty."""
    columns = tuple(np.array(column, np.int64) for column in zip(*sorted(rows.items()), strict=True)) if rows else ()
    ends = sorted({0, len(rows), *(cut for cut in cuts if cut < len(rows))})
    for start, end in pairwise(ends):
        yield tuple(column[start:end] for column in columns)


@settings(deadline=None)
@given(base=keys, patch=keys, cuts=cuts, other_cuts=cuts, rows=st.integers(1, 9))
def test_a_row_of_the_patch_stands_for_that_of_the_base_and_with_no_visit_for_none(base, patch, cuts, other_cuts, rows):
    base = {key: count + 1 for key, count in base.items()}
    found = list(pair_rows.even(pair_rows.merged(stream(base, cuts), stream(patch, other_cuts)), rows))
    both = [(int(key), int(count)) for part in found for key, count in zip(*part, strict=True)]
    assert both == sorted((key, count) for key, count in (base | patch).items() if count)
    assert [len(part[0]) for part in found[:-1]] == [rows] * (len(found) - 1)
    assert not found or 0 < len(found[-1][0]) <= rows


@pytest.fixture
def paths(tmp_path):
    """Two days of a log of forty pins and three queries."""
    paths = RepoPaths(tmp_path)
    put(paths, "board_saves", [])
    put(paths, "captions", [])
    put(paths, "pins", [{"pin_id": f"p{n}", "created_at": 0, "event_timestamp": 0} for n in range(40)])
    return paths


def put(paths, table, rows, part=""):
    folder = paths.valid / table if part else paths.valid
    folder.mkdir(parents=True, exist_ok=True)
    schema = pa.schema([(column.name, arrow_type(column.kind)) for column in CONTRACTS[table].columns])
    columns = [
        pa.array([row.get(field.name) for row in rows], pa.int64() if pa.types.is_timestamp(field.type) else field.type)
        for field in schema
    ]
    data = pa.Table.from_arrays(
        [one.cast(field.type) for one, field in zip(columns, schema, strict=True)], schema=schema
    )
    pq.write_table(data, folder / f"{part or table}.parquet")
    if part:
        parts = [{"file": path.name} for path in sorted(folder.glob("*.parquet"))]
        (folder / PARTS).write_text(json.dumps({"parts": parts}))


def day(paths, number):
    rows = [
        {
            "request_id": f"{number}/{user}/{query}",
            "query": query,
            "user_id": user,
            "pin_id": f"p{pin}",
            "action": "click",
            "event_timestamp": (number * 86_400 + pin) * 10**6,
        }
        for query in ("oak", "lamp", "Äpfel")
        for user in ("ann", "bob")
        for pin in range(number, 40, 7)
    ]
    put(paths, "search_log", rows, f"{number}")


def run(paths, folder=None, threads=2, full=False):
    resources = Resources(threads=threads)
    return aggregate(paths, min_users=1, window_days=100_000, resources=resources, folder=folder, full=full)


def sources(folder):
    return {view: (folder / f"{view}.parquet").read_bytes() for view in VIEW_SCHEMAS}


def test_beside_the_others_or_not_the_bytes_are_the_same(paths):
    day(paths, 1)
    run(paths)
    day(paths, 2)
    assert run(paths).log == "merged"
    run(paths, paths.root / "alone", threads=1)
    assert sources(paths.views) == sources(paths.root / "alone")
    found = pq.read_table(paths.views / "query_pin_engagement.parquet").to_pylist()
    assert len(found) == 3 * 12
    assert [(row["query"], row["pin_id"]) for row in found] == sorted((row["query"], row["pin_id"]) for row in found)


def test_pairs_out_of_order_are_refused_and_the_sources_stay(paths):
    day(paths, 1)
    run(paths)
    before = sources(paths.views)
    (base,) = paths.aggregates.glob("pairs-*.parquet")
    rows = pq.read_table(base)
    pq.write_table(rows.take(pa.array(range(len(rows) - 1, -1, -1))), base)
    with pytest.raises(PinfeatherError, match="not in the order it was written in: run `pinfeather aggregate --full`"):
        run(paths)
    assert sources(paths.views) == before
    assert {path.name for path in paths.views.iterdir()} == {f"{view}.parquet" for view in VIEW_SCHEMAS}
    assert run(paths, full=True).log == "full"


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 10**12), st.integers(0, 10**12)), min_size=1, max_size=20))
def test_rates_are_those_of_the_database_bit_for_bit(counts):
    saves, impressions = (np.array(column, np.int64) for column in zip(*counts, strict=True))
    given = ", ".join(f"({number}, {one}::BIGINT, {shown}::BIGINT)" for number, (one, shown) in enumerate(counts))
    rate = rate_sql("saves", PRIOR_SAVES)
    found = duckdb.execute(
        f"SELECT {rate} FROM (VALUES {given}) rows(number, saves, impressions) ORDER BY number"
    ).fetchall()
    assert rates(saves, PRIOR_SAVES, impressions).tolist() == [rate for (rate,) in found]
