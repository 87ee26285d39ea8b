"""The list of erasures, tables without what it has, and that nobody can tell the result from one that never had it."""

import json
import os
import stat

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from erase_shop import NOW, fill, judged, pin, save, tables, views, visit, without, write_raw
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from feature_repo.aggregates import aggregate
from feature_repo.contracts import CONTRACTS
from feature_repo.erased_tables import rewrite_tables
from feature_repo.erasures import Erasures, Subject, Subjects, forget, record
from feature_repo.errors import PinfeatherError, UsageError
from feature_repo.history import history_lock
from feature_repo.paths import RepoPaths
from feature_repo.raw_files import readable, stored_schema
from feature_repo.validation import validate
from materialize.erasure.check import check
from materialize.erasure.flow import erase
from materialize.erasure.online import find_points
from materialize.erasure.pending import Pending, is_pending, save_pending
from materialize.stores.layout import entity_collection, entity_spec, point_id, row_payload
from materialize.stores.port import Point
from materialize.stores.publication import open_writer

CONFIG = "project: shop\nonline_store: {type: materialize.online_store.PinfeatherOnlineStore}\n"


@pytest.fixture
def paths(tmp_path):
    (tmp_path / "feature_store.yaml").write_text(CONFIG)
    return RepoPaths(tmp_path)


def rows(files):
    return [row for file in files for row in pq.read_table(file).to_pylist()]


def test_the_list_keeps_no_name_and_only_grows(paths):
    assert Erasures.load(paths).fingerprint == ""
    first, new = record(paths, Subjects.of(users=["ann"], queries=[" Wedding  ARCH"]))
    assert new == 2
    assert first.has(Subject.USER, "ann")
    assert first.has(Subject.QUERY, "wedding arch")
    assert not first.has(Subject.PIN, "ann")
    again, new = record(paths, Subjects.of(users=["ann"], pins=["p1"]))
    assert new == 1
    assert again.past_fingerprints[:3] == first.past_fingerprints
    assert Erasures.load(paths) == again
    kept = b"".join(file.read_bytes() for file in paths.erasures.iterdir())
    assert not any(name in kept for name in (b"ann", b"wedding", b"p1"))
    modes = {file.name: stat.S_IMODE(os.stat(file).st_mode) for file in paths.erasures.iterdir()}
    assert modes == {"list.json": 0o600, "key": 0o600}


def test_two_repositories_hash_one_name_differently(tmp_path):
    one, two = (record(RepoPaths(tmp_path / name), Subjects.of(users=["ann"]))[0] for name in "ab")
    assert one.entries != two.entries


@pytest.mark.parametrize("damage", ["key gone", "key short", "list cut"])
def test_a_list_that_cannot_be_read_stops_everything(paths, damage):
    write_raw(paths, "pins", tables()["pins"])
    record(paths, Subjects.of(users=["ann"]))
    key, listed = paths.erasures / "key", paths.erasures / "list.json"
    {"key gone": key.unlink, "key short": lambda: key.write_bytes(b"x"), "list cut": lambda: listed.write_text("{")}[
        damage
    ]()
    for work in (lambda: validate(paths), lambda: record(paths, Subjects.of(users=["bob"]))):
        with pytest.raises(PinfeatherError, match="come back"):
            work()
    assert not paths.valid_files("pins")


@pytest.mark.parametrize("names", [{"users": [""]}, {"pins": ["  "]}, {"queries": ["\u200b "]}])
def test_an_empty_name_is_refused(names):
    with pytest.raises(UsageError, match="is empty"):
        Subjects.of(**names)


