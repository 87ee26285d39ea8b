"""Samples of the search log: what is in them, that weights estimate the log, and that nothing else decides them."""

import json
import random
from collections import Counter, defaultdict
from contextlib import contextmanager
from datetime import date
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from past_tables import at, event, pin, put

from feature_repo.aggregates import aggregate
from feature_repo.erasures import Subjects, record
from feature_repo.errors import PinfeatherError, UsageError
from feature_repo.paths import PARTS
from feature_repo.text import canonical_query
from pinfeather import sampling
from pinfeather.init import init_repository
from pinfeather.sampling import SampleOptions, sample
from pinfeather.sampling_draw import POOL, Draw
from pinfeather.sampling_frame import LogFiles
from pinfeather.sampling_quota import DIMENSIONS
from pinfeather.sampling_rankers import LexicalRanker, open_ranker, predicted

WORDS = ["oak", "shelf", "lamp", "chair", "sofa", "vase", "rug", "desk", "mirror", "clock"]
DAY = date(2026, 3, 2)


def catalogue():
    """Forty pins, made between 200 days before the log and the day of it."""
    made = {0: -200, 1: -40, 2: -1}
    return [
        pin(f"p{n:02}", made[n % 3], f"{WORDS[n % 10]} {WORDS[(n * 3 + 1) % 10]}", lang="en" if n % 2 else "de")
        for n in range(40)
    ]


def log_of_a_day():
    """1,500 rows of the second of March by forty people, and a few of the days beside it."""
    chance = random.Random(7)
    rows = []
    for number in range(1_500):
        query = " ".join(chance.sample(WORDS[: chance.choice((2, 4, 10))], chance.choice((1, 2))))
        lang = chance.choice(("en", "en", "en-GB", "de", None))
        shown = f"p{chance.randrange(30):02}"
        rows.append(event(query, shown, f"u{chance.randrange(40)}", 1 + number / 1_600, lang=lang))
    rows += [event("yesterday", "p01", "u1", 0.5), event("tomorrow", "p01", "u1", 2.5)]
    return rows


def written(root, rows, **tables):
    paths = init_repository(root)
    put(paths, pins=catalogue(), search_log=rows, **tables)
    aggregate(paths, as_of=at(5))
    return paths


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """For reading only, but for samples of other names."""
    return written(tmp_path_factory.mktemp("sampling") / "repo", log_of_a_day())


def drawn(paths, name, **options):
    options = {"first": DAY, **options}
    note = sample(paths, SampleOptions(name=name, **options), partial(open_ranker, paths, "bm25"))
    return note, pq.read_table(paths.samples / f"{name}.parquet").to_pylist()


def shown_pairs(rows, day=DAY):
    """Visits by (canonical query, pin) of a day, in plain Python."""
    visits = {
        (row["request_id"], row["user_id"], canonical_query(row["query"]), row["pin_id"])
        for row in rows
        if row["event_timestamp"].date() == day
    }
    return Counter((query, pin_id) for *_, query, pin_id in visits)


def test_a_sample_of_everything_is_the_log(shop):
    note, rows = drawn(shop, "everything", count=10_000, unshown=0)
    pairs = shown_pairs(log_of_a_day())
    assert {(row["query"], row["pin_id"]): row["visits"] for row in rows} == pairs
    assert {row["weight"] for row in rows} == {1.0}
    assert (note["pairs"], note["log_pairs"], note["unshown"]) == (len(pairs), len(pairs), 0)
    ages = {"new": {2}, "recent": {1}, "old": {0}}
    assert all(int(row["pin_id"][1:]) % 3 in ages[row["freshness"]] for row in rows)
    assert {row["lang"] for row in rows} == {"en", "de", "unknown"}


