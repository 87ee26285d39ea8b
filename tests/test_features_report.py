"""The feature report: its figures against plain Python, what changed, flags, the command and its pictures."""

import json
import math
import os
import sys
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feature_repo.aggregates import aggregate
from feature_repo.aggregates.schemas import VIEW_SCHEMAS
from feature_repo.errors import PinfeatherError
from feature_repo.paths import RepoPaths
from feature_repo.pin_text import DEFAULT_TEMPLATE, FIELDS, LIST_FIELDS, PinFields
from feature_repo.report import forget_pins, make_report, note_run
from feature_repo.report.change import chance_index, length_classes, stability_index
from feature_repo.report.figures import LANGUAGES, MOST_WORDS
from feature_repo.report.measures import VIEW_OF
from feature_repo.report.storage import KEPT, keep_report, last_report
from feature_repo.text import normalise, words
from pinfeather.plots import draw_report

NOW = datetime(2026, 10, 1, tzinfo=UTC)
TRICKY = [
    "oak",
    "Lamp-shade",
    " two  spaces ",
    "x\ty\nz",
    "日本の庭",
    "สวน สวย",
    "soft\xadhyphen",
    "re\u0301sume\u0301",
    "a\u200bb",
    "\u00a0wide\u2003space\u3000",
    "❤",
    "100% don't",
    "",
    "word " * 45,
]


@pytest.fixture
def paths(tmp_path):
    (tmp_path / "feature_store.yaml").touch()
    (tmp_path / "data").mkdir()
    return RepoPaths(tmp_path)


def write_views(paths, pins):
    """View sources of ``pins`` (dictionaries of fields, ``age`` and ``event_age`` in days, ``seen``)."""
    paths.views.mkdir(parents=True, exist_ok=True)
    for view, schema in VIEW_SCHEMAS.items():
        rows = []
        for number, pin in enumerate(pins):
            own = ["seen"] if view == "pin_engagement" else [field for field, of in VIEW_OF.items() if of == view]
            if view != "pin_text" and not any(pin.get(field) for field in own):
                continue
            when = NOW - timedelta(days=pin.get("event_age", 1.0))
            known = {"pin_id": f"p{number}", "event_timestamp": when, "created_timestamp": when, **pin}
            known["created_at"] = None if pin.get("age") is None else NOW - timedelta(days=pin["age"])
            rows.append({name: known.get(name) for name in schema.names})
        pq.write_table(pa.Table.from_pylist(rows, schema=schema), paths.views / f"{view}.parquet")
    note_run(paths, "aggregate", {"as_of": NOW.isoformat(), "screened": {}, "left_out": {}})
    return paths


def some_pins(count=300, seed=5):
    random = np.random.default_rng(seed)
    pins = []
    for _ in range(count):
        pin = {"lang": str(random.choice(["en", "de", "ja"])), "age": float(random.uniform(0, 900))}
        for field in FIELDS:
            if random.random() < 0.4:
                texts = [str(text) for text in random.choice(TRICKY, random.integers(1, 4))]
                pin[field] = sorted(set(texts)) if field in LIST_FIELDS else " ".join(texts)
        pin["image_sha256"] = str(random.integers(0, 200)) if random.random() < 0.9 else None
        pin["seen"] = bool(random.random() < 0.5)
        pins.append(pin)
    return pins


def text_of(pin, field):
    value = pin.get(field)
    return " | ".join(normalise(item) for item in value or ()) if field in LIST_FIELDS else normalise(value)


