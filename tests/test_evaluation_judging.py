"""What evaluate says beyond figures: slices, a named baseline, teachers' labels, contradictions, TREC files."""

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedders.evaluation.evaluate import METRICS, evaluate_scores
from embedders.evaluation.judging import contradictions, judge
from embedders.evaluation.pairs import PairSet
from embedders.evaluation.slices import AGES, POPULARITY, SLICINGS, UNKNOWN, band, large_enough, slice_rows
from embedders.evaluation.trec import MEASURE, write_trec
from feature_repo.errors import PinfeatherError, UsageError
from feature_repo.pin_text import PinFields


@dataclass(frozen=True)
class Said:
    """A scorer's answer."""

    scorer: str
    probabilities: np.ndarray | None = None
    scores: np.ndarray | None = None


@pytest.fixture(scope="module")
def pairs():
    """240 pairs of 12 queries, half of them of the language xx; every third pin has a description."""
    random = np.random.default_rng(1)
    queries = [f"Query  {row % 12}" for row in range(240)]
    fields = [PinFields(title=f"pin {row}", description="words" if row % 3 == 0 else None) for row in range(240)]
    made = PairSet.from_rows("made", queries, fields, random.integers(1, 6, 240))
    return replace(made, slices={"lang": ["xx" if row % 12 < 6 else "yy" for row in range(240)]})


@pytest.fixture(scope="module")
def answers(pairs):
    """A student that knows much, and BM25 that knows nothing."""
    random = np.random.default_rng(2)
    logits = random.normal(0, 1, (240, 5)) + 2 * np.eye(5)[pairs.levels - 1]
    return [
        Said("bm25", None, random.normal(size=240)),
        Said("student", np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)),
    ]


def test_a_slice_is_judged_as_a_set_of_its_rows(pairs, answers):
    bm25, student = judge(pairs, answers, by=["lang", "missing"], samples=50)
    assert list(student["slices"]) == ["lang", "missing"]
    assert list(student["slices"]["lang"]) == ["xx", "yy"]
    rows = np.array([row for row in range(240) if row % 12 < 6])
    alone = evaluate_scores(
        "made", "student", [pairs.queries[row] for row in rows], pairs.levels[rows], answers[1].probabilities[rows],
        samples=50,
    )  # fmt: skip
    found = student["slices"]["lang"]["xx"]
    assert (found["pairs"], found["queries"]) == (120, 6)
    assert {key: found[key] for key in METRICS} == {key: alone[key] for key in METRICS}
    assert found["ndcg@20_ci"] == alone["ndcg@20_ci"]
    missing = {name: each["pairs"] for name, each in bm25["slices"]["missing"].items()}
    assert missing == {"no description": 160, "nothing missing": 80}  # nobody has a caption: that is no pattern
    assert "slices" not in judge(pairs, answers, samples=2)[0]


def test_a_small_slice_is_counted_not_judged(pairs, answers):
    names = ["rare" if row < 29 else "few queries" if row % 12 < 4 else "rest" for row in range(240)]
    part = replace(pairs, slices={"lang": names})
    found = judge(part, answers, by=["lang"], samples=2)[1]["slices"]["lang"]
    assert list(found) == ["rest", "few queries", "rare"]  # the largest first
    assert found["rest"]["ndcg@20"] is not None
    for name, counts in (("rare", (29, 12)), ("few queries", (found["few queries"]["pairs"], 4))):
        small = found[name]
        assert (small["pairs"], small["queries"]) == counts
        assert {small[key] for key in METRICS} == {None}
        assert small["ndcg@20_ci"] is None
    assert large_enough([f"q{number % 5}" for number in range(30)])
    assert not large_enough([f"q{number % 5}" for number in range(29)])
    assert not large_enough([f"q{number % 4}" for number in range(300)])