def test_bands_are_shares_of_the_visits(shop):
    _, rows = drawn(shop, "bands", count=10_000, unshown=0)
    visits, band = Counter(), {}
    for row in rows:
        visits[row["query"]] += row["visits"]
        band[row["query"]] = row["band"]
    before, total = 0, sum(visits.values())
    for query in sorted(visits, key=lambda query: (-visits[query], query)):
        assert band[query] == ("head" if before * 2 < total else "torso" if before * 10 < total * 8 else "tail")
        before += visits[query]


def test_weights_sum_to_the_sizes_of_the_strata_and_to_the_log(shop):
    note, rows = drawn(shop, "weights", count=150, unshown=0)
    assert len(rows) == note["pairs"] == 150
    by_stratum = defaultdict(list)
    for row in rows:
        by_stratum[row["stratum"]].append(row)
    sizes = {}
    for number, stratum in enumerate(note["strata"]):
        assert len(by_stratum[number]) == stratum["taken"]
        assert {row["weight"] for row in by_stratum[number]} == {stratum["weight"]}
        for dimension in DIMENSIONS:
            assert stratum[dimension] is None or {row[dimension] for row in by_stratum[number]} == {stratum[dimension]}
        coarse = tuple(stratum[name] for name in ("lang", "band", "freshness"))
        assert stratum["pool"] <= min(stratum["size"], POOL * 150)
        sizes.setdefault(coarse, (stratum["size"], []))[1].append(stratum["taken"] * stratum["weight"])
    for size, parts in sizes.values():
        assert sum(parts) == pytest.approx(size, rel=1e-12)
    assert sum(row["weight"] for row in rows) == pytest.approx(len(shown_pairs(log_of_a_day())), rel=1e-12)


def test_weighted_sums_estimate_those_over_the_log(shop):
    """Over many seeds the mean of the estimates is the truth: of visits, and of what no stratum knows."""
    pairs = shown_pairs(log_of_a_day())
    truth = np.array([sum(pairs.values()), sum(pin_id == "p07" for _, pin_id in pairs)])
    found = []
    for seed in range(16):
        _, rows = drawn(shop, f"seed{seed}", count=120, unshown=0, seed=seed)
        weights = np.array([row["weight"] for row in rows])
        values = np.array([[row["visits"], row["pin_id"] == "p07"] for row in rows])
        found.append(weights @ values)
    found = np.array(found)
    error = found.std(axis=0, ddof=1) / np.sqrt(len(found))
    assert (np.abs(found.mean(axis=0) - truth) < 3.5 * error).all(), (found.mean(axis=0), truth, error)
    assert error[0] < 0.02 * truth[0]


def test_pairs_that_nobody_saw_are_estimated_too(shop):
    _, rows = drawn(shop, "unseen", count=100_000, unshown=1.0, retrieved=20)
    all_rows = [row for row in rows if row["source"] == "unshown"]
    seen = shown_pairs(log_of_a_day())
    assert not {(row["query"], row["pin_id"]) for row in all_rows} & set(seen)
    assert {row["weight"] for row in all_rows} == {1.0}
    estimates = []
    for seed in range(12):
        note, rows = drawn(shop, f"unseen{seed}", count=60, unshown=1.0, retrieved=20, seed=seed)
        assert note["unshown"] == len(rows) == 60
        estimates.append(sum(row["weight"] for row in rows))
    error = np.std(estimates, ddof=1) / np.sqrt(len(estimates))
    assert abs(np.mean(estimates) - len(all_rows)) < 3.5 * error


def test_a_pin_that_came_after_the_days_was_shown_to_nobody_then(tmp_path):
    paths = init_repository(tmp_path / "repo")
    late = [pin(f"late{n}", 4, "oak shelf") for n in range(5)]
    put(paths, pins=[*catalogue(), *late], search_log=log_of_a_day())
    aggregate(paths, as_of=at(5))
    _, rows = drawn(paths, "early", count=10_000, unshown=0.5, retrieved=40)
    assert not [row for row in rows if row["pin_id"].startswith("late")]
    assert [row for row in rows if row["source"] == "unshown"]