def test_figures_are_those_that_plain_python_counts(paths):
    # Two spellings of one text, and two texts.
    alike = [{"title": title} for title in ("re\u0301sume\u0301", "r\u00e9sum\u00e9", "Oak", "oak")]
    pins = some_pins() + [{"lang": "en", "age": 1.0, "image_sha256": None, "seen": False, **pin} for pin in alike]
    report = make_report(write_views(paths, pins), now=NOW).data
    assert report["pins"] == len(pins)
    has = {"title": ["title"], "caption": ["caption"], "link": ["link_title", "link_description"]}
    has |= {"description": ["description"], "boards": ["board_titles"], "queries": ["engaged_queries"]}
    for source, fields in has.items():
        there = [any(text_of(pin, field).strip("| ") for field in fields) for pin in pins]
        assert report["coverage"][source] == pytest.approx(sum(there) / len(pins)), source
    assert report["coverage"]["engagement"] == sum(pin["seen"] for pin in pins) / len(pins)
    rendered = [DEFAULT_TEMPLATE.render(PinFields.from_row(pin)) for pin in pins]
    assert report["coverage"]["any"] == sum(bool(one.text) for one in rendered) / len(pins)
    for field in FIELDS:
        counts = [len(words(text_of(pin, field))) for pin in pins]
        found = report["lengths"][field]
        assert found["pins"] == sum(count > 0 for count in counts)
        assert found["max"] == max(counts)
        budget = next(rule.budget for rule in DEFAULT_TEMPLATE.rules if rule.name == field)
        assert found["over_budget"] == pytest.approx(sum(count > budget for count in counts) / found["pins"])
        expected = [sum(min(count, MOST_WORDS) == length for count in counts) for length in range(1, MOST_WORDS + 1)]
        assert found["histogram"] == expected
    texts = report["lengths"]["text"]
    cut = sum(one.truncated for one in rendered)
    assert cut > 20
    assert texts["over_budget"] == pytest.approx(cut / texts["pins"])
    whole = [tuple(text_of(pin, field) for field in FIELDS) for pin in pins]
    whole = [text for text in whole if any(part.strip("| ") for part in text)]
    assert report["duplicates"]["text"]["distinct"] == len(set(whole))
    images = [pin["image_sha256"] for pin in pins if pin["image_sha256"]]
    shared = [image for image in images if images.count(image) > 1]
    assert (report["duplicates"]["image"]["pins"], report["duplicates"]["image"]["sharing"]) == (
        len(images),
        len(shared),
    )
    assert report["duplicates"]["image"]["largest"] == max(images.count(image) for image in images)
    assert sum(report["duplicates"]["image"]["sizes"].values()) == len(images)
    assert [path.name for path in paths.data.glob(".report-*")] == []


def test_coverage_by_language_and_age_sums_up_the_rare(paths):
    pins = [{"title": "x", "lang": f"l{number:02}", "age": 3.0} for number in range(LANGUAGES + 3)]
    pins += [{"title": "x", "lang": "l00", "age": 200.0}, {"lang": None, "age": None}, {"lang": " ", "age": -2.0}]
    report = make_report(write_views(paths, pins), now=NOW).data
    languages = report["coverage_by_language"]
    assert list(languages)[:2] == ["l00", "unknown"]
    assert languages["l00"] == languages["l00"] | {"pins": 2, "title": 1.0, "caption": 0.0}
    assert (languages["unknown"]["pins"], languages["unknown"]["any"]) == (2, 0.0)
    assert languages["other"]["pins"] == 3
    assert len(languages) == LANGUAGES + 2
    ages = {name: row["pins"] for name, row in report["coverage_by_age"].items()}
    assert ages == {"under 1 week": LANGUAGES + 4, "3-12 months": 1, "unknown": 1}


def test_freshness_is_of_each_view(paths):
    pins = [{"title": "x", "event_age": float(age)} for age in range(11)]
    report = make_report(write_views(paths, pins), now=NOW).data
    assert report["freshness"] == {"pin_text": {"rows": 11, "p0": 0, "p10": 1, "p50": 5, "p90": 9, "p100": 10}}


def test_without_a_note_ages_count_from_the_latest_event(paths):
    write_views(paths, [{"title": "x", "event_age": 2.0}, {"title": "y", "event_age": 12.0}])
    (paths.reports / "aggregate.json").write_text("{ damaged")
    report = make_report(paths, now=NOW).data
    assert report["freshness"]["pin_text"]["p100"] == 10
    assert (report["behind_days"], report["screened"]) == (2.0, None)


def test_change_since_the_last_report(paths):
    before = [{"title": "one", "lang": "en", "event_age": 10.0} for _ in range(40)]
    first = make_report(write_views(paths, before), now=NOW)
    assert first.change is None
    after = [{"title": "one two three", "lang": "de", "event_age": 4.0} for _ in range(20)]
    renamed = [{"pin_id": f"new{number}", "lang": "de", "event_age": 4.0} for number in range(10)]
    second = make_report(write_views(paths, after + renamed), now=NOW + timedelta(days=1))
    assert second.change["pins"] == {"before": 40, "now": 30, "new": 10, "gone": 20}
    assert second.change["coverage"]["title"] == pytest.approx(20 / 30 - 1)
    assert second.change["freshness"] == {"pin_text": -6.0}
    assert second.change["drift"]["language"]["psi"] > 5
    assert set(second.change["drift"]) == {"language", "pin age", "words of title", "words of text"}
    checks = {flag["check"]: flag for flag in second.flags}
    assert {"no text", "coverage of title", "gone", "drift of language", "drift of words of title"} <= set(checks)
    assert checks["gone"]["value"] == 0.5
    assert "drift of pin age" not in checks
    # Asking again loses nothing and writes nothing.
    files = sorted(path.name for path in paths.reports.iterdir())
    third = make_report(paths, now=NOW + timedelta(days=4))
    assert third.change == second.change
    assert third.data["behind_days"] == 4
    assert sorted(path.name for path in paths.reports.iterdir()) == files
    forget_pins(paths)
    fourth = make_report(write_views(paths, before), now=NOW + timedelta(days=5))
    assert fourth.change["pins"] == {"before": 30, "now": 40, "new": None, "gone": None}


