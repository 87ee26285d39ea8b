"""Board titles and link texts: what counts, what is one title, what ranks last, and what each rule left out."""

from collections import Counter
from dataclasses import asdict

import pytest
import yaml
from board_recompute import expected_boards
from board_shop import AS_OF, at, crowd, pin, run, save, titles_of
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks.board_title_data import GENERIC
from feature_repo.aggregates import titles
from feature_repo.aggregates.titles import title_words
from feature_repo.paths import RepoPaths
from feature_repo.screening import Limits


@pytest.fixture
def paths(tmp_path):
    return RepoPaths(tmp_path)


# One title -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spellings", "words"),
    [
        (("To-read", "TO READ!!", "to read 📚", "*to_read*", "To Read ✔️", "ｔｏ　ｒｅａｄ", "𝓽𝓸 𝓻𝓮𝓪𝓭"), ["to", "read"]),
        (("Kids' room", "kid's room", "KIDS ROOM ❤️", "kid’s room 👩‍👧"), ["kids", "room"]),
        (("Café", "CAFÉ", "cafe\u0301"), ["café"]),
        (("苔庭", "苔庭!", "苔・庭 🌿"), ["苔", "庭"]),
        (("Straße", "STRASSE"), ["strasse"]),
        (("Top 10", "top-10 🔟", "top 10 1️⃣"), ["top", "10"]),
        (("🌿", "ℹ️", "❤️", "!?", "1️⃣"), []),
    ],
)
def test_titles_that_differ_in_case_punctuation_or_emoji_have_the_same_words(spellings, words):
    assert {spelling: title_words(spelling) for spelling in spellings} == dict.fromkeys(spellings, words)


def test_other_words_are_another_title():
    assert (
        len({tuple(title_words(title)) for title in ("to read", "toread", "read to", "café", "cafe", "to re-ad")}) == 6
    )


def test_merged_titles_share_their_people_and_show_the_usual_spelling(paths):
    said = [
        save("OAK  TABLE", "ann"),
        save("Oak table 🪵", "bob"),
        save("Oak table 🪵", "cid"),
        save("oak-table!", "dan"),
    ]
    assert titles_of(paths, said, min_users=4)[0] == ["Oak table 🪵"]
    assert titles_of(paths, said, min_users=5)[0] == []


def test_a_tie_on_the_pin_goes_to_the_spelling_that_is_usual_elsewhere(paths):
    said = [save("OAK", "ann"), save("oak", "bob"), save("oak", "cid", "q")]
    found, _, _ = run(paths, [pin(), pin("q")], said)
    assert found == {"p": ["oak"], "q": ["oak"]}


def test_one_user_cannot_become_a_crowd_by_spelling(paths):
    said = [save(title, "ann") for title in ("Oak", "OAK", "oak!", "oak 🌿")]
    assert titles_of(paths, said, min_users=2)[0] == []


# What is left out, and counted ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("title", "reason"),
    [
        ("mail jane@example.com", "mail address"),
        ("call +49 170 1234567", "phone number"),
        ("@jane_doe", "handle"),
        ("total bullshit", "profanity"),
        ("x" * 10_000, "too long"),
        ("word " * 2_000, "too long"),
        ("🌿🌿", "no letters"),
        ("ℹ️", "no letters"),
        (" ", "no letters"),
        ("ideas.com", "web address"),
    ],
)
def test_refused_titles_are_left_out_and_counted(paths, title, reason):
    found, screened = titles_of(paths, [*crowd(title, 3), *crowd("Oak", 2)])
    assert found == ["Oak"]
    assert screened == {f"title: {reason}": 3}


def test_rules_of_the_repository_hold(paths):
    (paths.root / "screening.yaml").write_text("profanity: {en: {add: [oak]}}\n")
    assert titles_of(paths, crowd("Oak")) == ([], {"title: profanity": 2})


def test_somebody_who_saves_all_day_counts_for_nothing_on_that_day(paths):
    (paths.root / "screening.yaml").write_text("limits: {max_saves_a_day: 4}\n")
    bot = [save(f"Spam {number}", "bot", days=-5 + number / 10) for number in range(5)]
    calm = [save("Oak", "bot", days=-7), save("Oak", "bot", days=-7)] + [save("Elm", "ann", days=-5)] * 6
    found, screened = titles_of(paths, [*bot, *calm])
    assert sorted(found) == ["Elm", "Oak"]  # rows that came twice are one save
    assert screened == {"too many saves of a user in a day": 5}


def test_ten_thousand_saves_of_one_user_are_a_bot_by_default(paths):
    pins = [pin(f"p{number}") for number in range(Limits().max_saves_a_day + 1)]
    spam = [save("Buy now", "bot", row["pin_id"], board="b") for row in pins]
    found, _, screened = run(paths, pins, [*spam, save("Oak", "ann", "p0")])
    assert found["p0"] == ["Oak"]
    assert not any(said for name, said in found.items() if name != "p0")
    assert screened["board_saves"] == {"too many saves of a user in a day": len(spam)}
    found, _, screened = run(paths, pins, spam[1:])
    assert found["p1"] == ["Buy now"]
    assert not screened


