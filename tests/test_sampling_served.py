"""Samples by what serves: the student's levels, retrieval by the vectors of the live space, labels as pairs."""

from functools import partial

import numpy as np
import pyarrow.parquet as pq
import pytest
from client_catalogue import WordEncoder
from labelling_shop import CountingTeacher, chances, put_sample
from test_client_scores import judged  # noqa: F401, a fixture

from feature_repo.errors import PinfeatherError, UsageError
from materialize.releases import current_release
from pinfeather.labelling import label
from pinfeather.labelling_pairs import labelled_pairs
from pinfeather.labelling_store import find_labels
from pinfeather.sampling import SampleOptions, sample
from pinfeather.sampling_rankers import open_ranker
from serving_client import PinClient

pytest_plugins = ("client_repo",)
VERSION = "f" * 32


def drawn(paths, tower, scorer="auto", **options):
    options = {"name": scorer, "scorer": scorer, **options}
    note = sample(paths, SampleOptions(**options), partial(open_ranker, paths, scorer, encoder=tower))
    return note, pq.read_table(note["file"]).to_pylist()


def test_without_a_student_pins_are_retrieved_by_cosine_and_levels_are_its_thirds(client_shop, tower):
    note, rows = drawn(client_shop, tower, count=10, unshown=0.9, retrieved=10)
    assert (note["scored_by"], note["scored_with"]) == ("zero-shot", current_release(client_shop).live_space)
    assert [(row["query"], row["pin_id"]) for row in rows if row["source"] == "shown"] == [
        ("green velvet sofa", "sofa0")
    ]
    with PinClient(client_shop.root, encoder=WordEncoder()) as client:
        hits = client.search("green velvet sofa", 10, 10, scorer="zero-shot").hits
    assert {row["pin_id"] for row in rows if row["source"] == "unshown"} == {hit.pin_id for hit in hits} - {"sofa0"}
    assert tower.encoded == ["green velvet sofa"]  # once, for retrieval and levels


def test_with_a_student_its_level_is_predicted(judged, tower):  # noqa: F811
    client_shop = judged
    note, rows = drawn(client_shop, tower, count=10, unshown=0.9, retrieved=10)
    assert (note["scored_by"], note["scored_with"]) == ("student", current_release(client_shop).bundle)
    with PinClient(client_shop.root, encoder=WordEncoder()) as client:
        scores = client.score("green velvet sofa", [row["pin_id"] for row in rows])
    assert [row["level"] for row in rows] == [str(level) for level in scores.level]
    note, _ = drawn(client_shop, tower, "zero-shot", count=10)
    assert note["scored_by"] == "zero-shot"


def test_a_student_that_is_not_there_is_said(client_shop, tower):
    with pytest.raises(UsageError, match="--scorer student: release 2 names no student bundle"):
        drawn(client_shop, tower, "student", count=10)


def test_bm25_needs_no_model(client_shop, tower):
    note, rows = drawn(client_shop, tower, "bm25", count=10, unshown=0.9)
    assert (note["scored_by"], note["scored_with"]) == ("bm25", current_release(client_shop).lexical)
    assert len(rows) > 1 and tower.encoded == []


def test_labels_are_pairs_with_soft_targets_and_the_features_of_serving(client_shop):
    put_sample(client_shop, ("velvet", "sofa0"), ("velvet", "wordless"), ("fern", "fern1"), weight=2.0)
    put_sample(client_shop, ("garlic", "pasta1"), ("fern", "gone"), name="t", weight=6.0)
    label(client_shop, CountingTeacher())
    pairs = labelled_pairs(client_shop, VERSION)
    assert pairs.queries == ("fern", "garlic", "velvet")
    assert [pairs.pin_ids[pin] for pin in pairs.pin_of] == ["fern1", "pasta1", "sofa0"]
    assert pairs.levels is None and pairs.weights is None
    expected = [chances("garlic", CountingTeacher().template.render(pairs.pins[pairs.pin_of[1]]).text)]
    np.testing.assert_allclose(pairs.targets[1:2], expected, rtol=1e-6)
    np.testing.assert_allclose(pairs.targets.sum(axis=1), 1, rtol=1e-12)
    with PinClient(client_shop.root, encoder=WordEncoder()) as client:
        vectors = client.pin_embeddings(pairs.pin_ids).vectors
    np.testing.assert_allclose(pairs.pin_vectors, vectors, atol=1e-6)
    weighted = labelled_pairs(client_shop, VERSION, weighted=True)
    np.testing.assert_allclose(weighted.weights, [0.6, 1.8, 0.6])


def test_labels_of_former_texts_are_no_pairs(client_shop):
    put_sample(client_shop, ("velvet", "sofa0"), ("fern", "fern1"))
    label(client_shop, CountingTeacher())
    view = client_shop.views / "pin_text.parquet"
    table = pq.read_table(view)
    titles = [
        "blue chair" if name == "fern1" else title
        for name, title in zip(table["pin_id"].to_pylist(), table["title"].to_pylist(), strict=True)
    ]
    pq.write_table(table.set_column(table.column_names.index("title"), "title", [titles]), view)
    assert labelled_pairs(client_shop, VERSION).queries == ("velvet",)
    label(client_shop, CountingTeacher())
    assert labelled_pairs(client_shop, VERSION).queries == ("fern", "velvet")
    pq.write_table(table.slice(0, 0), view)
    with pytest.raises(PinfeatherError, match="run `pinfeather label` again"):
        labelled_pairs(client_shop, VERSION)


def test_a_smaller_limit_is_a_part_of_a_larger_one(client_shop):
    put_sample(
        client_shop, *((query, f"{topic}{n}") for query in "abcdef" for topic in ("sofa", "fern") for n in range(3))
    )
    label(client_shop, CountingTeacher())
    found = []
    for limit in (5, 12, 36, 99):
        pairs = labelled_pairs(client_shop, VERSION, limit=limit)
        found.append({(query, pairs.pin_ids[pin]) for query, pin in zip(pairs.queries, pairs.pin_of, strict=True)})
    assert [len(each) for each in found] == [5, 12, 36, 36]
    assert found[0] < found[1] < found[2]
    assert len({query for query, _ in found[1]}) == 2  # whole queries come one after the other


def test_labels_are_found_by_the_teachers_name(client_shop):
    put_sample(client_shop, ("velvet", "sofa0"))
    label(client_shop, CountingTeacher())
    assert find_labels(client_shop, "fake") == find_labels(client_shop, VERSION) == VERSION
    label(client_shop, CountingTeacher("e" * 32))
    with pytest.raises(UsageError, match=r"2 versions of the teacher fake: name one of e+, f+"):
        find_labels(client_shop, "fake")
    with pytest.raises(UsageError, match="no labels of a teacher 'other'"):
        find_labels(client_shop, "other")