def test_the_named_baseline_is_subtracted_everywhere(pairs, answers):
    bm25, student = judge(pairs, answers, by=["lang"], against="bm25", samples=100)
    assert "against" not in bm25
    assert student["against"]["scorer"] == "bm25"
    parts = [row["slices"]["lang"]["xx"] for row in (bm25, student)]
    for of_bm25, of_student in ((bm25, student), parts):
        difference = of_student["against"]["auroc_4"]
        assert difference["difference"] == pytest.approx(of_student["auroc_4"] - of_bm25["auroc_4"])
        assert difference["significant"] is True
        assert difference["p"] == pytest.approx(2 / 101)
    assert student["against"]["kappa"]["difference"] is None  # BM25 knows no levels
    assert bm25["student_minus"]["auroc_4"]["difference"] == student["against"]["auroc_4"]["difference"]
    with pytest.raises(UsageError, match="Cannot compare with 'teacher': the scorers here are bm25, student"):
        judge(pairs, answers, against="teacher")


def test_labels_of_a_teacher_judge_nobody(pairs, answers):
    labelled = replace(pairs, levels=None, teacher=answers[1].probabilities)
    bm25, student = judge(labelled, answers, by=["lang"], against="bm25", samples=2)
    assert {student[key] for key in METRICS} == {None}
    assert {student["slices"]["lang"]["xx"][key] for key in METRICS} == {None}
    assert "against" not in student
    assert student["agreement"]["accuracy"] == 1
    assert bm25["agreement"] is None
    both = judge(replace(pairs, teacher=answers[1].probabilities), answers, samples=2)[1]
    assert both["accuracy"] == judge(pairs, answers, samples=2)[1]["accuracy"]
    assert both["agreement"]["accuracy"] == 1
    assert "agreement" not in judge(pairs, answers, samples=2)[1]
    with pytest.raises(PinfeatherError, match="NaN"):  # nothing is measured, yet nothing wrong is passed on
        judge(labelled, [Said("bm25", None, np.full(240, np.nan))])


def test_unknown_slicings_and_those_that_the_pairs_do_not_tell_are_refused(pairs):
    with pytest.raises(UsageError, match="Cannot slice by 'colour': allowed are lang, popularity, age, missing"):
        slice_rows(pairs, "colour")
    with pytest.raises(UsageError, match="add the column `popularity`"):
        slice_rows(pairs, "popularity")
    with pytest.raises(UsageError, match="`age_days`, or `created_at`"):
        slice_rows(pairs, "age")
    with pytest.raises(PinfeatherError, match="lang has 1 rows, expected 240"):
        replace(pairs, slices={"lang": ["en"]})
    spoken = PairSet.from_rows(
        "s", ["wie man einen Schal strickt und wäscht", "lamp"], [PinFields("a"), PinFields("b")]
    )
    assert {name: rows.tolist() for name, rows in slice_rows(spoken, "lang").items()} == {"de": [0], UNKNOWN: [1]}


def test_bands_come_in_their_order_and_take_what_they_say():
    assert [band(value, POPULARITY) for value in (0, 1, 9, 10, 5000)] == [
        "never shown", "1-9 impressions", "1-9 impressions", "10-99 impressions", "1000 and more"
    ]  # fmt: skip
    assert [band(value, AGES) for value in (0, 7, 10_000)] == ["under 1 week", "1-4 weeks", "over 2 years"]
    assert {band(value, AGES) for value in (None, float("nan"), -1)} == {UNKNOWN}
    ages = ["over 2 years", "my own", "under 1 week", UNKNOWN, "my own"]
    made = PairSet.from_rows("m", ["q"] * 5, [PinFields(str(row)) for row in range(5)])
    assert list(slice_rows(replace(made, slices={"age": ages}), "age")) == [
        "under 1 week", "over 2 years", "my own", UNKNOWN
    ]  # fmt: skip


