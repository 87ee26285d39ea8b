"""Aggregates: equal to a plain recompute, blind to the future, private, and the same bytes every time."""

from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from board_recompute import expected_boards, expected_links
from conftest import examples, random_examples
from hypothesis import strategies as st
from log_recompute import expected_log, stamps

from feature_repo.aggregates import VIEW_SCHEMAS, aggregate
from feature_repo.columns import arrow_type
from feature_repo.contracts import CONTRACTS
from feature_repo.errors import ContractError, PinfeatherError, UsageError
from feature_repo.lexical import LEXICAL_VERSION
from feature_repo.lexical.blobs import encode_blob
from feature_repo.paths import RepoPaths
from feature_repo.pin_text import PinFields

AS_OF = datetime(2026, 1, 1, tzinfo=UTC)
WINDOW = 100
TABLES = ("pins", "board_saves", "search_log", "captions")


def day(number):
    """A moment ``number`` days after (or before) the time everything is computed as of."""
    return AS_OF + timedelta(days=number)


def put(paths, **tables):
    """Writes valid tables as ``validate`` would; columns that a row leaves out are null."""
    paths.valid.mkdir(parents=True, exist_ok=True)
    for name in TABLES:
        schema = pa.schema([(column.name, arrow_type(column.kind)) for column in CONTRACTS[name].columns])
        pq.write_table(pa.Table.from_pylist(tables.get(name, []), schema=schema), paths.valid / f"{name}.parquet")


def run(paths, **options):
    """Aggregates, and gives every view source as rows."""
    aggregate(paths, **({"as_of": AS_OF, "window_days": WINDOW} | options))
    return views(paths)


def views(paths):
    return {view: pq.read_table(paths.views / f"{view}.parquet").to_pylist() for view in VIEW_SCHEMAS}


def by_pin(rows, column):
    return {row["pin_id"]: row[column] for row in rows}


@pytest.fixture
def paths(tmp_path):
    return RepoPaths(tmp_path)


def pin(name, at=-50, **more):
    return {"pin_id": name, "event_timestamp": day(at), **more}


def save(pin_id, title, user, at=-10, board=None, secret=False, removed=None):
    return {
        "board_id": board or f"{user}/{title}",
        "board_title": title,
        "pin_id": pin_id,
        "user_id": user,
        "saved_at": day(at),
        "removed_at": None if removed is None else day(removed),
        "secret": secret,
    }


def saved_by(pin_id, title, count):
    """Saves by ``count`` people who save nothing else."""
    return [save(pin_id, title, f"{title}-{number}") for number in range(count)]


def event(query, pin_id, user, action="click", at=-10, request=None, dwell=None, lang=None):
    return {
        "request_id": request or f"{user}-{query}-{at}",
        "query": query,
        "lang": lang,
        "user_id": user,
        "pin_id": pin_id,
        "action": action,
        "dwell_s": dwell,
        "event_timestamp": day(at),
    }


# An independent recompute, row by row --------------------------------------------------------------------------------


def expected(tables, min_users, as_of=AS_OF, window=WINDOW):
    pins = {
        row["pin_id"]: row
        for row in tables["pins"]
        if row["event_timestamp"] <= as_of and not (row.get("deleted_at") and row["deleted_at"] <= as_of)
    }
    captions = expected_captions(pins, tables["captions"], as_of)
    boards = expected_boards(pins, tables["board_saves"], min_users, as_of)
    found, _ = expected_log(tables, pins, min_users, as_of, window)
    found["pin_text"] = [
        {name: row.get(name) for name in VIEW_SCHEMAS["pin_text"].names} | stamps(row["event_timestamp"])
        for row in pins.values()
    ]
    found["pin_link_text"] = expected_links(pins)
    found |= {"pin_captions": captions, "pin_board_titles": boards}
    found["pin_relevance"] = expected_relevance(pins, found)
    keys = ("query", "pin_id")
    return {view: sorted(rows, key=lambda row: [row.get(key, "") for key in keys]) for view, rows in found.items()}


def expected_captions(pins, captions, as_of):
    latest = {}
    rows = [row for row in captions if row["event_timestamp"] <= as_of]
    for row in sorted(rows, key=lambda row: (-row["event_timestamp"].timestamp(), row["captioner"], row["caption"])):
        latest.setdefault(row["image_sha256"], row)
    return [
        {"pin_id": name, "caption": found["caption"], "captioner": found["captioner"]}
        | stamps(max(row["event_timestamp"], found["event_timestamp"]))
        for name, row in pins.items()
        if (found := latest.get(row.get("image_sha256")))
    ]