def test_a_pin_that_takes_the_place_of_another_is_a_change(paths):
    make_report(write_views(paths, [{"title": "x"}]), now=NOW)
    second = make_report(write_views(paths, [{"title": "x", "pin_id": "other"}]), now=NOW + timedelta(days=1))
    assert second.change["pins"] == {"before": 1, "now": 1, "new": 1, "gone": 1}


counts = st.dictionaries(st.sampled_from("abcdef"), st.integers(0, 1000), max_size=6)


@given(counts, counts)
def test_the_index_is_symmetric_and_zero_for_equal_shares(before, now):
    assert stability_index(before, before) == 0
    assert stability_index(before, {name: 7 * count for name, count in before.items()}) == pytest.approx(0, abs=1e-9)
    assert stability_index(before, now) >= 0
    assert stability_index(before, now) == pytest.approx(stability_index(now, before))
    assert chance_index(before, now) >= 0


def test_the_index_is_the_published_one():
    # Shares 0.5, 0.3, 0.2 and 0.4, 0.4, 0.2, by hand.
    expected = (0.4 - 0.5) * math.log(0.4 / 0.5) + (0.4 - 0.3) * math.log(0.4 / 0.3)
    assert stability_index({"a": 50, "b": 30, "c": 20}, {"a": 4, "b": 4, "c": 2}) == pytest.approx(expected)
    assert chance_index({"a": 50, "b": 30, "c": 20}, {"a": 4, "b": 4, "c": 2}) == pytest.approx(2 * (1 / 100 + 1 / 10))
    assert length_classes([1] * MOST_WORDS) == {
        "up to 1": 1,
        "up to 2": 1,
        "up to 4": 2,
        "up to 8": 4,
        "up to 16": 8,
        "up to 32": 16,
        "up to 64": 32,
        "over 64": 16,
    }


def test_rejected_and_screened_rows_are_counted(catalogue):
    catalogue.put("a", "hat").put("b", "sock").put("c", "shoe" * 6_000).save()
    note_run(
        catalogue.paths,
        "aggregate",
        {"as_of": catalogue.NOW.isoformat(), "screened": {"pins": {"mail address": 1}}, "left_out": {}},
    )
    report = make_report(catalogue.paths, now=catalogue.NOW)
    assert report.data["tables"]["pins"]["accepted"] == 2
    assert list(report.data["tables"]["pins"]["rejected"].values()) == [1]
    assert {"rejected pins", "screened pins"} <= {flag["check"] for flag in report.flags}


def test_aggregate_notes_its_time_and_what_it_screened(catalogue):
    catalogue.put("a", "hat").save()
    aggregate(catalogue.paths, as_of=catalogue.NOW, folder=catalogue.paths.data / "elsewhere")
    assert make_report(catalogue.paths).data["behind_days"] < 1  # as of now, not of what went elsewhere
    aggregate(catalogue.paths, as_of=catalogue.NOW)
    assert make_report(catalogue.paths).data["as_of"] == catalogue.NOW.isoformat()
    assert make_report(catalogue.paths).data["screened"] == {}


def test_reports_are_kept_up_to_a_number_and_a_damaged_one_is_passed_over(paths):
    import duckdb

    con = duckdb.connect()
    con.execute("CREATE TABLE measured AS SELECT 1::UBIGINT AS pin")
    for number in range(KEPT + 3):
        keep_report(con, paths, {"made_at": (NOW + timedelta(minutes=number)).isoformat(), "number": number})
    kept = sorted(paths.reports.glob("features-*.json"))
    assert len(kept) == KEPT
    assert len(list(paths.reports.glob("*.pins.parquet"))) == 1
    kept[-1].write_text('{"cut')
    assert last_report(paths)["number"] == KEPT + 1
    assert [path for path in os.listdir(paths.reports) if path.startswith(".")] == []