WHEN = datetime(2026, 5, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({"lang": ["pt-BR", None, "x"]}, {"lang": ["pt", UNKNOWN, UNKNOWN]}),
        (
            {"Popularity": ["12", "head", None], "age_days": ["3", "", "800"]},
            {
                "popularity": ["10-99 impressions", "head", UNKNOWN],
                "age": ["under 1 week", UNKNOWN, "over 2 years"],
            },
        ),
        (
            {
                "created_at": [WHEN, WHEN.replace(tzinfo=None), None],
                "event_timestamp": [WHEN + timedelta(days=30), WHEN, WHEN],
            },
            {"age": ["1-3 months", "under 1 week", UNKNOWN]},
        ),
        ({"created_at": [WHEN] * 3}, {}),
    ],
)
def test_a_file_tells_the_slices_of_its_pairs(tmp_path, columns, expected):
    table = {"query": ["a", "b", "c"], "title": ["x", "y", "z"], **columns}
    if isinstance(table.get("created_at", [None])[0], datetime):  # as text, one of them without a zone
        table |= {name: [w and w.isoformat() for w in table[name]] for name in columns}
    pq.write_table(pa.table(table), tmp_path / "p.parquet")
    assert PairSet.from_file(tmp_path / "p.parquet").slices == expected


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ("age_days\nold", "row 1: age_days 'old' is no number"),
        ("created_at,event_timestamp\n2026,yesterday", "row 1: '2026' is no time"),
        ("probability_1,probability_2,probability_3,probability_4,probability_5\n1,1,0,0,0", "row 1: probability_1 to"),
        ("probability_1,probability_2,probability_3,probability_4,probability_5\n1,,0,0,0", "row 1: probability_1 to"),
    ],
)
def test_columns_that_say_nothing_are_refused_by_row(tmp_path, columns, message):
    names, cells = columns.split("\n")
    (tmp_path / "p.csv").write_text(f"query,title,{names}\na,b,{cells}\n")
    with pytest.raises(PinfeatherError, match=message):
        PairSet.from_file(tmp_path / "p.csv")


def test_a_file_may_carry_a_teachers_labels(tmp_path):
    columns = {f"probability_{level}": [0.2, float(level == 5)] for level in range(1, 6)}
    pq.write_table(pa.table({"query": ["a", "b"], "title": ["x", "y"], **columns}), tmp_path / "p.parquet")
    pairs = PairSet.from_file(tmp_path / "p.parquet")
    np.testing.assert_allclose(pairs.teacher, [[0.2] * 5, [0, 0, 0, 0, 1]])
    assert pairs.levels is None
    four = {name: values for name, values in columns.items() if name != "probability_3"}
    pq.write_table(pa.table({"query": ["a", "b"], "title": ["x", "y"], **four}), tmp_path / "four.parquet")
    assert PairSet.from_file(tmp_path / "four.parquet").teacher is None


def test_contradicting_rows_are_counted_and_each_stays():
    queries = ["Red lamp", "red  lamp", "red lamp", "sofa", "sofa", "chair"]
    fields = [PinFields("a"), PinFields("a"), PinFields("b"), PinFields("a"), PinFields("a"), PinFields("a")]
    pairs = PairSet.from_rows("twice", queries, fields, [1, 5, 5, 3, 3, 2])
    assert contradictions(pairs) == 2  # the same query and text, 1 and 5; equal levels are no contradiction
    row = judge(pairs, [Said("student", np.full((6, 5), 0.2))], samples=2)[0]
    assert row["pairs"] == 6
    assert row["accuracy"] == pytest.approx(1 / 6)