def test_rows_leave_accepted_and_rejected_alike_and_stay_away(paths):
    saves = [save("ann", "p1", "a"), save("bob", "p1", "b"), save("ann", "p2", "c")]
    write_raw(paths, "pins", tables()["pins"])
    write_raw(paths, "board_saves", [*saves, *(save(user, "p1", "x" * 30_000, "board") for user in ("ann", "bob"))])
    write_raw(paths, "search_log", [{**visit("cy", "Wedding\tArch", "p1"), "position": -1}, visit("cy", "x", "p1")])
    validate(paths)
    erasures, _ = record(paths, Subjects.of(users=["ann"], queries=["wedding arch"]))
    assert rewrite_tables(paths, erasures) == {"board_saves": 3, "search_log": 1}
    for _ in range(2):
        assert [row["user_id"] for row in rows(paths.valid_files("board_saves"))] == ["bob"]
        assert [row["user_id"] for row in rows(paths.rejected_files("board_saves"))] == ["bob"]
        assert [row["query"] for row in rows(paths.valid_files("search_log"))] == ["x"]
        assert rows(paths.rejected_files("search_log")) == []
        report = validate(paths)
        assert (report.tables["board_saves"].erased, report.tables["search_log"].erased) == (3, 1)
        assert report.tables["board_saves"].to_json()["rejected"] == {
            "board_title: longer than 20,000 characters; shorten it": 1
        }
    assert rewrite_tables(paths, erasures) == {}


def test_an_annotator_leaves_and_the_judgment_stays(paths):
    write_raw(paths, "pins", tables()["pins"])
    told = [{**judged("oak", f"p{n}"), "annotator": name} for n, name in enumerate(["ann", "bob", "ann"])]
    write_raw(paths, "judgments", [*told, {**told[0], "level": 9}, {**told[1], "level": 9}])
    validate(paths)
    found = {place.name: place.found for place in check(paths, Subjects.of(users=["ann"]))}
    assert (found["raw tables"], found["valid tables"], found["rejected rows"]) == (3, 2, 1)
    report = erase(paths, Subjects.of(users=["ann"]))
    assert (report.unknown, report.rows) == ({}, {})
    for _ in range(2):
        assert [row["annotator"] for row in rows(paths.valid_files("judgments"))] == [None, "bob", None]
        assert [row["annotator"] for row in rows(paths.rejected_files("judgments"))] == [None, "bob"]
        assert not any(place.fails for place in check(paths, Subjects.of(users=["ann"])))
        assert validate(paths).tables["judgments"].erased == 0


def write_as_pandas(paths, table, rows, **columns):
    """Raw rows with other columns in the place of those of the contract."""
    folder = paths.raw / table
    folder.mkdir(parents=True)
    data = pa.Table.from_pylist(rows, schema=stored_schema(CONTRACTS[table]))
    for name, values in columns.items():
        data = data.set_column(data.column_names.index(name), name, values)
    pq.write_table(data, folder / "a.parquet")


@pytest.mark.parametrize("kind", [pa.float64(), pa.float32(), pa.int64()])
def test_an_id_that_pandas_made_a_float_is_spelt_one_way(paths, kind):
    write_raw(paths, "pins", tables()["pins"])
    number = 12_345_678 if kind == pa.float32() else 1_234_567_890_123
    three = [visit("x", "oak", "p1"), {**visit("x", "oak", "p1"), "position": -1}, visit("x", "oak", "p1")]
    write_as_pandas(paths, "search_log", three, user_id=pa.array([number, number, None], kind))
    validate(paths)
    asked = Subjects.of(users=[str(number)])
    assert [row["user_id"] for row in rows(paths.rejected_files("search_log"))] == [str(number), None]
    found = {place.name: place.found for place in check(paths, asked)}
    assert (found["raw tables"], found["valid tables"], found["rejected rows"]) == (2, 1, 1)
    assert erase(paths, asked).rows == {"search_log": 2}
    assert not any(place.fails for place in check(paths, asked))


def test_floats_that_are_no_ids_read_as_they_are():
    column = pa.chunked_array([pa.array([1.5, -3.0, 1e300, float("inf"), float("nan"), None, 2.0**62])])
    assert readable(column).to_pylist() == ["1.5", "-3", "1e+300", "inf", "nan", None, str(2**62)]