def test_saves_long_before_the_pin_are_left_out_and_clocks_may_differ(paths):
    said = [save("Oak", "ann", days=-11), save("Elm", "bob", days=-11.001), save("Ash", "cid", days=-9)]
    found, _, screened = run(paths, [pin(created_at=at(-10))], said)
    assert sorted(found["p"]) == ["Ash", "Oak"]
    assert screened == {"board_saves": {"before the pin was created": 1}}


def test_one_user_stands_behind_the_earliest_titles_of_a_pin_only(paths):
    said = [
        save(title, "ann", days=days) for title, days in {"Elm": -1, "Oak": -4, "Ash": -3, "Yew": -2, "Fir": -9}.items()
    ]
    found, screened = titles_of(paths, [*said, save("ELM", "ann", days=-1, board="other"), save("Elm", "bob")])
    assert sorted(found) == ["Ash", "Elm", "Fir", "Oak"]  # Elm by bob
    assert screened == {"too many titles of a user on a pin": 3}


def test_secret_and_removed_saves_are_neither_used_nor_counted(paths):
    said = [save("shit", user, secret=True) for user in ("ann", "bob")] + [save("shit", "cid", removed=-1)]
    assert titles_of(paths, [*said, *crowd("Oak")]) == (["Oak"], {})


# Ranking -------------------------------------------------------------------------------------------------------------


def test_thirty_generic_titles_rank_below_specific_ones(paths):
    """Sixty pins of ten topics, each with a title of its topic and five generic ones, half with a broad one too."""
    topics = ("oak tables", "rose garden", "sourdough", "macrame", "bird houses", "wool socks", "tiny homes", "origami",
              "bread ovens", "jazz posters")  # fmt: skip
    said, pins = [], []
    for number in range(60):
        name = f"p{number}"
        pins.append(pin(name))
        said += crowd(topics[number % 10], 2, name) + (crowd("home", 3 + number % 5, name) if number < 30 else [])
        for place in range(5):
            said += crowd(GENERIC[(number * 7 + place * place * 3) % 30], 2 + (number + place) % 9, name)
    found, _, _ = run(paths, pins, said, min_users=2)
    for name, ranked in found.items():
        number = int(name[1:])
        specific = {topics[number % 10], "home"} if number < 30 else {topics[number % 10]}
        assert set(ranked[: len(specific)]) == specific
    assert len(GENERIC) == 30
    assert {title for ranked in found.values() for title in ranked} == {*GENERIC, *topics, "home"}


def test_one_more_word_makes_a_generic_title_specific(paths):
    said = [row for title in ("my kitchen", "my stuff", "garden ideas", "ideas") for row in crowd(title, 2)]
    assert set(titles_of(paths, said)[0][:2]) == {"my kitchen", "garden ideas"}


# Any saves -----------------------------------------------------------------------------------------------------------

NAMES = ("p", "q", "gone", "ghost")
SAID = st.sampled_from(
    [
        "Oak table",
        "oak-TABLE 🌿",
        "Oak table!",
        "my stuff",
        "To-Read",
        "to read 📚",
        "oak",
        "苔庭",
        "@jane",
        "🌿",
        " ",
        None,
    ]
)
DAYS = st.sampled_from([-9, -9.1, -9.2, -6, -6.05, -3, 0, 1])
SAVES = st.lists(
    st.builds(save, SAID, st.sampled_from(["ann", "bob", "cid"]), st.sampled_from(NAMES), DAYS,
              st.sampled_from(["b1", "b2", "b3"]), st.sampled_from([False] * 9 + [True]),
              st.sampled_from([None] * 4 + [-5, 0, 2])),
    max_size=24,
)  # fmt: skip
LIMITS = st.builds(
    Limits,
    max_saves_a_day=st.sampled_from([2, 4, 2_000]),
    max_titles_per_user_and_pin=st.sampled_from([1, 2, 3]),
    early_seconds=st.sampled_from([0, 86_400]),
)
PINS = [pin(created_at=at(-6)), pin("q"), pin("gone", deleted_at=at(-1)), pin("late", days=3)]


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(saves=SAVES, limits=LIMITS, min_users=st.integers(1, 3), batch=st.sampled_from([1, 3, 8_192]))
def test_titles_equal_a_recompute_row_by_row(paths, monkeypatch, saves, limits, min_users, batch):
    (paths.root / "screening.yaml").write_text(yaml.safe_dump({"limits": asdict(limits)}))
    monkeypatch.setattr(titles, "BATCH_TITLES", batch)
    _, found, screened = run(paths, PINS, saves, min_users)
    wanted = Counter()
    here = {"p": PINS[0], "q": PINS[1]}
    rows = expected_boards(here, saves, min_users, AS_OF, limits, wanted)
    assert found["pin_board_titles"] == sorted(rows, key=lambda row: row["pin_id"])
    assert screened.get("board_saves", {}) == wanted


def test_the_same_bytes_whatever_the_order_and_the_threads(paths):
    said = [row for number, title in enumerate(GENERIC) for row in crowd(title, 1 + number % 4, f"p{number % 7}")]
    pins = [pin(f"p{number}") for number in range(7)]
    source = paths.views / "pin_board_titles.parquet"
    run(paths, pins, said, threads=1)
    before = source.read_bytes()
    run(paths, pins[::-1], said[::-1], threads=3)
    assert source.read_bytes() == before
