"""Import of Home Depot, ESCI and WANDS: small files of the published forms."""

import csv
import io
import json
import zipfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from feature_repo.contracts import MAX_TEXT_CHARACTERS
from feature_repo.errors import PinfeatherError, UsageError
from feature_repo.paths import RepoPaths
from feature_repo.validation import validate
from pinfeather.cli import cli
from pinfeather.importers.crowdflower import import_crowdflower
from pinfeather.importers.esci import HELP as ESCI_HELP
from pinfeather.importers.esci import LEVEL_OF as ESCI_LEVELS
from pinfeather.importers.esci import import_esci
from pinfeather.importers.homedepot import import_homedepot, level
from pinfeather.importers.wands import HELP as WANDS_HELP
from pinfeather.importers.wands import LEVEL_OF as WANDS_LEVELS
from pinfeather.importers.wands import import_wands

HD_HEADER = ["id", "product_uid", "product_title", "search_term", "relevance"]
HD_ROWS = [
    [2, 100001, "Simpson Strong-Tie 12-Gauge Angle", "angle  bracket", 3],
    [3, 100001, "Simpson Strong-Tie 12-Gauge Angle", "l bracket", 2.5],
    [9, 100002, "BEHR Déco 1-gal. ½", "deck over", 1.33],
    [16, 100005, "Delta Vero", " ", 2.33],
]
QUERIES = [["0", "salon chair", "Massage Chairs"], ["1", "smart, coffee", ""]]
PRODUCTS = [
    ["0", "solid wood platform bed", "Beds", "Furniture / Beds", "good , deep sleep\n<b>here</b>", "a:1|b:2", "15.0"],
    ["1", 'a "big" slow cooker', "", "", "", "", ""],
    ["2", "", "", "", "", "", ""],
]
LABELS = [["0", "0", "0", "Exact"], ["1", "0", "1", "Irrelevant"], ["2", "1", "0", "Partial"], ["3", "1", "2", "Exact"]]


def text_of(header, rows, delimiter=","):
    text = io.StringIO()
    writer = csv.writer(text, delimiter=delimiter, lineterminator="\n")
    writer.writerows([header, *rows])
    return text.getvalue()


def homedepot_file(folder, form):
    folder.mkdir(parents=True, exist_ok=True)
    content = text_of(HD_HEADER, HD_ROWS)
    if form == "train.csv":  # as published: no UTF-8
        (folder / form).write_bytes(content.encode("latin-1"))
    elif form == "train.csv.zip":
        with zipfile.ZipFile(folder / form, "w") as archive:
            archive.writestr("train.csv", content.encode("latin-1"))
    else:
        names = ["id", "item_id", "title", "query", "relevance"]
        pq.write_table(pa.table(dict(zip(names, zip(*HD_ROWS, strict=True), strict=True))), folder / form)
    return folder / form


def wands_folder(folder, queries=QUERIES, products=PRODUCTS, labels=LABELS):
    folder.mkdir(parents=True, exist_ok=True)
    product = ["product_id", "product_name", "product_class", "category hierarchy", "product_description"]
    heads = {
        "query": (["query_id", "query", "query_class"], queries),
        "product": ([*product, "product_features", "rating_count"], products),
        "label": (["id", "query_id", "product_id", "label"], labels),
    }
    for name, (header, rows) in heads.items():
        (folder / f"{name}.csv").write_text(text_of(header, rows, "\t"), encoding="utf-8")
    return folder


