"""The synthetic catalogue: a function of size and seed, believable, with judgments that words alone do not solve."""

import hashlib
import re
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from feature_repo.columns import arrow_type
from feature_repo.contracts import CONTRACTS
from feature_repo.errors import PinfeatherError, UsageError
from feature_repo.text import canonical_query
from pinfeather.generate import NOW, TABLES, generate_catalogue
from pinfeather.generate.lexicon import DIMENSIONS, lexicon
from pinfeather.generate.vocabulary import LANGUAGES
from pinfeather.generate.wording import Words
from pinfeather.generate.world import Intent, World, draw_world, true_levels


def read(out: Path, table: str) -> pa.Table:
    return pq.read_table(out / table / "part-0000.parquet")


def digests(out: Path) -> dict[str, str]:
    return {str(p.relative_to(out)): hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(out.rglob("*.parquet"))}


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("raw")
    generate_catalogue(out, pins=2000, seed=3)
    return out


def test_size_and_seed_decide_every_byte(tmp_path):
    for name, seed in (("one", 7), ("two", 7), ("three", 8)):
        generate_catalogue(tmp_path / name, pins=150, seed=seed)
    assert digests(tmp_path / "one") == digests(tmp_path / "two")
    other = digests(tmp_path / "three")
    assert all(other[name] != digest for name, digest in digests(tmp_path / "one").items())


def test_generating_again_replaces_and_leaves_nothing_else(tmp_path):
    generate_catalogue(tmp_path, pins=120, seed=1)
    report = generate_catalogue(tmp_path, pins=100, seed=1)
    assert read(tmp_path, "pins").num_rows == report.rows["pins"] == 100
    assert sorted(p.name for p in tmp_path.rglob("*") if p.is_file()) == ["part-0000.parquet"] * len(TABLES)


@pytest.mark.parametrize("pins", [100, 2000])
def test_counts_match_the_report(tmp_path, pins):
    told: list[int] = []
    report = generate_catalogue(tmp_path, pins=pins, seed=5, progress=told.append)
    rows = {table: read(tmp_path, table).num_rows for table in TABLES}
    assert rows == report.rows
    assert rows["pins"] == pins == sum(told)
    assert min(told) > 0
    assert 12 * pins <= rows["search_log"] <= 20 * pins
    assert 3 * pins <= rows["board_saves"] <= 7 * pins
    judged = read(tmp_path, "judgments")
    assert len(set(judged["query"].to_pylist())) == (30 if pins == 100 else 126)
    assert report.topics >= 40


@pytest.mark.parametrize("table", TABLES)
def test_rows_keep_their_contract(catalogue, table):
    rows, contract = read(catalogue, table), CONTRACTS[table]
    assert rows.schema.names == list(contract.names)
    for column in contract.columns:
        values = rows[column.name]
        assert values.type == arrow_type(column.kind), column.name
        if not column.nullable:
            assert values.null_count == 0, column.name
        if column.allowed:
            assert set(values.unique().to_pylist()) == set(column.allowed)
        if pa.types.is_timestamp(values.type) and values.null_count < len(values):
            assert pc.max(values).as_py() <= NOW, column.name
        if pa.types.is_string(values.type):
            assert not [
                text for text in values.unique().to_pylist() if text is not None and (not text or text != text.strip())
            ]


def test_tables_refer_to_each_other(catalogue):
    pins = read(catalogue, "pins")
    ids = set(pins["pin_id"].to_pylist())
    assert len(ids) == 2000
    assert all(re.fullmatch(r"[a-z0-9]{12}", pin) for pin in ids)
    for table in ("pin_topics", "board_saves", "search_log", "judgments"):
        assert set(read(catalogue, table)["pin_id"].to_pylist()) <= ids
    images = Counter(pins["image_sha256"].to_pylist())
    assert 60 <= sum(count - 1 for count in images.values()) <= 180
    captions = read(catalogue, "captions")["image_sha256"].to_pylist()
    assert len(captions) == len(set(captions))
    assert set(captions) <= set(images)
    assert pins["deleted_at"].null_count == 2000


def test_nothing_happens_to_a_pin_before_it_exists(catalogue):
    pins = read(catalogue, "pins")
    born = dict(zip(pins["pin_id"].to_pylist(), pins["created_at"].cast(pa.int64()).to_pylist(), strict=True))
    for table in ("board_saves", "search_log", "pin_topics"):
        column = "saved_at" if table == "board_saves" else "event_timestamp"
        rows = read(catalogue, table)
        moments = zip(rows["pin_id"].to_pylist(), rows[column].cast(pa.int64()).to_pylist(), strict=True)
        assert all(moment >= born[pin] for pin, moment in moments)
    saves = read(catalogue, "board_saves")
    kept = pc.greater_equal(saves["removed_at"], saves["saved_at"])
    assert pc.all(kept).as_py()
    assert 0.02 < 1 - saves["removed_at"].null_count / saves.num_rows < 0.07


