"""Benchmarks in their smallest form: what they use of ours is there, and what they make is what ours takes."""

import ast
import importlib
from datetime import timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from served import in_process

from benchmarks import aggregates, lexical, publications
from benchmarks.materialize import catalogue, scale
from benchmarks.serving import http, naive
from feature_repo.aggregates.schemas import VIEW_SCHEMAS
from feature_repo.lexical import LexicalStatistics
from feature_repo.lexical.blobs import encode_blob
from feature_repo.paths import RepoPaths
from materialize.stores import layout
from materialize.stores.points import CollectionSpec, VectorSpec
from materialize.stores.publication import open_writer
from serving_client import PinClient

pytest_plugins = ("client_repo",)
ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("feature_repo", "embedders", "materialize", "serving_client", "pinfeather")
FILES = sorted((ROOT / "benchmarks").rglob("*.py"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT / "benchmarks")))
def test_what_a_benchmark_imports_of_ours_is_there(file):
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] in ROOMS:
            module = importlib.import_module(node.module)
            for alias in node.names:
                if not hasattr(module, alias.name):
                    importlib.import_module(f"{node.module}.{alias.name}")


# --- materialize ----------------------------------------------------------------------------------------------------


@pytest.fixture
def few_phrases(monkeypatch):
    """The catalogue's texts are drawn from few phrases, which are quickly made."""
    monkeypatch.setattr(catalogue, "POOL", 200)


def test_the_big_catalogue_has_rows_for_every_view_and_column(few_phrases, tmp_path):
    made = catalogue.Catalogue(tmp_path, 300)
    numbers = np.arange(300, dtype=np.uint64)
    views = made.definitions().views
    assert views.keys() == catalogue.SHARES.keys() <= VIEW_SCHEMAS.keys()
    for name, schema in VIEW_SCHEMAS.items():
        if name in catalogue.SHARES:
            table = made.rows(name, numbers)
            assert table.schema == schema
            assert table.column("pin_id").null_count == 0
            assert len(set(table.column("pin_id").to_pylist())) == 300
            assert views[name].features.keys() | {"pin_id", "event_timestamp", "created_timestamp"} == set(schema.names)


def test_the_scan_finds_nothing_in_the_catalogue_that_was_filled_and_the_edits_in_the_other(few_phrases, tmp_path):
    paths, made = RepoPaths(tmp_path / "repo"), catalogue.Catalogue(tmp_path / "catalogue", 1200)
    made.write()
    threads = pa.cpu_count()
    try:
        found = {name: step(made, paths) for name, step in scale.STEPS.items() if name != "edited"}
    finally:
        pa.set_cpu_count(threads)
    assert found["fill"]["counted_texts"] == 1200
    assert found["unchanged"]["unchanged"] == 1200
    other = catalogue.changed_copy(made, tmp_path / "edited", scale.EDIT)
    assert scale.edited(other, paths)["found"] == {"changed": 2}


# --- the search log -------------------------------------------------------------------------------------------------


def test_a_day_that_is_merged_gives_the_sources_of_a_full_count(monkeypatch, tmp_path):
    monkeypatch.setattr(aggregates, "FILES", 3)
    paths, world = RepoPaths(tmp_path), aggregates.World(3_000)
    aggregates.make_log(paths, world, 900)
    assert aggregates.count(tmp_path, aggregates.END, "200MB", 1)["log"] == "full"
    aggregates.add_day(paths, world, 150)
    tomorrow = aggregates.END + timedelta(days=1)
    merged = aggregates.count(tmp_path, tomorrow, "200MB", 1)
    assert (merged["log"], merged["reason"]) == ("merged", None)
    assert merged["views"]["query_pin_engagement"] > 0
    aggregates.count(tmp_path, tomorrow, "200MB", 1, tmp_path / "full")
    assert aggregates.same_sources(paths.views, tmp_path / "full")


# --- words ----------------------------------------------------------------------------------------------------------


def test_our_words_score_as_those_of_rank_bm25():
    queries = [f"oak {thing}" for thing in ("table", "lamp", "rug")]
    group = np.arange(1000) % 3
    titles = [f"{queries[row]} number {number % 50}" for number, row in enumerate(group)]
    texts = lexical.Texts("made up", queries, group, titles, [f"one of {number % 9}" for number in range(1000)])
    pins, groups = lexical.catalogue(texts, 1000)
    blobs = [encode_blob(pin) for pin in pins]
    statistics = LexicalStatistics.fit(blobs)
    clock, worst, _ = lexical.compare(texts, groups, blobs, statistics, lexical.RankBM25(pins), rounds=2)
    assert worst < 1e-4
    assert {len(times) for times in clock.times.values()} == {2}


# --- stores and serving ---------------------------------------------------------------------------------------------


def test_the_store_takes_the_points_of_the_publications(tmp_path):
    with open_writer(tmp_path) as writer:
        writer.create(publications.VECTORS, CollectionSpec({"vector": VectorSpec(publications.DIMENSION)}))
        writer.create(publications.ROWS, layout.entity_spec())
        publications.write(writer, [1, 2, 3], np.random.default_rng(0))
        assert [writer.count(name) for name in (publications.VECTORS, publications.ROWS)] == [3, 3]
        assert publications.disk(tmp_path) > 0


def test_the_service_takes_what_the_load_asks(built, tower, monkeypatch):
    monkeypatch.setattr(http, "CANDIDATES", 5)
    requests = http.Requests(RepoPaths.open(built))
    assert requests.queries == ["green velvet sofa"]
    with PinClient(built, encoder=tower) as client:
        service = in_process(client)
        for path, bodies in (("score", requests.score(3, new=0.5)), ("related-pins", requests.related(2))):
            for body in bodies:
                answer = service.post(f"/v1/{path}", json=body)
                assert answer.status_code == 200, answer.text


def test_the_naive_way_asks_for_features_that_there_are(built):
    known = {
        f"{file.stem}__{name}"
        for file in (built / "data" / "views").glob("*.parquet")
        for name in pq.read_schema(file).names
    }
    assert {*naive.TEXTS, *naive.RATES} <= known