def test_the_last_day_there_is_can_be_asked_for(shop):
    with pytest.raises(PinfeatherError, match="9999-12-31"):
        drawn(shop, "far", first=date(9999, 12, 31))


def test_the_share_of_unshown_pairs_is_kept(shop):
    note, rows = drawn(shop, "mixed", count=200, unshown=0.25, retrieved=20)
    assert Counter(row["source"] for row in rows) == {"shown": 150, "unshown": 50}
    assert (note["shown"], note["unshown"], note["pairs"]) == (150, 50, 200)
    assert sum(row["taken"] for row in note["searched"]) == 50
    assert all(row["visits"] == 0 for row in rows if row["source"] == "unshown")
    note, rows = drawn(shop, "exhausted", count=50, unshown=0.9, retrieved=1)
    assert note["unshown"] < 45 and note["pairs"] == 50  # shown pairs fill it up


def test_the_order_of_rows_and_files_changes_nothing(shop, tmp_path):
    """The same rows, shuffled into three files of small row groups, in another repository."""
    other = written(tmp_path / "repo", log_of_a_day())
    single = other.valid / "search_log.parquet"
    table = pq.read_table(single)
    order = np.random.default_rng(3).permutation(len(table))
    folder = other.valid / "search_log"
    folder.mkdir()
    parts = []
    for number, rows in enumerate(np.array_split(order, 3)):
        pq.write_table(table.take(pa.array(rows)), folder / f"{number}.parquet", row_group_size=100)
        parts.append({"file": f"{number}.parquet"})
    (folder / PARTS).write_text(json.dumps({"parts": parts}))
    single.unlink()
    for paths in (shop, other):
        drawn(paths, "shuffled", count=200, retrieved=20)
    for name in ("shuffled.parquet", "shuffled.json"):
        assert (shop.samples / name).read_bytes() == (other.samples / name).read_bytes()
    assert (shop.samples / "shuffled.parquet").read_bytes() != (shop.samples / "mixed.parquet").read_bytes()


def test_quotas_move_the_pairs(shop):
    _, equal = drawn(shop, "equal", count=45, unshown=0, quotas={"lang": "equal"})
    _, proportional = drawn(shop, "proportional", count=45, unshown=0, quotas={"lang": "proportional"})
    assert set(Counter(row["lang"] for row in equal).values()) == {15}
    share = Counter(row["lang"] for row in proportional)
    assert share["en"] > 2 * share["de"]


def test_the_days_of_the_log(shop):
    files = LogFiles.of(shop)
    assert files.window(None, None).first == files.window(None, None).last == date(2026, 3, 3)
    assert (files.window(DAY, None).last, files.window(None, DAY).first) == (DAY, DAY)
    note, rows = drawn(shop, "last-day", count=5, first=None, unshown=0)
    assert [row["query"] for row in rows] == ["tomorrow"]
    assert (note["from"], note["to"]) == ("2026-03-03", "2026-03-03")
    with pytest.raises(UsageError, match="lies before"):
        files.window(DAY, date(2026, 3, 1))
    with pytest.raises(PinfeatherError, match="no row from 2026-05-01"):
        drawn(shop, "later", count=5, first=date(2026, 5, 1))


def test_only_files_of_the_window_are_read(tmp_path):
    paths = written(tmp_path / "repo", log_of_a_day())
    folder = paths.valid / "search_log"
    folder.mkdir()
    table = pq.read_table(paths.valid / "search_log.parquet").sort_by("event_timestamp")
    cuts = {"a": table.slice(0, 1), "b": table.slice(1, 1_500), "c": table.slice(1_501)}
    for name, rows in cuts.items():
        pq.write_table(rows, folder / f"{name}.parquet")
    (folder / PARTS).write_text(json.dumps({"parts": [{"file": f"{name}.parquet"} for name in cuts]}))
    files = LogFiles.of(paths)
    assert [path.name for path in files.within(files.window(DAY, DAY))] == ["b.parquet"]
    assert [path.name for path in files.within(files.window(DAY, date(2026, 3, 3)))] == ["b.parquet", "c.parquet"]