def test_topics_are_the_true_ones_and_sometimes_a_sibling(catalogue):
    world = draw_world(lexicon(), 2000, 3)
    keys = [topic.key for topic in world.lexicon.topics]
    truth = {pin: keys[topic] for pin, topic in zip(world.ids.tolist(), world.topic.tolist(), strict=True)}
    groups = {topic.key: topic.group for topic in world.lexicon.topics}
    found: dict[str, dict[str, float]] = {}
    for row in read(catalogue, "pin_topics").to_pylist():
        found.setdefault(row["pin_id"], {})[row["topic"]] = row["weight"]
    assert 0.93 < len(found) / 2000 < 0.99
    assert 0.2 < sum(len(weights) == 2 for weights in found.values()) / len(found) < 0.36
    for pin, weights in found.items():
        assert max(weights, key=weights.get) == truth[pin]
        assert {groups[topic] for topic in weights} == {groups[truth[pin]]}
        assert sum(weights.values()) == pytest.approx(1)


def test_fields_are_missing_as_in_real_life(catalogue):
    pins = read(catalogue, "pins").to_pylist()
    silent = sum(pin["title"] is None and pin["description"] is None for pin in pins) / len(pins)
    captioned = set(read(catalogue, "captions")["image_sha256"].to_pylist())
    boarded = len(set(read(catalogue, "board_saves")["pin_id"].to_pylist())) / len(pins)
    assert 0.26 < silent < 0.34
    assert 0.93 < sum(pin["image_sha256"] in captioned for pin in pins) / len(pins) < 0.995
    assert 0.86 < boarded < 0.94
    assert 0.55 < sum(pin["link_url"] is not None for pin in pins) / len(pins) < 0.75


def supported(pairs: list[tuple[str, str, str]]) -> set[tuple[str, str]]:
    """(pin, text) behind which at least two people stand."""
    people = Counter((pin, text) for pin, text, _ in set(pairs))
    return {pair for pair, count in people.items() if count >= 2}


def test_aggregates_over_two_people_have_something_to_show(catalogue):
    saves = [r for r in read(catalogue, "board_saves").to_pylist() if not r["secret"] and r["removed_at"] is None]
    titles = supported([(r["pin_id"], r["board_title"], r["user_id"]) for r in saves])
    log = [r for r in read(catalogue, "search_log").to_pylist() if r["action"] != "impression"]
    queries = supported([(r["pin_id"], canonical_query(r["query"]), r["user_id"]) for r in log])
    assert len({pin for pin, _ in titles}) / 2000 > 0.55
    assert 0.5 < len({pin for pin, _ in queries}) / 2000 < 0.78


def test_boards_belong_to_one_person_and_have_one_title(catalogue):
    rows = read(catalogue, "board_saves").to_pylist()
    boards = {(r["board_id"], r["user_id"], r["board_title"], r["secret"]) for r in rows}
    assert len(boards) == len({board for board, *_ in boards})
    assert 0.03 < sum(secret for *_, secret in boards) / len(boards) < 0.14
    assert len(rows) / len(boards) > 1.5  # a board holds more than one pin
    titles = {title.lower() for _, _, title, _ in boards}
    assert titles & {"my stuff", "stuff", "misc", "random", "ideas", "inspo", "love", "saved"}
    assert len({(r["pin_id"], r["user_id"]) for r in rows}) == len(rows)


def test_five_languages_and_their_scripts(catalogue):
    pins = read(catalogue, "pins").to_pylist()
    shares = Counter(pin["lang"] for pin in pins)
    assert set(shares) == set(LANGUAGES)
    assert 0.55 < shares["en"] / len(pins) < 0.75
    assert shares["ja"] / len(pins) > 0.02
    japanese = [pin["title"] for pin in pins if pin["lang"] == "ja" and pin["title"]]
    assert all(re.search(r"[぀-ヿ一-鿿]", title) for title in japanese)
    assert set(read(catalogue, "search_log")["lang"].unique().to_pylist()) == set(LANGUAGES)


def test_texts_are_short(catalogue):
    pins = read(catalogue, "pins")
    limits = {"title": 14, "description": 22, "link_title": 14}
    for column, limit in limits.items():
        lengths = [len(text.split()) for text in pins[column].to_pylist() if text]
        assert max(lengths) <= limit, column
        assert np.mean(lengths) <= limit * 0.65, column
    assert "{" not in "".join(text or "" for column in (*limits, "link_url") for text in pins[column].to_pylist())
    assert "{" not in "".join(read(catalogue, "captions")["caption"].to_pylist())