def test_trec_files_give_ir_measures_our_figures(pairs, answers, tmp_path):
    import ir_measures

    files = write_trec(pairs, answers, tmp_path / "new" / "trec")
    assert sorted(path.name for path in files) == [
        "pins.tsv", "qrels.txt", "queries.tsv", "run.bm25.txt", "run.student.txt"
    ]  # fmt: skip
    assert sorted(path.name for path in (tmp_path / "new" / "trec").iterdir()) == sorted(path.name for path in files)
    folder = tmp_path / "new" / "trec"
    ndcg, precision = (ir_measures.parse_measure(name) for name in (MEASURE, "P(rel=4)@8"))
    qrels = list(ir_measures.read_trec_qrels(str(folder / "qrels.txt")))
    for row in judge(pairs, answers, samples=2):
        run = list(ir_measures.read_trec_run(str(folder / f"run.{row['scorer']}.txt")))
        found = ir_measures.calc_aggregate([ndcg, precision], qrels, run)
        assert found[ndcg] == pytest.approx(row["ndcg@20"], abs=1e-9)
        assert found[precision] == pytest.approx(row["precision@8"], abs=1e-9)
    queries = dict(line.split("\t") for line in (folder / "queries.tsv").read_text().splitlines())
    assert set(queries.values()) == {f"query {number}" for number in range(12)}
    assert {one.query_id for one in qrels} == set(queries)
    pins = {line.split("\t")[0]: line.split("\t")[1:] for line in (folder / "pins.tsv").read_text().splitlines()}
    assert pins[qrels[3].doc_id] == ["pin 3", "words"]
    first = (folder / "run.student.txt").read_text().splitlines()[0].split(" ")
    assert (first[1], first[3], first[5]) == ("Q0", "1", "student")


texts = st.text(st.sampled_from("ab \t\n\u2028é"), max_size=4)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(texts, texts, st.integers(1, 5)), min_size=1, max_size=12), st.booleans())
def test_trec_ids_are_stable_free_of_spaces_and_unlike_within_a_query(tmp_path_factory, rows, named):
    folder = tmp_path_factory.mktemp("trec")
    pairs = PairSet.from_rows(
        "odd", [row[0] for row in rows], [PinFields(row[1]) for row in rows], [r[2] for r in rows]
    )
    if named:
        pairs = replace(pairs, pin_ids=tuple(f"pin {number}\t%" for number in range(len(pairs.pins))))
    answer = Said("student", None, np.arange(float(len(rows))))
    write_trec(pairs, [answer], folder)
    qrels = [line.split(" ") for line in (folder / "qrels.txt").read_text().split("\n")[:-1]]
    assert [len(row) for row in qrels] == [4] * len(rows)
    assert [int(row[3]) for row in qrels] == [row[2] for row in rows]
    assert len({(row[0], row[2]) for row in qrels}) == len(rows)
    run = [line.split(" ") for line in (folder / "run.student.txt").read_text().split("\n")[:-1]]
    assert [len(row) for row in run] == [6] * len(rows)
    assert {(row[0], row[2]) for row in run} == {(row[0], row[2]) for row in qrels}
    for name in ("pins.tsv", "queries.tsv"):
        lines = (folder / name).read_text().split("\n")[:-1]
        assert {line.split("\t")[0] for line in lines} == {row[2 if name == "pins.tsv" else 0] for row in qrels}
    last = PairSet.from_rows("odd", [rows[-1][0]], [PinFields(rows[-1][1])], [1])
    if not named:  # the same pair alone has the same ids
        write_trec(last, [Said("student", None, np.zeros(1))], folder)
        alone = (folder / "qrels.txt").read_text().split(" ")
        assert [alone[0], alone[2]] == [qrels[-1][0], qrels[-1][2].split(".")[0]]


def test_unjudged_pairs_have_a_run_but_no_qrels_and_a_bad_folder_is_named(pairs, answers, tmp_path):
    files = write_trec(replace(pairs, levels=None), answers[:1], tmp_path / "t")
    assert sorted(path.name for path in files) == ["pins.tsv", "queries.tsv", "run.bm25.txt"]
    (tmp_path / "file").write_text("")
    with pytest.raises(PinfeatherError, match="name a folder that can be written"):
        write_trec(pairs, answers, tmp_path / "file" / "t")


def test_the_command_knows_the_slicings():
    from pinfeather.commands.evaluate import evaluate_command
    from pinfeather.evaluation_tables import _BY

    by = next(option for option in evaluate_command.params if option.name == "by")
    assert tuple(by.type.choices) == tuple(_BY) == SLICINGS