def test_what_screening_refuses_and_what_was_erased_is_never_sampled(tmp_path):
    rows = [
        event("oak shelf", "p01", "ann", 1.1),
        event("oak shelf", "p02", "bob", 1.1),
        event("call +1 212 555 0100", "p01", "bob", 1.1),
        event("secret wish", "p01", "bob", 1.1),
        event("oak shelf", "gone", "bob", 1.1),
        event("oak shelf", "p03", "bob", 1.1),
        event("only ann", "p01", "ann", 1.1),
        event("early bird", "late", "bob", 1.1),
        *(event(f"machine {number}", "p01", "bot", 1.1 + number / 1_000) for number in range(4)),
    ]
    paths = init_repository(tmp_path / "repo")
    (paths.root / "screening.yaml").write_text("limits:\n  max_visits_a_day: 3\n")
    for number, row in enumerate(rows):
        row["user_id"] += str(number) if row["user_id"] == "bob" else ""  # within what one person may do
    put(paths, pins=[*catalogue(), pin("late", 3, "early bird bath")], search_log=rows)
    aggregate(paths, as_of=at(5))
    record(paths, Subjects.of(users=["ann"], pins=["p02"], queries=["Secret  wish"]))
    note, found = drawn(paths, "screened", count=50)
    assert [(row["query"], row["pin_id"]) for row in found if row["source"] == "shown"] == [("oak shelf", "p03")]
    unshown = {(row["query"], row["pin_id"]) for row in found if row["source"] == "unshown"}
    assert unshown and {query for query, _ in unshown} == {"oak shelf"}
    assert not {"p02", "gone", "p03"} & {pin_id for _, pin_id in unshown}
    assert note["left_out"] == {
        "before the pin was created": 1,
        "no such pin": 1,
        "query: erased": 1,
        "query: phone number": 1,
        "too many visits of a user in a day": 4,
    }


def test_queries_of_too_few_people_are_left_out(tmp_path):
    rows = [event("oak", "p01", "ann", 1.1), event("oak", "p02", "bob", 1.2), event("lamp", "p02", "bob", 1.3)]
    paths = written(tmp_path / "repo", rows)
    note, found = drawn(paths, "two", count=50, min_users=2, unshown=0)
    assert {row["query"] for row in found} == {"oak"}
    assert note["left_out"] == {"query: of fewer than 2 people": 1}
    with pytest.raises(PinfeatherError, match="may be sampled: 3 query: of fewer than 3 people"):
        drawn(paths, "three", count=50, min_users=3)


def test_a_sample_is_never_overwritten_by_another(tmp_path):
    paths = written(tmp_path / "repo", log_of_a_day())
    drawn(paths, "kept", count=40)
    before = {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in paths.samples.iterdir()}
    drawn(paths, "kept", count=40)  # the same is no other
    opened = []

    @contextmanager
    def never():
        opened.append(1)
        yield

    with pytest.raises(UsageError, match="already, with count 40 and not 41"):
        sample(paths, SampleOptions(name="kept", first=DAY, count=41), never)
    assert not opened  # said before anything is computed
    put(paths, pins=catalogue(), search_log=log_of_a_day()[:1_000])
    with pytest.raises(PinfeatherError, match="when the log, the release or the erasures were others"):
        drawn(paths, "kept", count=40)
    assert {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in paths.samples.iterdir()} == before