@pytest.mark.parametrize("spelt", ["secret\x07user", "secret\\x07user"], ids=["as it is", "as rejected"])
def test_an_id_with_a_control_character_is_found_as_it_is_rejected(paths, spelt):
    write_raw(paths, "pins", tables()["pins"])
    write_raw(paths, "board_saves", [save("secret\x07user", "p1", "mine"), save("bob", "p1", "mine")])
    validate(paths)
    asked = Subjects.of(users=[spelt])
    found = {place.name: place.found for place in check(paths, asked)}
    assert (found["raw tables"], found["rejected rows"]) == (1, 1)
    report = erase(paths, asked)
    assert (report.rows, report.unknown) == ({"board_saves": 1}, {})
    validate(paths)
    assert rows(paths.rejected_files("board_saves")) == []
    assert not any(place.fails for place in check(paths, asked))


def test_a_name_that_reads_like_an_escape_is_itself(paths):
    erasures, _ = record(paths, Subjects.of(users=["a\\x07b", "c\x07d"]))
    names = pa.chunked_array([["a\\x07b", "c\\x07d", "c\x07d", "a\x07b", None]])
    assert erasures.rows(Subject.USER, names).tolist() == [True, False, True, False, False]
    assert erasures.rows(Subject.USER, names, readable=True).tolist() == [True, True, True, False, False]


def test_a_query_is_found_however_it_is_spelt_and_as_it_is_rejected(paths):
    erasures, _ = record(paths, Subjects.of(queries=["wedding arch"]))
    asked = pa.chunked_array([[" Wedding  ARCH", "Wedding\\x09arch", "wedding", None]])
    assert erasures.rows(Subject.QUERY, asked).tolist() == [True, False, False, False]
    assert erasures.rows(Subject.QUERY, asked, readable=True).tolist() == [True, True, False, False]


def test_points_that_name_it_in_their_key_or_among_engaged_queries_are_found(tmp_path, paths):
    erasures, _ = record(paths, Subjects.of(pins=["p1"], queries=["wedding arch"]))
    rows = {
        "key": ({"pin_id": "p1"}, {}),
        "query": ({"query": "Wedding  arch"}, {}),
        "list": ({"pin_id": "p2"}, {"engaged_queries": ["oak", "WEDDING arch"]}),
        "title": ({"pin_id": "p3"}, {"title": "wedding arch"}),
    }
    with open_writer(tmp_path / "store") as store:
        for view, (entity, features) in rows.items():
            collection = entity_collection("shop", sorted(entity))
            store.create(collection, entity_spec())
            store.upsert(collection, [Point(point_id("shop", view, entity), row_payload(view, entity, 1, features))])
        found = {point.payload["view"] for _, point in find_points(store, erasures)}
    assert found == {"key", "query", "list"}


def test_a_name_that_no_row_bears_is_told_once(paths):
    write_raw(paths, "pins", tables()["pins"])
    write_raw(paths, "board_saves", [save("ann", "p1", "a"), {**save("cy", "p1", "a"), "secret": None}])
    write_raw(paths, "search_log", [visit("bob", "Wedding\u00a0ARCH", "p2")])
    validate(paths)
    names = {"users": ["ann", "bob", "cy", "anne"], "pins": ["p1", "p11"], "queries": ["wedding arch", "wedding ark"]}
    report = erase(paths, Subjects.of(**names))
    assert report.unknown == {"user": ["anne"], "pin": ["p11"], "query": ["wedding ark"]}
    assert report.to_json()["unknown"] == report.unknown
    assert Erasures.load(paths).has(Subject.USER, "anne")
    assert erase(paths, Subjects.of(**names)).unknown == {}


def test_a_mistake_is_taken_back_even_if_more_was_erased_since(paths):
    write_raw(paths, "pins", tables()["pins"])
    write_raw(paths, "search_log", [visit(user, "oak", "p2") for user in ("ann", "bob", "cy")])
    validate(paths)

    def people():
        return sorted(row["user_id"] for row in rows(paths.valid_files("search_log")))

    erase(paths, Subjects.of(users=["ann"]))
    assert forget(paths, Subjects.of(users=["ann", "dee"])) == 1
    assert forget(paths, Subjects.of(users=["ann"])) == 0
    erase(paths, Subjects.of(users=["bob"]))  # rewrites what lacks ann still
    assert people() == ["cy"]
    validate(paths)
    assert people() == ["ann", "cy"]
    erase(paths, Subjects.of(users=["ann"]))
    assert people() == ["cy"]
    assert validate(paths).tables["search_log"].read == 0