def esci_folder(folder, labels=("E", "S", "C", "I", "E")):
    folder.mkdir(parents=True, exist_ok=True)
    rows = [
        (0, "led lamp", 7, "B1", "us"),
        (1, "led lamp", 7, "B2", "us"),
        (2, "led lamp", 7, "gone", "us"),
        (3, "lámpara", 8, "B1", "es"),
        (4, "ランプ", 9, "B3", "jp"),
    ]
    names = ["example_id", "query", "query_id", "product_id", "product_locale"]
    examples = dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))
    flags = {"small_version": [1] * 5, "large_version": [1] * 5, "split": ["train"] * 5}
    table = pa.table({**examples, "esci_label": list(labels), **flags})
    pq.write_table(table, folder / "shopping_queries_dataset_examples.parquet")
    products = [
        ("B1", "Lamp", "<p>Bright &amp; warm</p>", "10 W\nE27", "Acme", "red", "us"),
        ("B2", "Shade", None, "x" * 3 * MAX_TEXT_CHARACTERS, None, None, "us"),
        ("B1", "Lámpara", None, None, None, None, "es"),
        ("B3", None, None, "明るい", None, None, "jp"),
        ("B4", None, None, None, None, None, "us"),
    ]
    names = ["title", "description", "bullet_point", "brand", "color", "locale"]
    columns = ["product_id", *(f"product_{name}" for name in names)]
    table = pa.table(dict(zip(columns, map(list, zip(*products, strict=True)), strict=True)))
    pq.write_table(table, folder / "shopping_queries_dataset_products.parquet")
    return folder


def read(raw, table):
    return pq.read_table(raw / table).to_pylist()


def labels_of(raw):
    return [(row["query"], row["pin_id"], row["level"]) for row in read(raw, "judgments")]


@pytest.mark.parametrize("form", ["train.csv", "train.csv.zip", "pairs.parquet"])
def test_homedepot_as_published_and_as_parquet(tmp_path, form):
    counts = import_homedepot(homedepot_file(tmp_path, form), tmp_path / "raw")
    assert counts == {"pins": 2, "judgments": 3, "queries": 3, "skipped": 1, "described": 0}
    judgments = read(tmp_path / "raw", "judgments")
    assert [(row["query"], row["pin_id"], row["level"]) for row in judgments] == [
        ("angle bracket", "hd-100001", 5),
        ("l bracket", "hd-100001", 4),
        ("deck over", "hd-100002", 2),
    ]
    assert [row["level_mean"] for row in judgments] == pytest.approx([5.0, 4.0, 1.66])
    assert {row["level_variance"] for row in judgments} == {None}
    assert [pin["title"] for pin in read(tmp_path / "raw", "pins")] == [HD_ROWS[0][2], "BEHR Déco 1-gal. ½"]


@pytest.mark.parametrize("zipped", [False, True])
def test_homedepot_takes_the_descriptions_that_lie_beside(tmp_path, zipped):
    path = homedepot_file(tmp_path, "train.csv.zip")
    content = text_of(["product_uid", "product_description"], [[100001, "Not only do <b>angles</b>"], [7, "other"]])
    if zipped:
        with zipfile.ZipFile(tmp_path / "product_descriptions.csv.zip", "w") as archive:
            archive.writestr("product_descriptions.csv", content)
    else:
        (tmp_path / "product_descriptions.csv").write_text(content)
    assert import_homedepot(path, tmp_path / "raw")["described"] == 1
    assert [pin["description"] for pin in read(tmp_path / "raw", "pins")] == ["Not only do angles", None]


def test_every_published_mean_has_its_level():
    thirds = {1: 1, 1.25: 1, 1.33: 2, 1.5: 2, 1.67: 2, 1.75: 3, 2: 3, 2.25: 3, 2.33: 4, 2.5: 4, 2.67: 4, 2.75: 5, 3: 5}
    assert {mean: level(mean) for mean in thirds} == thirds


@settings(deadline=None)
@given(st.floats(1, 3), st.floats(1, 3))
def test_a_higher_mean_is_never_a_lower_level(one, other):
    low, high = sorted((one, other))
    assert 1 <= level(low) <= level(high) <= 5


def test_wands_as_published(tmp_path):
    counts = import_wands(wands_folder(tmp_path / "dataset"), tmp_path / "raw")
    assert counts == {"pins": 2, "judgments": 3, "queries": 2, "skipped": 2}  # product 2 and the label that names it
    assert labels_of(tmp_path / "raw") == [
        ("salon chair", "wands-0", 5),
        ("salon chair", "wands-1", 1),
        ("smart, coffee", "wands-0", 3),
    ]
    pins = [(pin["title"], pin["description"]) for pin in read(tmp_path / "raw", "pins")]
    assert pins == [("solid wood platform bed", "good , deep sleep here"), ('a "big" slow cooker', None)]