def test_search_traffic_follows_zipf(catalogue):
    log = read(catalogue, "search_log").to_pylist()
    requests = Counter(query for _, query in {(r["request_id"], r["query"]) for r in log})
    counts = np.array(sorted(requests.values(), reverse=True))
    head = np.arange(5, 100)
    slope = np.polyfit(np.log(head), np.log(counts[head]), 1)[0]
    assert -1.2 < slope < -0.5
    assert counts[: len(counts) // 10].sum() / counts.sum() > 0.3
    shown = {(r["request_id"], r["pin_id"]) for r in log if r["action"] == "impression"}
    assert {(r["request_id"], r["pin_id"]) for r in log} == shown
    by_action = {
        a: [r["dwell_s"] for r in log if r["action"] == a] for a in ("impression", "click", "long_click", "save")
    }
    assert set(by_action["impression"]) == set(by_action["save"]) == {None}
    assert min(by_action["long_click"]) >= 30
    positions = Counter(r["position"] for r in log if r["action"] == "impression")
    assert min(positions) == 1
    assert max(positions) == 10


def test_levels_and_annotators(catalogue):
    rows = read(catalogue, "judgments").to_pylist()
    shares = {level: count / len(rows) for level, count in Counter(r["level"] for r in rows).items()}
    assert all(shares[level] > 0.06 for level in range(1, 6))
    by_pair: dict[tuple[str, str], list[tuple[str, int]]] = {}
    for r in rows:
        by_pair.setdefault((r["query"], r["pin_id"]), []).append((r["annotator"], r["level"]))
    assert {len(seen) for seen in by_pair.values()} == {1, 2, 3}
    assert all(len({who for who, _ in seen}) == len(seen) for seen in by_pair.values())
    spread = [
        max(level for _, level in seen) - min(level for _, level in seen) for seen in by_pair.values() if len(seen) > 1
    ]
    assert 0.2 < np.mean([width > 0 for width in spread]) < 0.7  # people disagree, but not about everything
    assert np.mean([width <= 1 for width in spread]) > 0.9


def pair_texts(out: Path) -> tuple[list[str], list[dict[str, str]], np.ndarray]:
    """Queries, pin fields with all that people wrote around the pin, mean level at least 4, one row a judged pair."""
    pins = {r["pin_id"]: r for r in read(out, "pins").to_pylist()}
    captions = {r["image_sha256"]: r["caption"] for r in read(out, "captions").to_pylist()}
    around: dict[str, dict[str, set[str]]] = {pin: {"boards": set(), "queries": set()} for pin in pins}
    saves = [r for r in read(out, "board_saves").to_pylist() if not r["secret"]]
    for pin, title in supported([(r["pin_id"], r["board_title"], r["user_id"]) for r in saves]):
        around[pin]["boards"].add(title)
    log = [r for r in read(out, "search_log").to_pylist() if r["action"] != "impression"]
    for pin, query in supported([(r["pin_id"], r["query"], r["user_id"]) for r in log]):
        around[pin]["queries"].add(query)
    levels: dict[tuple[str, str], list[int]] = {}
    for r in read(out, "judgments").to_pylist():
        levels.setdefault((r["query"], r["pin_id"]), []).append(r["level"])
    fields = []
    for _, pin in levels:
        row = pins[pin]
        fields.append(
            {name: row[name] or "" for name in ("title", "description", "link_title")}
            | {"caption": captions.get(row["image_sha256"], "")}
            | {name: " ".join(sorted(texts)) for name, texts in around[pin].items()}
        )
    relevant = np.array([np.mean(seen) >= 3.5 for seen in levels.values()])
    return [query for query, _ in levels], fields, relevant


def test_bag_of_words_does_not_solve_the_judgments(catalogue):
    from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import GroupKFold, cross_val_predict

    queries, fields, relevant = pair_texts(catalogue)
    texts = [" ".join(field.values()) for field in fields]
    columns = []
    for maker in (TfidfVectorizer(sublinear_tf=True), CountVectorizer(binary=True)):
        vectors = maker.fit(texts)
        asked = vectors.transform(queries)
        everything = np.asarray(asked.multiply(vectors.transform(texts)).sum(axis=1)).ravel()
        assert 0.6 < roc_auc_score(relevant, everything) < 0.9
        columns.append(everything)
        for name in fields[0]:
            part = vectors.transform([field[name] for field in fields])
            columns.append(np.asarray(asked.multiply(part).sum(axis=1)).ravel())
    model = LogisticRegression(max_iter=1000)
    folds = GroupKFold(5).split(texts, groups=queries)
    chance = cross_val_predict(model, np.array(columns).T, relevant, cv=list(folds), method="predict_proba")[:, 1]
    assert 0.6 < roc_auc_score(relevant, chance) < 0.9


def value_number(key: str) -> int:
    return next(number for number, value in enumerate(lexicon().values) if value.key == key)


def topic_number(key: str) -> int:
    return next(number for number, topic in enumerate(lexicon().topics) if topic.key == key)


def one_pin(topic: str, *values: str) -> World:
    """A world with one pin that has exactly these attributes."""
    world = draw_world(lexicon(), 1, 0)
    world.topic[0] = topic_number(topic)
    world.attributes[0] = -1
    for key in values:
        world.attributes[0, DIMENSIONS.index(key.split(".")[0])] = value_number(key)
    return world


@pytest.mark.parametrize(
    ("level", "topic", "values"),
    [
        (5, "decor.living.sofa", ("color.sage", "material.velvet")),
        (5, "decor.living.sofa", ("color.sage", "material.velvet", "budget.cheap")),
        (4, "decor.living.sofa", ("color.olive", "material.velvet")),  # a near colour
        (4, "decor.living.sofa", ("color.sage",)),  # material not shown
        (3, "decor.living.sofa", ("color.sage", "material.leather")),
        (2, "decor.living.sofa", ("color.black", "material.leather")),
        (3, "decor.living.rug", ("color.sage", "material.velvet")),  # sibling that has it
        (2, "decor.living.rug", ("color.black", "material.wool")),
        (2, "decor.cook.dining", ("color.sage", "material.velvet")),  # same interest, just the attributes
        (1, "decor.cook.dining", ("color.black",)),
        (1, "recipes.pot.soup", ("ingredient.lentil",)),
    ],
)
def test_the_guideline(level, topic, values):
    wanted = Intent(topic_number("decor.living.sofa"), (value_number("color.sage"), value_number("material.velvet")), 0)
    assert true_levels(one_pin(topic, *values), wanted, np.array([0])).tolist() == [level]


def test_every_topic_has_words_in_every_language():
    words = Words(lexicon(), "test")
    assert len(lexicon().topics) >= 40
    assert {"decor", "recipes", "travel", "fashion", "garden"} <= {topic.domain for topic in lexicon().topics}
    for number, topic in enumerate(lexicon().topics):
        values = [lexicon().values[choices[0]] for choices in lexicon().allowed[number] if choices]
        assert len(values) >= 3, topic.key
        for lang in LANGUAGES:
            for text in (
                words.title(topic, values[:2], lang),
                words.description(topic, values[:1], lang, None),
                words.query(topic, values[:2], lang),
                words.board(topic, values[:1], lang),
                words.board(topic, [], lang),
                words.caption(topic, values),
            ):
                assert text == text.strip()
                assert text
                assert not re.search(r"[{}|]|  ", text), text


def test_now_moves_the_whole_catalogue(tmp_path):
    moment = datetime(2027, 3, 1, tzinfo=UTC)
    generate_catalogue(tmp_path, pins=100, seed=0, now=moment)
    newest = pc.max(read(tmp_path, "search_log")["event_timestamp"]).as_py()
    assert NOW < newest <= moment


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"pins": 99}, "choose 100 to 100,000"),
        ({"pins": 100_001}, "choose 100 to 100,000"),
        ({"seed": -1}, "--seed"),
        ({"now": datetime(2026, 1, 1)}, "no time zone"),
    ],
)
def test_bad_arguments_say_what_is_allowed(tmp_path, arguments, words):
    with pytest.raises(UsageError, match=words):
        generate_catalogue(tmp_path, **({"pins": 100} | arguments))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["pins/part-0001.parquet", "pins.parquet"])
def test_other_tables_are_never_mixed_in(tmp_path, name):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_bytes(b"somebody's")
    with pytest.raises(PinfeatherError, match=re.escape(name)):
        generate_catalogue(tmp_path, pins=100)
    assert (tmp_path / name).read_bytes() == b"somebody's"


def test_a_failed_run_leaves_the_earlier_catalogue(tmp_path):
    generate_catalogue(tmp_path, pins=100, seed=1)
    before = digests(tmp_path)

    def stop(_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        generate_catalogue(tmp_path, pins=200, seed=2, progress=stop)
    assert digests(tmp_path) == before
    assert not list(tmp_path.rglob("*.partial"))


@pytest.mark.slow
def test_the_largest_catalogue(tmp_path):
    report = generate_catalogue(tmp_path, pins=100_000, seed=0)
    assert report.rows["pins"] == 100_000
    assert 1_200_000 <= report.rows["search_log"] <= 2_100_000