def expected_relevance(pins, found):
    parts = ("pin_captions", "pin_link_text", "pin_board_titles", "pin_engaged_queries", "pin_engagement")
    known = {view: {row["pin_id"]: row for row in found[view]} for view in parts}
    rows = []
    for name, row in pins.items():
        mine = [known[view][name] for view in parts if name in known[view]]
        joined = dict(row)
        for part in mine:
            joined |= part
        rows.append(
            {
                "pin_id": name,
                "tokens": encode_blob(PinFields.from_row(joined)),
                "lexical_version": LEXICAL_VERSION,
                "click_rate": joined.get("click_rate"),
                "save_rate": joined.get("save_rate"),
            }
            | stamps(max([row["event_timestamp"], *(part["event_timestamp"] for part in mine)]))
        )
    return rows


# Random small worlds -------------------------------------------------------------------------------------------------

NAMES = ("p1", "p2", "p3", "ghost")
days = st.sampled_from([-150, -WINDOW, -60, -20, -20, -3, 0, 1, 30])
users = st.sampled_from(["ann", "bob", "cid"])
titles = st.sampled_from(
    ["Kitchen ideas", "kitchen  IDEAS!", "Kitchen-ideas 🌿", "My stuff", "🌿", "مطبخ", "my kitchen", " ", "@ann_b"]
)
asked = st.sampled_from(["oak table", "Oak  Table ", "苔 庭", "x", "\x00", "lamp"])


@st.composite
def worlds(draw, at=days, max_size=14):
    """Valid tables with few names, so that everything meets everything."""
    pins = [
        pin(
            name,
            draw(at),
            title=draw(st.sampled_from([None, "Oak table", "苔庭 🌿"])),
            link_title=draw(st.sampled_from([None, "Shop", "Oak shop", "404 | Shop", "oak table"])),
            image_sha256=draw(st.sampled_from([None, "i1", "i2"])),
            deleted_at=draw(st.sampled_from([None, None, day(-5), day(0), day(2)])),
        )
        for name in NAMES[:3]
    ]
    moments = st.one_of(st.none(), at)
    saves = draw(
        st.lists(
            st.builds(save, st.sampled_from(NAMES), titles, users, at, st.sampled_from(["b1", "b2"]),
                      st.sampled_from([False] * 7 + [True]), moments),
            max_size=max_size,
        )
    )  # fmt: skip
    log = draw(
        st.lists(
            st.builds(event, asked, st.sampled_from(NAMES), users,
                      st.sampled_from(["impression", "click", "long_click", "save"]), at,
                      st.sampled_from(["r1", "r2", None]), st.sampled_from([None, 2.0, 10.0, 10.5]),
                      st.sampled_from([None, "de", "en"])),
            max_size=max_size,
        )
    )  # fmt: skip
    captions = [
        {"image_sha256": image, "captioner": who, "caption": f"{who} sees {image}", "event_timestamp": day(draw(at))}
        for image in ("i1", "i2")
        for who in draw(st.lists(st.sampled_from(["blip", "cap"]), max_size=2))
    ]
    return {"pins": pins, "board_saves": saves, "search_log": log, "captions": captions}


@examples(8, 100)
def test_equals_a_recompute_row_by_row(paths, examples):
    @random_examples(examples, worlds(), st.integers(1, 3))
    def check(world, min_users):
        put(paths, **world)
        assert run(paths, min_users=min_users) == expected(world, min_users)

    check()


@examples(4, 40)
def test_later_events_and_the_order_of_rows_change_no_byte(paths, examples):
    @random_examples(examples, worlds(), worlds(at=st.integers(1, 200)), st.randoms(use_true_random=False))
    def check(world, later, order):
        put(paths, **world)
        run(paths)
        before = {view: (paths.views / f"{view}.parquet").read_bytes() for view in VIEW_SCHEMAS}
        future = {table: rows + [row for row in later[table] if table != "pins"] for table, rows in world.items()}
        future["pins"] = world["pins"] + [row | {"pin_id": f"new-{row['pin_id']}"} for row in later["pins"]]
        for rows in future.values():
            order.shuffle(rows)
        put(paths, **future)
        run(paths)
        assert {view: (paths.views / f"{view}.parquet").read_bytes() for view in VIEW_SCHEMAS} == before

    check()