def test_an_erasure_that_met_another_process_at_the_history_is_ended_by_the_same_command(paths):
    fill(paths, tables())
    with history_lock(paths), pytest.raises(PinfeatherError, match="run the same command again"):
        erase(paths, Subjects.of(users=["ann"]))
    assert is_pending(paths)
    assert any(place.fails for place in check(paths, Subjects.of(users=["ann"])))
    assert erase(paths, Subjects.of(users=["ann"])).resumed
    assert not is_pending(paths)
    assert not any(place.fails for place in check(paths, Subjects.of(users=["ann"])))
    assert "wedding arch" not in {row["query"] for row in views(paths)["query_stats"]}


def test_an_aggregate_that_began_before_an_erasure_replaces_nothing(paths):
    fill(paths, tables())
    before = views(paths)

    def erase_meanwhile(stage, done, total):
        record(paths, Subjects.of(users=["ann"]))

    with pytest.raises(PinfeatherError, match="Run it again"):
        aggregate(paths, min_users=1, progress=erase_meanwhile)
    assert views(paths) == before


def test_the_state_of_the_log_goes_where_nothing_is_aggregated_anew(paths):
    fill(paths, tables())
    assert list(paths.aggregates.glob("*.parquet"))
    for file in paths.views.glob("*.parquet"):
        file.unlink()
    erase(paths, Subjects.of(users=["ann"]))
    assert not list(paths.aggregates.glob("*.parquet"))


def test_captions_leave_with_the_last_pin_that_has_the_image(paths):
    raw = tables()
    raw["pins"] = [pin("p1", "a", image_sha256="shared"), pin("p2", "b", image_sha256="SHARED"), pin("p3", "c")]
    raw["captions"] = [{"image_sha256": "shared", "captioner": "c", "caption": "a photo", "event_timestamp": NOW}]
    made = paths.captions / "fp" / "a.parquet"
    made.parent.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(raw["captions"]), made)
    fill(paths, raw)
    assert erase(paths, Subjects.of(pins=["p1"])).captions == 0
    assert len(rows(paths.valid_files("captions"))) == len(rows([made])) == 1
    assert erase(paths, Subjects.of(pins=["p2"])).captions == 1
    assert rows(paths.valid_files("captions")) == rows([made]) == []
    write_raw(paths, "pins", [pin("p4", "new", image_sha256="shared")])
    validate(paths)
    assert len(rows(paths.valid_files("captions"))) == 1


users = st.sampled_from(["ann", "bob", "cy"])
pins = st.sampled_from(["p0", "p1", "p2", "p3"])
queries = st.sampled_from(["Wedding arch", "wedding ARCH", "garden party", "oak"])
actions = st.sampled_from(["impression", "click", "save"])
catalogues = st.fixed_dictionaries(
    {
        "pins": st.just([pin(f"p{n}", f"oak shelf {n}", image_sha256=f"image{n}") for n in range(4)]),
        "board_saves": st.lists(
            st.builds(save, users, pins, st.sampled_from(["alpine cabin", "oak", "mine"])), max_size=8
        ),
        "search_log": st.lists(st.builds(visit, users, queries, pins, actions, st.integers(1, 9)), max_size=12),
        "judgments": st.lists(st.builds(judged, queries, pins), max_size=3),
        "captions": st.just([]),
    }
)
names = st.tuples(
    st.sets(users, max_size=1),
    st.sets(pins, max_size=1),
    st.sets(st.sampled_from(["wedding arch", "garden party"]), max_size=1),
).filter(any)


def same_as_never_had(folder, raw, subjects):
    """Aggregates after an erasure against those of a catalogue that never had it."""
    erased, never = RepoPaths(folder / "erased"), RepoPaths(folder / "never")
    fill(erased, raw)
    erase(erased, Subjects.of(*subjects))
    fill(never, without(raw, *subjects))
    assert views(erased) == views(never)
    validate(erased)  # and so does the next day
    aggregate(erased)
    assert views(erased) == views(never)


