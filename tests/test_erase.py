"""Erasures: what leaves, what it costs, that it stays away, and that a killed one is ended by the same command."""

from unittest.mock import patch

import pyarrow.parquet as pq
import pytest
import run_deaths
from conftest import CountingEncoder
from erase_shop import QUERY, SHARED_QUERY, erased, log_rows, pin, run, tables, views, write_raw, write_shop
from fake_qdrant import move_store
from run_deaths import dying

from feature_repo.aggregates import aggregate
from feature_repo.erasures import Subjects
from feature_repo.errors import PinfeatherError
from feature_repo.lexical import LexicalStatistics
from feature_repo.validation import validate
from materialize.audit import audit
from materialize.erasure import flow
from materialize.erasure.check import check
from materialize.erasure.flow import erase
from materialize.erasure.pending import is_pending
from materialize.releases import current_release
from materialize.run import RunOptions, materialize
from materialize.space_admin import create_space
from materialize.spaces import freeze_space
from materialize.stores.publication import open_reader
from pinfeather.pipeline import fit_lexical

pytest_plugins = ("server_fixtures",)


@pytest.fixture
def shop(prepared):
    """A repository with the small shop, written."""
    return prepared("erasures", write_shop)


def test_a_user_leaves_with_the_words_that_stood_on_them(shop, encoder):
    report = erased(shop, encoder, users=["ann"])
    assert report.rows == {"board_saves": 2, "search_log": 3}
    assert (report.recorded, report.pins, report.touched) == (1, 0, 3)
    assert len(encoder.texts) == 2  # p1 and p2; p3 has enough people without ann
    assert not any("alpine" in text or "wedding" in text for text in encoder.texts)
    found = views(shop)
    assert [row["query"] for row in found["query_stats"]] == [SHARED_QUERY]
    assert {row["pin_id"]: row["board_titles"] for row in found["pin_board_titles"]}["p1"] == []
    assert audit(shop).clean


@pytest.mark.slow
def test_what_is_erased_costs_no_model_where_no_text_changes(shop, encoder):
    report = erased(shop, encoder, pins=["p5"], queries=["never asked"])
    assert encoder.calls == []
    assert (report.counts.deleted, report.counts.encoder_calls, report.recorded) == (1, 0, 3)  # its image, too
    again = erased(shop, encoder, pins=["p5"])
    assert (again.recorded, again.rows, again.online, again.counts.deleted) == (0, {}, 0, 0)
    assert encoder.calls == []


@pytest.mark.slow
def test_past_vectors_of_the_words_leave_the_log_and_frozen_spaces(shop, encoder):
    live = current_release(shop).live_space
    frozen = create_space(shop, "old", without=["caption"]).name
    materialize(shop, RunOptions(encoder=encoder, space=frozen))
    freeze_space(shop, frozen)
    write_raw(shop, "pins", [*tables()["pins"][:9], pin("p9", "now of birch")])
    validate(shop)
    aggregate(shop)
    run(shop, encoder)
    encoder.calls.clear()
    assert log_rows(shop, live) == {**dict.fromkeys((f"p{n}" for n in range(9)), 1), "p9": 2}
    report = erased(shop, encoder, users=["ann"])
    assert len(encoder.texts) == 2  # p1 and p2
    assert report.settled.points == {frozen: 2}
    assert log_rows(shop, frozen) == dict.fromkeys((f"p{n}" for n in (0, *range(3, 10))), 1)
    # the other pins keep their past, p3 and p9 too
    assert log_rows(shop, live) == {**dict.fromkeys((f"p{n}" for n in range(9)), 1), "p9": 2}
    assert report.settled.vectors == {live: 2}
    assert audit(shop).clean


@pytest.mark.slow
@pytest.mark.parametrize("killed", [False, True], ids=["whole", "killed"])
def test_rows_that_left_the_raw_tables_first_need_the_former_vectors_purged(shop, encoder, killed):
    live = current_release(shop).live_space
    raw = tables()
    write_raw(shop, "pins", [*raw["pins"][:9], pin("p9", "now of birch")])
    for table in ("board_saves", "search_log"):
        write_raw(shop, table, [row for row in raw[table] if row["user_id"] != "ann"])
    validate(shop)
    aggregate(shop)
    run(shop, encoder)
    report = erased(shop, encoder, users=["ann"])
    assert (report.unknown, report.touched, report.settled.vectors) == ({"user": ["ann"]}, 0, {})
    assert {name for name, rows in log_rows(shop, live).items() if rows == 2} == {"p1", "p2", "p9"}
    if killed:
        with patch.dict(run_deaths.SEAMS, {"settle": run_deaths.Seam(flow, "settle")}), dying(["settle"], 1, False):
            erase(shop, Subjects.of(), RunOptions(encoder=encoder), purge_former=True)
    encoder.calls.clear()
    report = erase(shop, Subjects.of(), RunOptions(encoder=encoder), purge_former=not killed)
    assert (report.resumed, report.settled.vectors, report.settled.points) == (killed, {live: 3}, {})
    assert log_rows(shop, live) == {f"p{n}": 1 for n in range(10)}
    assert encoder.calls == []
    assert run(shop, encoder).quiet
    assert audit(shop).clean


@pytest.mark.slow
def test_a_pin_whose_row_is_refused_keeps_nothing_of_what_was_erased(shop, encoder):
    write_raw(
        shop, "pins", [row | ({"lang": "x" * 30_000} if row["pin_id"] == "p1" else {}) for row in tables()["pins"]]
    )
    assert validate(shop).total_rejected == 1
    aggregate(shop)
    assert run(shop, encoder).held == 1
    encoder.calls.clear()
    report = erased(shop, encoder, users=["ann"])
    assert (report.counts.deleted, len(encoder.texts)) == (1, 1)  # p1 waits for its row, p2 has a new text
    write_raw(shop, "pins", tables()["pins"])
    validate(shop)
    aggregate(shop)
    assert run(shop, encoder).new == 1
    assert audit(shop).clean


