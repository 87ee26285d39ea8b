"""Import of the CrowdFlower set, as published and as Parquet."""

import csv
import io
import zipfile
from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feature_repo.errors import PinfeatherError
from feature_repo.paths import RepoPaths
from feature_repo.validation import validate
from pinfeather.importers.crowdflower import HELP, LEVEL_OF, import_crowdflower
from pinfeather.importers.markup import plain_text

HEADER = ["id", "query", "product_title", "product_description", "median_relevance", "relevance_variance"]
ROWS = [
    [1, "Bridal Shower  decorations", "Accent Pillow", "Red <b>satin</b>,\nheart &amp; lace", 1, 0.0],
    [2, "led lights", 'Set of 10 "LED" Bulbs', "", 4, 0.0],
    [5, "led lights", "Accent Pillow", "Red <b>satin</b>,\nheart &amp; lace", 2, 0.471],
    [8, "007", "Die Another Day", "<style>.a{b:c}</style>Film<!-- x -->", 3, 0.5],
    [9, " ", "no query", "", 3, 0.5],
]


def published(rows=ROWS, header=HEADER):
    text = io.StringIO()
    writer = csv.writer(text, quoting=csv.QUOTE_ALL)
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue().encode()


def read(raw, table):
    return pq.read_table(raw / table).to_pylist()


@pytest.mark.parametrize("name", ["train.csv", "train.csv.zip", "pairs.parquet"])
def test_published_and_parquet_forms_give_the_same_tables(tmp_path, name):
    path, raw = tmp_path / name, tmp_path / "raw"
    if name.endswith(".zip"):
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("train.csv", published())
    elif name.endswith(".csv"):
        path.write_bytes(published())
    else:
        names = ["id", "query", "title", "description_text", "median_relevance", "relevance_variance"]
        pq.write_table(pa.table(dict(zip(names, zip(*ROWS, strict=True), strict=True))), path)

    counts = import_crowdflower(path, raw)

    assert counts == {"pins": 3, "judgments": 4, "queries": 3, "skipped": 1}
    pins, judgments = read(raw, "pins"), read(raw, "judgments")
    assert [(pin["title"], pin["description"]) for pin in pins] == [
        ("Accent Pillow", "Red satin , heart & lace"),
        ('Set of 10 "LED" Bulbs', None),
        ("Die Another Day", "Film"),
    ]
    assert [(row["query"], row["level"]) for row in judgments] == [
        ("Bridal Shower decorations", 1),
        ("led lights", 5),
        ("led lights", 2),
        ("007", 4),
    ]
    assert judgments[0]["pin_id"] == judgments[2]["pin_id"] == pins[0]["pin_id"]
    assert {row["annotator"] for row in judgments} == {"crowdflower-median"}
    assert {row["guideline_version"] for row in judgments} == {"crowdflower-2015"}
    assert {pin["lang"] for pin in pins} == {"en"}
    assert {row["event_timestamp"] for row in judgments} == {datetime(2015, 5, 11, tzinfo=UTC)}


def test_importing_twice_changes_nothing(tmp_path):
    (tmp_path / "train.csv").write_bytes(published())
    first = import_crowdflower(tmp_path / "train.csv", tmp_path / "raw")
    files = {path: path.read_bytes() for path in (tmp_path / "raw").rglob("*.*")}
    assert import_crowdflower(tmp_path / "train.csv", tmp_path / "raw") == first
    assert {path: path.read_bytes() for path in (tmp_path / "raw").rglob("*.*")} == files
    assert sorted(path.name for path in files) == ["crowdflower.parquet", "crowdflower.parquet"]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("test.csv", published([row[:4] for row in ROWS], HEADER[:4]), "no column median_relevance.*Found: id, query"),
        ("train.csv", published([]), "no rows"),
        ("train.csv", b"", "cannot be read.*Expected"),
        ("train.csv", b"a,b\n1\n", "cannot be read.*Expected"),
        ("train.csv", published([[1, "q", "t", "d", 5, 0.0]]), "row 1: median_relevance '5'"),
        ("train.csv", published([[1, "q", "t", "d", 2.5, 0.0]]), "row 1: median_relevance '2.5'"),
        ("train.zip", b"PK no zip", "cannot be read"),
        ("pairs.parquet", b"PAR1 no parquet", "cannot be read"),
        ("train.txt", b"", "allowed are .csv"),
    ],
)
def test_wrong_file_is_explained_and_writes_nothing(tmp_path, name, content, words):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(PinfeatherError, match=words):
        import_crowdflower(tmp_path / name, tmp_path / "raw")
    assert not (tmp_path / "raw").exists()
    with pytest.raises(PinfeatherError, match="does not exist"):
        import_crowdflower(tmp_path / "absent.csv", tmp_path / "raw")


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet="<>!&;[]-/abc'\"= \n", max_size=40))
def test_any_markup_becomes_text(markup):
    assert "\n" not in plain_text(markup)


@pytest.mark.parametrize(
    ("markup", "text"),
    [
        ("3 < 4 & 5", "3 < 4 & 5"),
        ("<p>one</p><p>two</p>", "one two"),
        ("a<script>x()</script>b", "a b"),
        ("<![x]>caf&eacute;", "café"),
        (None, ""),
    ],
)
def test_markup_is_removed_and_entities_resolved(markup, text):
    assert plain_text(markup) == text


def test_help_tells_source_and_label_map():
    assert "kaggle.com" in HELP
    assert LEVEL_OF == {1: 1, 2: 2, 3: 4, 4: 5}
    assert "1 to 1, 2 to 2, 3 to 4, 4 to 5" in HELP


def test_real_set_imports_whole_and_passes_the_contract(shared_data, tmp_path):
    paths = RepoPaths(tmp_path)
    counts = import_crowdflower(shared_data / "crowdflower" / "dev_pairs.parquet", paths.raw)
    assert (counts["judgments"], counts["queries"], counts["skipped"]) == (8054, 204, 0)
    report = validate(paths)
    assert {name: (table.accepted, table.total_rejected) for name, table in report.tables.items() if table.rows} == {
        "pins": (counts["pins"], 0),
        "judgments": (8054, 0),
    }
    levels = pq.read_table(paths.raw / "judgments").column("level").to_pylist()
    assert {level: levels.count(level) for level in set(levels)} == {1: 600, 2: 1130, 4: 1320, 5: 5004}