def test_a_wands_product_listed_twice_is_one_pin(tmp_path):
    folder = wands_folder(tmp_path / "dataset", products=[*PRODUCTS, ["0", "another name", "", "", "", "", ""]])
    assert import_wands(folder, tmp_path / "raw")["pins"] == 2


def test_esci_of_all_locales(tmp_path):
    counts = import_esci(esci_folder(tmp_path / "set"), tmp_path / "raw")
    assert counts == {"pins": 4, "judgments": 4, "queries": 3, "skipped": 2}  # B4 has no text; one product is gone
    assert labels_of(tmp_path / "raw") == [
        ("led lamp", "esci-us-B1", 5),
        ("led lamp", "esci-us-B2", 4),
        ("lámpara", "esci-es-B1", 1),
        ("ランプ", "esci-jp-B3", 5),
    ]
    assert [row["lang"] for row in read(tmp_path / "raw", "judgments")] == ["en", "en", "es", "ja"]
    pins = read(tmp_path / "raw", "pins")
    assert [(pin["lang"], pin["country"]) for pin in pins] == [("en", "US"), ("en", "US"), ("es", "ES"), ("ja", "JP")]
    assert pins[0]["description"] == "Bright & warm 10 W E27"
    assert len(pins[1]["description"]) == MAX_TEXT_CHARACTERS


def test_esci_of_one_locale(tmp_path):
    counts = import_esci(esci_folder(tmp_path / "set"), tmp_path / "raw", ["es"])
    assert counts == {"pins": 1, "judgments": 1, "queries": 1, "skipped": 0}
    with pytest.raises(UsageError, match="Unknown locale uk: the set has us, es, jp"):
        import_esci(tmp_path / "set", tmp_path / "other", ["uk"])


def test_help_tells_the_label_maps():
    assert ESCI_LEVELS == {"E": 5, "S": 4, "C": 2, "I": 1}
    assert "Exact maps to level 5, Substitute to 4, Complement to 2, Irrelevant to 1" in " ".join(ESCI_HELP.split())
    assert WANDS_LEVELS == {"Exact": 5, "Partial": 3, "Irrelevant": 1}
    assert "Exact maps to level 5, Partial to 3, Irrelevant to 1" in " ".join(WANDS_HELP.split())


@pytest.mark.parametrize(
    ("importer", "make"),
    [
        (import_homedepot, lambda folder: homedepot_file(folder, "train.csv")),
        (import_wands, wands_folder),
        (import_esci, esci_folder),
    ],
)
def test_what_is_imported_passes_the_contract_and_importing_twice_changes_nothing(tmp_path, importer, make):
    paths = RepoPaths(tmp_path / "repo")
    counts = importer(make(tmp_path / "set"), paths.raw)
    files = {path: path.read_bytes() for path in paths.raw.rglob("*.parquet")}
    assert importer(make(tmp_path / "set"), paths.raw) == counts
    assert {path: path.read_bytes() for path in paths.raw.rglob("*.*")} == files
    report = validate(paths)
    assert {name: (table.accepted, table.total_rejected) for name, table in report.tables.items() if table.rows} == {
        "pins": (counts["pins"], 0),
        "judgments": (counts["judgments"], 0),
    }
    valid = pq.read_table(paths.valid / "judgments.parquet")
    assert {"level_mean", "level_variance"} <= set(valid.column_names)


def test_the_contract_refuses_a_mean_or_variance_off_the_scale(tmp_path):
    paths = RepoPaths(tmp_path / "repo")
    import_homedepot(homedepot_file(tmp_path, "train.csv"), paths.raw)
    file = next((paths.raw / "judgments").glob("*.parquet"))
    table = pq.read_table(file)
    for column, values in (("level_mean", [5.5, None, 1.0]), ("level_variance", [0.0, -0.1, None])):
        table = table.set_column(table.schema.get_field_index(column), column, pa.array(values, pa.float64()))
    pq.write_table(table, file)
    assert (validate(paths).tables["judgments"].accepted, validate(paths).tables["judgments"].total_rejected) == (1, 2)