@pytest.mark.slow
def test_no_byte_of_a_pin_or_a_query_is_left_under_data(shop, encoder):
    """Deleted points stay in the engine's files, and deleted rows in those of SQLite, unless somebody writes anew."""
    write_raw(shop, "pins", [*tables()["pins"], pin("pin-of-ann", "zeppelin")], "a")
    validate(shop)
    aggregate(shop)
    run(shop, encoder)
    words = [b"pin-of-ann", b"zeppelin", QUERY.encode(), QUERY.lower().encode()]
    before = files_with(shop, words)
    assert all(before[word] for word in words)
    erased(shop, encoder, users=["ann"], pins=["pin-of-ann"], queries=[QUERY])
    left = files_with(shop, words)
    assert all("deletions" in file for file in left.pop(b"pin-of-ann"))  # so that followers of the log hear of it
    assert left == {word: [] for word in words[1:]}
    assert audit(shop).clean


def files_with(paths, words):
    """Word to the files under ``data``, but for the raw tables, that have its bytes."""
    files = [path for path in paths.data.rglob("*") if path.is_file() and not path.is_relative_to(paths.raw)]
    found = {word: [] for word in words}
    for path in files:
        data = content(path)
        for word in words:
            if word in data:
                found[word].append(path.relative_to(paths.data).as_posix())
    return found


def content(path):
    """The bytes of a file; of a Parquet file those of its values."""
    if path.suffix != ".parquet":
        return path.read_bytes()
    with pq.ParquetFile(path) as file:
        columns = [name for name in file.schema_arrow.names if name != "embedding"]
        return repr(file.read(columns=columns).to_pylist()).encode()


@pytest.mark.slow
def test_old_publications_go_once_unread(shop, encoder):
    with open_reader(shop.online) as reader:
        number = reader.snapshot().number
        report = erased(shop, encoder, pins=["p1"])
        assert report.held_publications == [number]
        found = {place.name: place for place in check(shop, Subjects.of(pins=["p1"]))}
        assert found["publications"].found > 0
        assert "when its reader closes" in found["publications"].note
    assert not any(place.fails for place in check(shop, Subjects.of(pins=["p1"])))


@pytest.mark.slow
def test_a_text_that_the_encoder_cannot_take_leaves_no_vector_of_the_former(shop, encoder):
    class Failing(CountingEncoder):
        def encode(self, texts, progress=None):
            if any("number 1" in text for text in texts):
                raise ValueError("no")
            return super().encode(texts, progress)

    live = current_release(shop).live_space
    report = erased(shop, Failing(), users=["ann"])
    assert (report.counts.quarantined, report.settled.points) == (1, {live: 1})
    assert "p1" not in log_rows(shop, live)
    assert audit(shop).clean
    materialize(shop, RunOptions(encoder=encoder, retry_quarantined=True))
    assert "p1" in log_rows(shop, live)


@pytest.mark.slow
def test_the_loss_of_the_erased_is_believed_and_of_no_others(shop, encoder):
    report = erased(shop, encoder, pins=[f"p{n}" for n in range(6)])
    assert (report.counts.gone, report.counts.deleted) == (6, 6)
    write_raw(shop, "pins", tables()["pins"][:8])  # two of the four that are left are gone, without a word
    validate(shop)
    with pytest.raises(PinfeatherError, match="2 of 4 pins are gone"):
        erased(shop, encoder, users=["ann"])
    assert is_pending(shop)
    assert erase(shop, Subjects.of(), RunOptions(encoder=encoder, allow_deletes=True)).resumed
    assert not any(place.fails for place in check(shop, Subjects.of(users=["ann"])))
    assert audit(shop).clean


@pytest.mark.slow
def test_statistics_are_fitted_again_without_the_words(shop, encoder):
    fitted = fit_lexical(shop)["digest"]
    report = erase(
        shop, Subjects.of(queries=[QUERY]), RunOptions(encoder=encoder), refit=lambda: str(fit_lexical(shop)["digest"])
    )
    assert report.former_lexical == [fitted]
    assert current_release(shop).lexical == report.lexical
    before, after = (LexicalStatistics.load(shop.lexical / f"{digest}.json") for digest in (fitted, report.lexical))
    assert set(after.vocabulary) < set(before.vocabulary)


@pytest.mark.slow
def test_the_options_of_the_last_aggregate_are_used_again(shop, encoder):
    aggregate(shop, min_users=3)
    report = erased(shop, encoder, users=["nobody"])
    assert report.views["query_stats"] == 1  # the query that three people asked
    assert (
        erase(shop, Subjects.of(users=["nobody"]), RunOptions(encoder=encoder), min_users=1).views["query_stats"] == 2
    )


@pytest.mark.slow
def test_on_a_server(repo, encoder, fake):
    move_store(repo.root, fake.url, 5)
    write_shop(repo)
    names = {"users": ["ann"], "pins": ["p5"], "queries": [SHARED_QUERY]}
    before = {place.name: place for place in check(repo, Subjects.of(**names))}
    assert before["store"].found > 2
    assert before["publications"].found == 0
    erased(repo, encoder, **names)
    assert not any(place.fails for place in check(repo, Subjects.of(**names)))
    assert audit(repo).clean
