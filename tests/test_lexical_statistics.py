"""Snapshots of the statistics that words are scored by."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from lexical_pins import blob, pins

from feature_repo.lexical import (
    LEXICAL_FIELDS,
    LexicalBlobError,
    LexicalStatistics,
    LexicalStatisticsError,
    LexicalVersionError,
    encode_blob,
    lexical_features,
    statistics,
    token_id,
)

# --- statistics snapshots


def test_statistics_count_documents_that_have_the_field():
    fitted = LexicalStatistics.fit([blob("oak oak", caption="rug"), blob("oak"), blob(caption="oak"), None, blob()])
    named = dict(zip((*LEXICAL_FIELDS, "all"), zip(fitted.documents, fitted.tokens, strict=True), strict=True))
    assert named["title"] == (2, 3)
    assert named["caption"] == (2, 2)
    assert named["all"] == (3, 5)
    oak = fitted.document_frequency[fitted.vocabulary == token_id("oak")][0]
    assert oak[[0, 2, 6]].tolist() == [2, 1, 3]


@given(st.lists(st.none() | pins, max_size=9))
def test_statistics_do_not_depend_on_how_many_blobs_are_counted_at_once(candidates):
    blobs = [None if fields is None else encode_blob(fields) for fields in candidates]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(statistics, "_CHUNK", 2)
        assert LexicalStatistics.fit(iter(blobs)).digest == LexicalStatistics.fit(blobs).digest


def test_a_bad_blob_far_into_the_catalogue_is_named_by_its_row(monkeypatch):
    monkeypatch.setattr(statistics, "_CHUNK", 2)
    with pytest.raises(LexicalBlobError, match="row 4: ") as caught:
        LexicalStatistics.fit([blob("oak")] * 4 + [b"x"])
    assert caught.value.rows == (4,)


@given(candidates=st.lists(pins, max_size=5))
def test_save_and_load(tmp_path_factory, candidates):
    folder = tmp_path_factory.mktemp("lexical")
    fitted = LexicalStatistics.fit([encode_blob(fields) for fields in candidates])
    digest = fitted.save(folder / "new")
    assert [path.name for path in (folder / "new").iterdir()] == [f"{digest}.json"]
    loaded = LexicalStatistics.load(folder / "new" / f"{digest}.json")
    assert loaded.digest == fitted.digest == loaded.save(folder)
    assert (folder / f"{digest}.json").read_bytes() == (folder / "new" / f"{digest}.json").read_bytes()
    for name in ("documents", "tokens", "vocabulary", "document_frequency"):
        np.testing.assert_array_equal(getattr(loaded, name), getattr(fitted, name))


def test_digest_of_a_known_catalogue_never_changes():
    assert (
        LexicalStatistics.fit([blob("oak table"), blob("rug", boards=["oak"])]).digest
        == "601bd62b8e3e26ec2910afb2763b5b98"
    )


def test_a_damaged_snapshot_is_refused(tmp_path):
    digest = LexicalStatistics.fit([blob("oak table"), blob("rug")]).save(tmp_path)
    path = tmp_path / f"{digest}.json"
    good = path.read_text()
    other = LexicalStatistics.fit([blob("sofa lamp"), blob("rug")]).save(tmp_path)
    other_arrays = json.loads((tmp_path / f"{other}.json").read_text())["arrays"]
    arrays = json.loads(good)["arrays"]
    for bad in (
        "",
        good[: len(good) // 2],
        "[]",
        "{}",
        good.replace(arrays, arrays[:-8]),
        good.replace(arrays, other_arrays),
        good.replace('"terms": 3', '"terms": 2'),
        good.replace('"terms": 3', '"terms": 900000000'),
        good.replace('"terms": 3', '"terms": -1'),
        good.replace('"boards"', '"shelves"'),
    ):
        path.write_text(bad)
        with pytest.raises(LexicalStatisticsError, match=r"lexical fit"):
            LexicalStatistics.load(path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(LexicalStatisticsError, match=str(path)):
        LexicalStatistics.load(path)
    with pytest.raises(LexicalStatisticsError, match="no-such-file"):
        LexicalStatistics.load(tmp_path / "no-such-file.json")


def test_a_snapshot_of_another_version_is_refused(tmp_path):
    blobs = [blob("oak")]
    fitted = LexicalStatistics.fit(blobs)
    other = LexicalStatistics(
        fitted.documents, fitted.tokens, fitted.vocabulary, fitted.document_frequency, lexical_version=7
    )
    with pytest.raises(LexicalVersionError, match="version 7, this Pinfeather reads 2"):
        LexicalStatistics.load(tmp_path / f"{other.save(tmp_path)}.json")
    with pytest.raises(LexicalVersionError, match="lexical fit") as caught:
        lexical_features("oak", blobs, other)
    assert caught.value.rows == ()
