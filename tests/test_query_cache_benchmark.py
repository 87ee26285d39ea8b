"""The streams of the query cache's benchmark, and that what it measures ends at the ceiling it names."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks import query_cache
from benchmarks.query_cache import ceiling, counted, head_order, measure, search_log


def test_a_search_is_a_person_and_a_query_in_its_canonical_form(tmp_path):
    rows = {"user": [1, 1, 2, 1, 3], "query": ["Sofa ", "sofa", "sofa", "lamp", " "]}
    pq.write_table(pa.table(rows), tmp_path / "log.parquet")
    assert search_log(tmp_path / "log.parquet") == ["sofa", "sofa", "lamp"]


def test_counts_become_a_stream_of_as_many_searches(tmp_path):
    pq.write_table(pa.table({"query": ["Sofa", "lamp", "rug"], "count": [5, 2, 1]}), tmp_path / "counts.parquet")
    stream = counted(tmp_path / "counts.parquet")
    assert sorted(stream) == ["lamp"] * 2 + ["rug"] + ["sofa"] * 5
    assert stream == counted(tmp_path / "counts.parquet")
    assert head_order(stream) == ["sofa", "lamp", "rug"]


def test_a_cache_with_room_for_all_reaches_the_ceiling_and_a_small_one_does_not():
    stream = [f"q{number}" for number in np.random.default_rng(1).zipf(1.3, 2000) % 500]
    found = measure(stream, (0.05, 4.0))
    small, large = found["sizes"]
    assert large["hit_rate"] == found["ceiling"] == ceiling(stream)
    assert large["hit_rate_of_second_half"] == found["ceiling_of_second_half"]
    assert large["evictions"] == 0
    assert small["hit_rate"] < large["hit_rate"]
    assert small["entries"] == small["room_for"] == round(0.05 * 2**20) // (2 * 384 + 400)


def test_a_cache_warmed_with_everything_asked_before_serves_as_if_there_had_been_no_switch(monkeypatch):
    monkeypatch.setattr(query_cache, "AFTER", (100, 500))
    monkeypatch.setattr(query_cache, "HEADS", (0, 3, 5000))
    stream = [f"q{number}" for number in np.random.default_rng(1).zipf(1.3, 2000) % 500]
    cold, some, all_of_it, without = query_cache.after_switch(stream)
    assert [cold["warm"], some["warm"], all_of_it["warm"], without["warm"]] == [0, 3, 5000, None]
    for searches in (100, 500):
        key = f"hit_rate_of_next_{searches}"
        assert cold[key] < some[key] < all_of_it[key] == without[key]