@settings(max_examples=2, deadline=None, suppress_health_check=list(HealthCheck))
@given(raw=catalogues, subjects=names)
def test_views_are_those_of_a_catalogue_that_never_had_it(tmp_path_factory, raw, subjects):
    same_as_never_had(tmp_path_factory.mktemp("views"), raw, subjects)


@pytest.mark.slow
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(raw=catalogues, subjects=names)
def test_views_are_those_of_a_catalogue_that_never_had_it_over_many(tmp_path_factory, raw, subjects):
    same_as_never_had(tmp_path_factory.mktemp("views"), raw, subjects)


def test_the_command_its_exit_codes_and_its_json(tmp_path, pinfeather):
    paths = RepoPaths(tmp_path)
    (tmp_path / "feature_store.yaml").write_text(CONFIG)
    write_raw(paths, "pins", tables()["pins"])
    write_raw(paths, "board_saves", tables()["board_saves"])
    validate(paths)
    asked = ("--repo", tmp_path, "--user", "ann", "--pin", "p1")
    code, out, _ = pinfeather("erase", *asked, "--check", "--json")
    found = json.loads(out)
    assert (code, found["clean"]) == (1, False)
    assert found["places"]["raw tables"]["where"] == ["raw/pins/a.parquet", "raw/board_saves/a.parquet"]
    assert found["places"]["valid tables"]["found"] == 4
    save_pending(paths, Pending(frozenset(["p1"])))
    assert "begun and not ended" in pinfeather("validate", "--repo", tmp_path)[2]

    code, out, _ = pinfeather("erase", *asked, "--json")
    done = json.loads(out)
    assert (code, done["recorded"], done["rows"], done["run"]) == (0, 3, {"pins": 1, "board_saves": 3}, None)
    assert done["touched"] == 1  # p3, where ann saved it

    code, out, err = pinfeather("erase", *asked, "--check")
    assert code == 0
    assert "Clean" in err
    assert "yours to delete" in err

    code, out, err = pinfeather("erase", *asked)
    assert code == 0
    assert "Yours to delete" in err


def test_the_command_tells_a_misspelled_name_and_takes_it_back(tmp_path, pinfeather):
    paths = RepoPaths(tmp_path)
    (tmp_path / "feature_store.yaml").write_text(CONFIG)
    write_raw(paths, "pins", tables()["pins"])
    write_raw(paths, "board_saves", [save("ann", "p1", "a")])
    validate(paths)
    asked = ("--repo", tmp_path, "--user", "anne")
    code, _, err = pinfeather("erase", *asked)
    assert code == 0
    assert "bore the user 'anne': recorded all the same" in err
    assert "--forget takes it back" in err
    assert "--purge-former" in err
    save_pending(paths, Pending())
    assert pinfeather("erase", *asked, "--forget")[0] == 2
    assert pinfeather("erase", "--repo", tmp_path)[0] == 0
    assert json.loads(pinfeather("erase", *asked, "--forget", "--json")[1]) == {"forgotten": 1}
    assert "0 of 1" in pinfeather("erase", *asked, "--forget")[2]
    assert Erasures.load(paths).entries == ()
    assert pinfeather("erase", "--repo", tmp_path, "--purge-former")[0] == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "give --user, --pin or --query"),
        (("--check",), "needs something to look for"),
        (("--user", " "), "--user is empty"),
        (("--user", "caf\udcff"), r"--user caf\xff has bytes that are no UTF-8"),
        (("--query", "caf\udcff"), r"--query caf\xff has bytes that are no UTF-8"),
        (("--forget",), "needs the names"),
        (("--user", "ann", "--forget", "--check"), "give one of them"),
    ],
)
def test_the_command_used_wrongly(tmp_path, pinfeather, words, said):
    (tmp_path / "feature_store.yaml").write_text(CONFIG)
    code, _, err = pinfeather("erase", "--repo", tmp_path, *words)
    assert code == 2
    assert said in err