def test_a_sample_that_was_killed_is_written_by_the_same_command(tmp_path, monkeypatch):
    paths = written(tmp_path / "repo", log_of_a_day())
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(sampling, "write_json", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        drawn(paths, "killed", count=40)
    assert sampling.sample_names(paths) == []
    drawn(paths, "killed", count=40)
    assert sampling.sample_names(paths) == ["killed"]


def test_what_was_erased_while_it_ran_is_not_written(tmp_path, monkeypatch):
    paths = written(tmp_path / "repo", log_of_a_day())
    whole = Draw.all

    def erase_meanwhile(draw, *given):
        record(paths, Subjects.of(queries=["oak"]))
        return whole(draw, *given)

    monkeypatch.setattr(Draw, "all", erase_meanwhile)
    with pytest.raises(PinfeatherError, match="erased while this ran"):
        drawn(paths, "raced", count=40)
    assert not list(paths.samples.glob("*")) if paths.samples.is_dir() else True


def test_levels_are_the_students_or_thirds():
    scores = np.array([1.49, 1.5, np.nan, 4.7])
    assert predicted("student", scores, scores) == ["1", "2", "unknown", "5"]
    pool = np.arange(9.0)
    assert predicted("bm25", pool, pool) == ["low"] * 3 + ["middle"] * 3 + ["high"] * 3
    assert predicted("zero-shot", np.array([np.nan]), np.array([np.nan])) == ["unknown"]


def test_the_best_pins_of_the_whole_catalogue_are_retrieved(shop, monkeypatch):
    ranker = LexicalRanker(shop)
    whole = ranker.retrieve(["oak shelf", "unheard of"], 7)
    assert len(whole[0]) == 7 and whole[1] == []
    scores = ranker.scores(["oak shelf"] * 40, [f"p{number:02}" for number in range(40)])
    expected = sorted(range(40), key=lambda number: (-scores[number], number))[:7]
    assert whole[0] == [f"p{number:02}" for number in expected]
    monkeypatch.setattr("pinfeather.sampling_rankers._BLOBS", 6)  # in small parts it is the same
    assert LexicalRanker(shop).retrieve(["oak shelf", "unheard of"], 7) == whole
    assert np.isnan(ranker.scores(["oak"], ["no such pin"])).all()


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["--quota", "lang=cubic"], "--quota lang=cubic: allowed are lang, band, freshness, level"),
        (["--quota", "colour=equal"], "--quota colour=equal: allowed are"),
        (["--quota", "lang=equal", "--quota", "lang=sqrt"], "--quota lang is given as equal and as sqrt"),
        (["--from", "yesterday"], "--from 'yesterday' is no day"),
        (["--name", "../x"], "A sample cannot be called '../x'"),
        (["--from", "2026-03-03", "--to", "2026-03-02"], "lies before the first"),
        (["--scorer", "student"], "--scorer student reads the vectors of the live space"),
    ],
)
def test_wrong_usage_is_said(shop, pinfeather, words, error):
    code, out, err = pinfeather("sample", "--repo", shop.root, *words)
    assert code == 2 and out == "" and error in err


def test_the_command_says_what_it_drew(shop, pinfeather):
    words = ["sample", "--repo", shop.root, "--from", DAY, "--count", 30, "--scorer", "bm25"]
    code, out, _ = pinfeather(*words, "--json")
    said = json.loads(out)
    assert code == 0
    assert (said["sample"], said["pairs"], said["seed"]) == ("2026-03-02", 30, 0)
    assert said["file"] == str(shop.samples / "2026-03-02.parquet")
    code, out, err = pinfeather(*words)
    assert code == 0 and "Shown pairs of 2026-03-02" in out and "pinfeather label" in err


def test_without_a_log_or_views_it_says_what_to_run(tmp_path):
    paths = init_repository(tmp_path / "repo")
    with pytest.raises(PinfeatherError, match="pinfeather validate"):
        drawn(paths, "none", count=5)
    put(paths, pins=catalogue(), search_log=log_of_a_day())
    with pytest.raises(PinfeatherError, match="pinfeather aggregate"):
        drawn(paths, "none", count=5)