def test_crowdflower_keeps_the_variance_of_the_raters(shared_data, tmp_path):
    import_crowdflower(shared_data / "crowdflower" / "dev_pairs.parquet", tmp_path)
    rows = read(tmp_path, "judgments")
    assert {row["level_mean"] for row in rows} == {None}
    published = (
        pq.read_table(shared_data / "crowdflower" / "dev_pairs.parquet").column("relevance_variance").to_pylist()
    )
    assert published.count(0.471) > 2000  # two of three raters agree, one is a step off: a standard deviation
    found = [row["level_variance"] for row in rows]
    assert found == pytest.approx([(4 / 3 * each) ** 2 for each in published])
    assert min(found) == 0.0


@pytest.mark.parametrize(
    ("importer", "make", "words"),
    [
        (import_homedepot, lambda f: bad_file(f, text_of(HD_HEADER, [[1, 2, "t", "q", 4]])), "row 1: relevance '4'"),
        (import_homedepot, lambda f: bad_file(f, text_of(HD_HEADER, [[1, 2, "t", "q", "x"]])), "row 1: relevance 'x'"),
        (import_homedepot, lambda f: bad_file(f, text_of(HD_HEADER[:4], [])), "no column relevance"),
        (import_homedepot, lambda f: bad_file(f, text_of(HD_HEADER, [])), "no rows"),
        (import_homedepot, lambda f: f / "absent.csv", "does not exist"),
        (import_wands, lambda f: wands_folder(f, labels=[*LABELS, ["4", "0", "0", "Perfect"]]), "row 5: label 'Perf"),
        (import_wands, lambda f: wands_folder(f, labels=[["0", "9", "0", "Exact"]]), "query '9' or product '0' is not"),
        (import_wands, lambda f: bad_file(f, "query_id\n").parent, "no folder with query.csv"),
        (import_esci, lambda f: esci_folder(f, "ESCXE"), "row 4: esci_label 'X' is not one of E, S, C, I"),
        (import_esci, lambda f: bad_file(f, "").parent, "no folder with shopping_queries_dataset_products"),
    ],
)
def test_wrong_files_are_explained_and_leave_nothing(tmp_path, importer, make, words):
    with pytest.raises(PinfeatherError, match=words):
        importer(make(tmp_path / "set"), tmp_path / "repo" / "data" / "raw")
    assert not (tmp_path / "repo").exists()


def bad_file(folder, content):
    folder.mkdir(parents=True)
    (folder / "train.csv").write_text(content)
    return folder / "train.csv"


def test_a_failed_import_leaves_the_former_one(tmp_path):
    import_wands(wands_folder(tmp_path / "set"), tmp_path / "raw")
    files = {path: path.read_bytes() for path in (tmp_path / "raw").rglob("*.*")}
    with pytest.raises(PinfeatherError, match="Perfect"):
        import_wands(wands_folder(tmp_path / "set", labels=[*LABELS, ["4", "0", "0", "Perfect"]]), tmp_path / "raw")
    assert {path: path.read_bytes() for path in (tmp_path / "raw").rglob("*.*")} == files


def test_no_set_is_mixed_into_another(tmp_path):
    import_wands(wands_folder(tmp_path / "set"), tmp_path / "raw")
    with pytest.raises(PinfeatherError, match=r"another catalogue already \(wands.parquet\)"):
        import_esci(esci_folder(tmp_path / "esci"), tmp_path / "raw")
    assert sorted(path.name for path in (tmp_path / "raw").rglob("*.parquet")) == ["wands.parquet"] * 2


def test_the_command_makes_a_repository(tmp_path):
    esci_folder(tmp_path / "set")
    words = ["import", "esci", str(tmp_path / "set"), str(tmp_path / "repo"), "--locale", "jp", "--json"]
    done = CliRunner().invoke(cli, words)
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["judgments"] == 1
    assert (tmp_path / "repo" / "feature_store.yaml").is_file()


def test_the_real_homedepot_set_has_the_levels_of_its_description(shared_data, tmp_path):
    path = shared_data / "homedepot" / "dev_pairs.parquet"
    counts = import_homedepot(path, tmp_path)
    assert (counts["judgments"], counts["queries"], counts["skipped"]) == (59162, 9411, 0)
    levels = pq.read_table(tmp_path / "judgments").column("level").to_pylist()
    assert levels == pq.read_table(path).column("level5").to_pylist()