# What a user would notice --------------------------------------------------------------------------------------------


def test_every_source_is_written_with_its_schema_even_without_a_pin(paths):
    put(paths)
    report = aggregate(paths, as_of=AS_OF)
    assert report.views == dict.fromkeys(VIEW_SCHEMAS, 0)
    for view, schema in VIEW_SCHEMAS.items():
        assert pq.read_schema(paths.views / f"{view}.parquet").equals(schema)
    assert sorted(path.name for path in paths.views.iterdir()) == sorted(f"{view}.parquet" for view in VIEW_SCHEMAS)


def test_generic_titles_rank_last_and_ten_are_kept(paths):
    saves = []
    for number in range(40):
        saves += saved_by(f"p{number}", "My stuff", 9) + saved_by(f"p{number}", "favorites", 6)
    for number in range(11):
        saves += saved_by("p0", f"Terracotta balcony pots {number}", 2)
    put(paths, pins=[pin(f"p{number}") for number in range(40)], board_saves=saves)
    found = by_pin(run(paths)["pin_board_titles"], "board_titles")
    assert len(found["p0"]) == 10
    assert all(title.startswith("Terracotta") for title in found["p0"])
    assert found["p1"] == ["My stuff", "favorites"]  # the crowd decides among equally common titles


def test_equal_scores_go_by_words_then_characters_then_title(paths):
    saves = [row for title in ("ab", "abcdefgh", "ef gh", "ij kl", "zz") for row in saved_by("p", title, 2)]
    put(paths, pins=[pin("p")], board_saves=saves)
    assert by_pin(run(paths)["pin_board_titles"], "board_titles") == {"p": ["ef gh", "ij kl", "abcdefgh", "ab", "zz"]}


def test_one_person_is_not_enough(paths):
    put(
        paths,
        pins=[pin("p")],
        board_saves=[save("p", "Secret plan", "ann", board=f"b{i}") for i in range(5)],
        search_log=[event("rare illness", "p", "ann", at=-number) for number in range(1, 6)],
    )
    found = run(paths)
    assert by_pin(found["pin_board_titles"], "board_titles") == {"p": []}
    assert by_pin(found["pin_engaged_queries"], "engaged_queries") == {"p": []}
    assert found["query_stats"] == found["query_pin_engagement"] == []
    assert by_pin(found["pin_engagement"], "clicks") == {"p": 5}


def test_secret_boards_leave_no_trace(paths):
    shown = saved_by("p", "Oak", 2)
    put(paths, pins=[pin("p"), pin("q")], board_saves=shown)
    before = run(paths)
    hidden = [save(name, "Divorce", user, at=-1, secret=True) for user in ("ann", "bob") for name in ("p", "q")]
    put(paths, pins=[pin("p"), pin("q")], board_saves=shown + hidden)
    assert run(paths) == before


def test_a_board_that_turned_secret_is_secret_as_a_whole(paths):
    rows = [save("p", "Us two", user, at=-9, board="shared") for user in ("ann", "bob")]
    put(paths, pins=[pin("p")], board_saves=[*rows, save("p", "Us two", "ann", at=-2, board="shared", secret=True)])
    (row,) = run(paths)["pin_board_titles"]
    assert row["board_titles"] == []
    assert row["event_timestamp"] == day(-2)  # newer than what was served, so that it is overwritten


def test_removals_count_from_their_time_on_and_a_new_save_counts_again(paths):
    rows = [save("p", "Oak", user, at=-30, board="b") for user in ("ann", "bob")]
    removal = save("p", "Oak", "bob", at=-30, board="b", removed=-10)
    again = save("p", "Oak", "bob", at=-5, board="b")
    put(paths, pins=[pin("p")], board_saves=[*rows, removal, again])
    wanted = {-31: None, -20: ["Oak"], -11: ["Oak"], -10: [], -6: [], -5: ["Oak"]}
    for number, titles in wanted.items():
        found = by_pin(run(paths, as_of=day(number))["pin_board_titles"], "board_titles")
        assert found.get("p") == titles, number