def test_what_cannot_be_reported_is_said(paths):
    with pytest.raises(PinfeatherError, match=r"does not exist yet: run `pinfeather aggregate"):
        make_report(paths)
    write_views(paths, [{"title": "x"}])
    (paths.views / "pin_text.parquet").write_bytes(b"PAR1 damaged")
    with pytest.raises(PinfeatherError, match="Run `pinfeather aggregate`"):
        make_report(paths)
    assert not list(paths.reports.glob("features-*"))


def test_an_empty_catalogue_has_a_report(paths, pinfeather):
    write_views(paths, [])
    code, out, err = pinfeather("features", "--report", "--repo", paths.root, "--json")
    assert code == 0, err
    report = json.loads(out)
    assert (report["pins"], report["coverage"]["title"], report["freshness"]) == (0, 0.0, {})
    assert report["plots"] == []


KEYS = {"as_of", "made_at", "behind_days", "template", "pins", "coverage", "coverage_by_language", "coverage_by_age"}
KEYS |= {
    "freshness",
    "lengths",
    "duplicates",
    "tables",
    "screened",
    "left_out",
    "catalogue",
    "change",
    "flags",
    "plots",
}


@pytest.mark.slow
def test_the_command_prints_and_draws_the_report(paths, pinfeather, tmp_path):
    make_report(write_views(paths, some_pins(60, 1)), now=NOW)
    write_views(paths, some_pins(90, 2))
    words = ["features", "--report", "--repo", paths.root]
    code, out, err = pinfeather(*words, "--plots", tmp_path / "plots" / "new", "--json")
    assert code == 0, err
    report = json.loads(out)
    assert set(report) == KEYS
    assert report["change"]["pins"]["now"] == 90
    drawn = {path.name: path.read_bytes() for path in (tmp_path / "plots" / "new").iterdir()}
    assert set(drawn) == {f"{name}.png" for name in ("coverage", "freshness", "lengths", "duplicates", "change")}
    assert [str(tmp_path / "plots" / "new" / f"{name}.png") for name in ("coverage", "change")] == [
        report["plots"][0],
        report["plots"][-1],
    ]
    for name, picture in drawn.items():
        assert picture.startswith(b"\x89PNG"), name
        assert 2_000 < len(picture) < 100_000, name
    code, out, err = pinfeather(*words)
    assert code == 0, err
    for part in ("Coverage as of 2026-10-01", "Age of events", "Pins that share", "Drift since", "30 new"):
        assert part in out
    assert "flag: " in err


def test_no_plot_holds_the_cut_text_against_a_budget_that_no_text_is_cut_by(paths, monkeypatch, tmp_path):
    drawn = {}
    monkeypatch.setattr("pinfeather.plots.save_png", lambda figure, path: drawn.update({path.stem: figure}))
    report = make_report(write_views(paths, some_pins(60, 1)), now=NOW).data
    draw_report(report, tmp_path)
    *fields, text = drawn["lengths"].axes
    share = f"{report['lengths']['text']['over_budget']:.1%}"
    assert text.get_title() == "" and text.get_title(loc="left").startswith("whole pin text")
    assert text.get_title(loc="right") == f"some field cut in {share}"
    assert all(axes.get_title(loc="right").startswith("budget ") for axes in fields)


@pytest.mark.slow
@pytest.mark.parametrize("count", [0, 1, 400])
def test_the_same_report_gives_the_same_pictures(paths, tmp_path, count):
    report = make_report(write_views(paths, some_pins(count, 3)), now=NOW).data
    draw_report(report, tmp_path / "one")
    draw_report(report, tmp_path / "two")
    one, two = ({path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in ("one", "two"))
    assert len(one) == 4
    assert one == two


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "Name at least one PIN"),
        (["a", "--report"], "--report is of all pins"),
        (["a", "--plots", "x"], "give --report as well"),
        (["--report", "--service", "home_feed_v1"], "--service is for looking pins up"),
    ],
)
def test_words_that_do_not_go_together_are_refused(paths, pinfeather, words, message):
    code, out, err = pinfeather("features", *words, "--repo", paths.root)
    assert (code, out) == (2, "")
    assert message in err


def test_plots_without_matplotlib_name_the_extra_before_any_work(paths, pinfeather, monkeypatch):
    write_views(paths, [{"title": "x"}])
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    code, _, err = pinfeather("features", "--report", "--repo", paths.root, "--plots", "x")
    assert (code, "pip install 'pinfeather[plots]'" in err) == (1, True)
    assert not list(paths.reports.glob("features-*"))
    assert pinfeather("features", "--report", "--repo", paths.root)[0] == 0
