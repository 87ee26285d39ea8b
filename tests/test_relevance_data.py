"""What the relevance tables are made of: splits, samples, remembered vectors and labels, retrieved pairs."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from relevance_shops import Oracle, SmallEncoder

from benchmarks.relevance import data, train
from benchmarks.relevance.labels import soft_labels
from benchmarks.relevance.vectors import RememberedEncoder
from embedders.encoder import as_stored
from embedders.evaluation.folds import fold_key, query_folds
from embedders.evaluation.pairs import PairSet
from feature_repo.errors import PinfeatherError
from feature_repo.pin_text import PinFields

pytest_plugins = ("relevance_shops",)


def as_rows(pairs):
    return [
        (query, pairs.pins[pin], int(level), tuple(target))
        for query, pin, level, target in zip(pairs.queries, pairs.pin_of, pairs.levels, pairs.targets, strict=True)
    ]


@pytest.mark.parametrize("name", data.SETS)
def test_a_split_keeps_every_pair_on_one_side_and_queries_apart(shops, name):
    whole, (train, judge) = data.load(name), data.split(name)
    assert sorted(as_rows(train) + as_rows(judge), key=repr) == sorted(as_rows(whole), key=repr)
    assert not {fold_key(query) for query in train.queries} & {fold_key(query) for query in judge.queries}
    assert 0 < len(judge) < len(train)
    assert as_rows(data.split(name)[1]) == as_rows(judge)


def test_over_all_folds_every_pair_is_judged_once(shops):
    judged = [pair for fold in range(data.FOLDS) for pair in as_rows(data.split("homedepot", fold)[1])]
    assert sorted(judged, key=repr) == sorted(as_rows(data.load("homedepot")), key=repr)
    assert as_rows(data.split("homedepot", 3)[1]) != as_rows(data.split("homedepot")[1])


def test_targets_are_made_of_what_the_raters_said(shops):
    shop = data.load("crowdflower")
    assert shop.targets[0].max() > 0.9999 > shop.targets[1].max()  # all agreed; one was a step off
    middling = data.load("homedepot")
    assert middling.targets @ np.arange(1, 6) == pytest.approx(middling.levels)


def test_an_absent_set_is_named(shops):
    (shops / "homedepot" / "dev_pairs.parquet").unlink()
    with pytest.raises(PinfeatherError, match=r"homedepot/dev_pairs\.parquet is not there"):
        data.load("homedepot")
    with pytest.raises(PinfeatherError, match="allowed are crowdflower, homedepot"):
        data.load("esci")


def test_the_real_splits_are_the_ones_that_all_tables_tell_of(shared_data):
    sizes = {name: tuple(len(side) for side in data.split(name)) for name in data.SETS}
    assert sizes == {"crowdflower": (6546, 1508), "homedepot": (47399, 11763)}


PAIRS = PairSet(
    "few",
    tuple("aabbbc"),
    tuple(PinFields(title=title) for title in "xyz"),
    np.array([0, 1, 1, 2, 0, 2]),
    np.array([1, 2, 3, 4, 5, 1]),
    pin_ids=("p0", "p1", "p2"),
    click_rate=np.array([0.0, 0.1, 0.2]),
    targets=np.eye(5)[[0, 1, 2, 3, 4, 0]],
    slices={"lang": ["l0", "l1", "l2", "l3", "l4", "l5"]},
)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.booleans(), min_size=6, max_size=6).filter(any))
def test_a_subset_keeps_all_that_is_known_of_its_pairs(mask):
    rows = np.flatnonzero(mask)
    some = PAIRS.subset(np.array(mask))
    assert as_rows(some) == [as_rows(PAIRS)[row] for row in rows]
    assert some.slices["lang"] == [f"l{row}" for row in rows]
    assert [some.pin_ids[pin] for pin in some.pin_of] == [PAIRS.pin_ids[PAIRS.pin_of[row]] for row in rows]
    assert list(some.click_rate[some.pin_of]) == list(PAIRS.click_rate[PAIRS.pin_of[rows]])
    assert set(some.pin_of) == set(range(len(some.pins)))
    assert as_rows(PAIRS.subset(rows)) == as_rows(some)


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 30), st.integers(1, 30), st.integers(0, 3))
def test_samples_are_whole_queries_and_smaller_ones_are_part_of_larger_ones(one, other, seed):
    queries = [f"q{number % 9}" for number in range(40)]
    small, large = (data.rows_of_queries(queries, size, seed) for size in sorted((one, other)))
    assert not (small & ~large).any()
    for rows in (small, large):
        taken = {query for query, row in zip(queries, rows, strict=True) if row}
        assert rows.sum() == sum(query in taken for query in queries)
    assert large.sum() <= max(one, other) or len({q for q, row in zip(queries, large, strict=True) if row}) == 1


def test_a_text_is_encoded_once_in_all_runs(tmp_path, small_encoder, monkeypatch):
    monkeypatch.setattr("benchmarks.relevance.vectors.CHUNK", 2)
    first = RememberedEncoder(small_encoder, tmp_path)
    assert np.array_equal(first.encode(["a", "b", "a", "c"]), as_stored(SmallEncoder().encode(["a", "b", "a", "c"])))
    second = RememberedEncoder(small_encoder, tmp_path)
    assert np.array_equal(second.encode(["c", "d"]), as_stored(SmallEncoder().encode(["c", "d"])))
    assert small_encoder.encoded == ["a", "b", "c", "d"]
    assert second.encode([]).shape == (0, 16)


def test_a_pair_is_labelled_once_by_each_teacher(tmp_path, splits):
    teacher, (train, judge) = Oracle(), splits[0]
    labels = soft_labels(teacher, train, folder=tmp_path)
    assert np.array_equal(soft_labels(teacher, train, folder=tmp_path), labels)
    texts = {(query, train.pins[pin]) for query, pin in zip(train.queries, train.pin_of, strict=True)}
    assert teacher.asked == len(texts)
    assert (labels.argmax(1) + 1 == train.levels).mean() > 0.9
    other = Oracle()
    other.fingerprint = "another"
    soft_labels(other, judge, folder=tmp_path)
    assert other.asked == len(set(zip(judge.queries, judge.pin_of, strict=True)))


def test_retrieved_pairs_are_new_near_and_of_training_queries(splits, small_encoder):
    side = splits[0][0]
    some = train.retrieved(side, 100, small_encoder)
    judged = {(query, side.pins[pin]) for query, pin in zip(side.queries, side.pin_of, strict=True)}
    found = [(query, some.pins[pin]) for query, pin in zip(some.queries, some.pin_of, strict=True)]
    assert len(found) == len(set(found)) == 100
    assert not judged & set(found)
    assert {query for query, _ in found} <= set(side.queries)
    assert some.levels is None
    assert train.retrieved(side, 100, small_encoder).queries == some.queries


def test_invented_queries_are_words_of_a_title_and_of_no_judged_fold(splits, small_encoder):
    side = splits[0][0]
    some = train.invented(side, 80, small_encoder)
    assert train.invented(side, 80, small_encoder).queries == some.queries
    assert len(set(some.queries)) == 10
    assert not set(some.queries) & set(side.queries)
    titles = {pin.title for pin in side.pins}
    pairs = [(query, some.pins[pin].title) for query, pin in zip(some.queries, some.pin_of, strict=True)]
    assert len(pairs) == len(set(zip(some.queries, some.pin_of.tolist(), strict=True))) >= 70
    for query in set(some.queries):
        assert any(query in title for title in titles)
        assert any(query in title for asked, title in pairs if asked == query)
    for fold in (data.JUDGE_FOLD, 3):
        asked = train.invented(side, 80, small_encoder, fold=fold).queries
        assert (query_folds(asked, data.FOLDS, data.SEED) != fold).all()
    assert some.levels is None
    with pytest.raises(PinfeatherError, match="ask for fewer"):
        train.invented(side, 100_000, small_encoder)
    few = PairSet.from_rows("few", ["oak"] * 15, [PinFields(title=f"oak {row}") for row in range(15)], [5] * 15)
    with pytest.raises(PinfeatherError, match="few has 15 products: at least 16"):
        train.invented(few, 8, small_encoder)


def test_the_student_learns_from_people_and_teacher_alike(splits, small_encoder, tmp_path, monkeypatch):
    monkeypatch.setattr("benchmarks.relevance.labels.WORK", tmp_path)
    trains = [side for side, _ in splits]
    pairs = train.distilled(trains, Oracle(), 100, small_encoder)
    judged = sum(len(side) for side in trains)
    assert judged < len(pairs) <= judged + 100
    more = train.distilled(trains, Oracle(), 100, small_encoder, {trains[0].name: 40})
    assert len(pairs) < len(more) <= len(pairs) + 40
    teacher = soft_labels(Oracle(), trains[0])
    assert pairs.targets[: len(trains[0])] == pytest.approx((trains[0].targets + teacher) / 2)
    assert pairs.targets[len(trains[0]) : len(trains[0]) + 5].max(axis=1) == pytest.approx(0.92)