def test_deleted_and_unknown_pins_are_in_no_view(paths):
    pins = [pin("gone", deleted_at=day(-1), link_title="x", image_sha256="i"), pin("later", at=1), pin("here")]
    names = ("gone", "later", "never", "here")
    saves = [row for name in names for row in saved_by(name, "Oak", 2)]
    log = [event("oak", name, user) for name in names for user in ("ann", "bob")]
    captions = [{"image_sha256": "i", "captioner": "c", "caption": "oak", "event_timestamp": day(-3)}]
    put(paths, pins=pins, board_saves=saves, search_log=log, captions=captions)
    report = aggregate(paths, as_of=AS_OF)
    assert {row.get("pin_id", "here") for rows in views(paths).values() for row in rows} == {"here"}
    assert views(paths)["query_stats"][0]["impressions"] == 2
    assert report.left_out == {"pins": 2, "board_saves": 6, "search_log": 6}


def test_twice_delivered_rows_count_once_and_actions_imply_the_impression(paths):
    log = [event("Oak ", "p", user, action, request=user) for user in ("ann", "bob") for action in ("click", "save")]
    put(paths, pins=[pin("p")], search_log=log * 3)
    (row,) = run(paths)["query_pin_engagement"]
    assert [row[name] for name in ("query", "impressions", "clicks", "long_clicks", "saves")] == ["oak", 2, 2, 0, 2]
    assert row["engagement_rate"] == pytest.approx(3 / 22)


def test_saves_weigh_more_than_long_clicks_than_clicks_and_twenty_are_kept(paths):
    kinds = {"c save": "save", "b long": "long_click", "a click": "click", "d seen": "impression"}
    log = [event(query, "p", user, action) for query, action in kinds.items() for user in ("ann", "bob")]
    log += [event(f"z{number:02}", "q", user) for number in range(25) for user in ("ann", "bob")]
    log += [event("old", "p", user, "save", at=-WINDOW - 1) for user in ("ann", "bob")]
    put(paths, pins=[pin("p"), pin("q")], search_log=log)
    found = by_pin(run(paths)["pin_engaged_queries"], "engaged_queries")
    assert found == {"p": ["c save", "b long", "a click"], "q": [f"z{number:02}" for number in range(20)]}


def test_bands_follow_the_share_of_searches_before_a_query(paths):
    log = [
        event(query, "p", f"u{number}", "impression", lang=lang)
        for query, searches in {"first": 5, "second": 3, "third": 2}.items()
        for number, lang in zip(range(searches), ["fr", "de", "fr", "de", None], strict=False)
    ]
    put(paths, pins=[pin("p")], search_log=log)
    found = [(row["query"], row["searches"], row["band"], row["lang"]) for row in run(paths)["query_stats"]]
    assert found == [("first", 5, "head", "de"), ("second", 3, "torso", "fr"), ("third", 2, "tail", "de")]


def test_default_time_takes_in_a_clock_that_runs_ahead(paths):
    ahead = datetime.now(UTC) + timedelta(hours=3)
    put(paths, pins=[{"pin_id": "p", "event_timestamp": ahead}])
    report = aggregate(paths)
    assert report.as_of == ahead
    assert report.views["pin_text"] == 1
    put(paths, pins=[pin("p", at=-3000)])
    assert aggregate(paths).as_of > datetime.now(UTC) - timedelta(minutes=5)


def test_a_run_that_fails_changes_nothing_and_says_why(paths):
    put(paths, pins=[pin("p")])
    before = run(paths)
    put(paths, pins=[pin("p"), pin("q")])
    log = paths.valid / "search_log.parquet"
    data = log.read_bytes()
    log.write_bytes(b"PAR1 nonsense PAR1")
    with pytest.raises(PinfeatherError, match=r"search_log\.parquet.*pinfeather validate"):
        aggregate(paths, as_of=AS_OF)
    assert views(paths) == before
    assert len(list(paths.views.iterdir())) == len(VIEW_SCHEMAS)
    log.unlink()
    with pytest.raises(ContractError, match="Run `pinfeather validate` first"):
        aggregate(paths, as_of=AS_OF)
    log.write_bytes(data)
    assert len(run(paths)["pin_text"]) == 2


@pytest.mark.parametrize("option", ["min_users", "window_days"])
def test_options_below_one_are_refused(paths, option):
    with pytest.raises(UsageError, match=f"{option} is 0: give 1 or more"):
        aggregate(paths, **{option: 0})


def test_progress_names_stages_and_ends_with_every_pin(tmp_path):
    paths = RepoPaths(tmp_path / "with 'quotes' and [brackets]*")
    put(paths, pins=[pin("p"), pin("q")])
    seen = []
    aggregate(paths, as_of=AS_OF, progress=lambda *step: seen.append(step))
    assert seen[0] == ("pins", 1, 9)
    assert seen[-1] == ("lexical tokens", 2, 2)
