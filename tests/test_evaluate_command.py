"""``pinfeather evaluate`` as a user runs it: slices, baseline, plots, TREC, and a teacher beside the student."""

import json
import shutil
import sys
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from client_catalogue import WHEN, WordEncoder
from tower_models import tiny_base, tiny_tower

from embedders.bundle import StudentBundle
from embedders.cross_model import CrossSettings
from embedders.encoder import load_encoder
from embedders.evaluation.evaluate import measure
from embedders.evaluation.pairs import PairSet
from embedders.student_head import HeadTrainer
from embedders.teacher import Teacher
from embedders.teacher_training import TeacherTraining, train_teacher
from embedders.training import fit_statistics, pair_features, score_pairs
from feature_repo.pin_text import DEFAULT_TEMPLATE, PinFields
from feature_repo.validation import validate
from pinfeather.judged import judged_pairs

pytest_plugins = ("client_repo",)

GOOD = {
    "velvet sofa": "sofa",
    "fresh pasta": "pasta",
    "fern pot": "fern",
    "sofa": "sofa",
    "pasta": "pasta",
    "a": "fern",
}


@pytest.fixture
def judged(client_shop):
    """The shop with judgments of six queries, one of them of pins that are gone."""
    rows = [
        {"query": query, "pin_id": f"{topic}{number}", "level": 5 if topic == good else 1, "lang": "en"}
        for query, good in GOOD.items()
        for topic in ("sofa", "pasta", "fern")
        for number in range(5)
    ]
    rows += [{"query": "lost", "pin_id": f"gone{number}", "level": 3, "lang": "en"} for number in range(2)]
    rows += [{"query": "Sofa ", "pin_id": "sofa0", "level": 4, "lang": "de"}]
    (client_shop.raw / "judgments").mkdir()
    table = pa.Table.from_pylist([{**row, "event_timestamp": WHEN.replace(month=8)} for row in rows])
    pq.write_table(table, client_shop.raw / "judgments" / "part.parquet")
    validate(client_shop)
    return client_shop


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    """The folder of a tiny teacher."""
    folder = tmp_path_factory.mktemp("teacher")
    queries = [f"query {number % 12}" for number in range(48)]
    pairs = PairSet.from_rows("small", queries, [PinFields(f"pin {n % 7}") for n in range(48)], np.arange(48) % 5 + 1)
    settings = CrossSettings(base=str(tiny_base(folder / "base")), max_length=32)
    training = TeacherTraining(epochs=1, prior=None, held_back=0.3, evaluations=1)
    train_teacher(pairs, folder / "tiny", settings=settings, training=training, device="cpu", precision="fp32")
    return folder / "tiny"


@pytest.fixture
def held_out(tmp_path):
    """A file of 60 judged pairs of 6 queries; the last repeats one with another level, and some pins have no text."""
    titles = ["velvet sofa", "oak table", "fresh pasta", "", "sofa bed"]
    rows = [{"query": f"velvet sofa {n % 6}", "title": titles[n % 5], "level": n % 5 + 1} for n in range(59)]
    rows.append({**rows[0], "level": 5})
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "held_out.parquet")
    return tmp_path / "held_out.parquet"


def test_a_repository_is_judged_by_slices_against_a_baseline_with_pictures_and_files(judged, pinfeather, tmp_path):
    words = [
        "evaluate",
        "--repo",
        judged.root,
        "--scorer",
        "student",
        "--folds",
        3,
        "--by",
        "lang",
        "--by",
        "popularity",
    ]
    words += [
        "--by",
        "age",
        "--by",
        "missing",
        "--against",
        "bm25",
        "--trec",
        tmp_path / "t",
        "--plots",
        tmp_path / "p",
    ]
    code, out, err = pinfeather(*words, "--json")
    assert code == 0, err
    bm25, student = json.loads(out)
    assert [one["scorer"] for one in (bm25, student)] == ["bm25", "student"]  # the baseline is judged as well
    assert student["pairs"] == 90
    assert student["against"]["scorer"] == "bm25"
    slices = {name: {key: each["pairs"] for key, each in found.items()} for name, found in student["slices"].items()}
    assert slices["lang"] == {"en": 90}  # most judgments of "sofa" say so
    assert slices["age"] == {"3-12 months": 90}
    assert slices["popularity"] == {"never shown": 84, "1-9 impressions": 6}
    assert sum(slices["missing"].values()) == 90
    assert student["slices"]["lang"]["en"]["ndcg@20"] == student["ndcg@20"]
    assert student["slices"]["popularity"]["1-9 impressions"]["ndcg@20"] is None
    assert "Left out: 2 judgments of pins not in the catalogue; 1 queries have no other." in err
    pictures = sorted((tmp_path / "p").iterdir())
    assert [path.name for path in pictures] == ["confusion.png", "differences.png", "reliability.png"]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in pictures)
    qrels = [line.split() for line in (tmp_path / "t" / "qrels.txt").read_text().splitlines()]
    assert len(qrels) == 90
    assert {row[2] for row in qrels} == {
        f"{topic}{number}" for topic in ("sofa", "pasta", "fern") for number in range(5)
    }
    assert judged_pairs(judged).pin_ids == tuple(sorted({row[2] for row in qrels}))


def test_the_table_shows_what_was_asked_for(judged, pinfeather):
    words = ["evaluate", "--repo", judged.root, "--scorer", "zero-shot", "--folds", 3, "--by", "popularity"]
    code, out, err = pinfeather(*words, "--against", "bm25")
    assert code == 0, err
    for text in (
        "calibration_error",
        "kappa",
        "less bm25",
        "by impressions of the pin",
        "never shown",
        "95 % intervals",
    ):
        assert text in out
    assert max(map(len, out.splitlines())) <= 110


def test_the_teacher_scores_and_judges_a_file_without_a_repository(
    teacher, held_out, pinfeather, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    words = ["evaluate", "--pairs", held_out, "--scorer", "teacher", "--bundle", teacher, "--device", "cpu"]
    code, out, err = pinfeather(*words, "--scores", tmp_path / "s.parquet", "--trec", tmp_path / "t", "--json")
    assert code == 0, err
    row = json.loads(out)
    assert (row["scorer"], row["pairs"], row["contradicting"]) == ("teacher", 60, 3)
    assert "3 rows come again with the same query and text and another level" in err
    scores = pq.read_table(tmp_path / "s.parquet")
    loaded, pairs = Teacher.load(teacher, "cpu"), PairSet.from_file(held_out)
    texts = [loaded.template.render(pairs.pins[pin]).text for pin in pairs.pin_of]
    expected = loaded.probabilities(pairs.queries, texts)
    found = np.column_stack([scores[f"probability_{level}"].to_numpy() for level in range(1, 6)])
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert (tmp_path / "t" / "run.teacher.txt").is_file()
    monkeypatch.setenv("PINFEATHER_EVALUATE_TEACHER", str(teacher))
    again = pinfeather("evaluate", "--pairs", held_out, "--scorer", "teacher", "--device", "cpu", "--json")
    assert json.loads(again[1]) == row


def test_a_file_of_teachers_labels_is_compared_never_judged(teacher, held_out, pinfeather, tmp_path):
    words = ["evaluate", "--scorer", "teacher", "--teacher", teacher, "--device", "cpu", "--json", "--pairs"]
    assert pinfeather(*words, held_out, "--scores", tmp_path / "labels.parquet")[0] == 0
    code, out, err = pinfeather(*words, tmp_path / "labels.parquet")
    assert code == 0, err
    row = json.loads(out)
    one = pytest.approx(1)
    assert row["agreement"] == {"accuracy": 1, "kl": pytest.approx(0, abs=1e-6), "expected_level_correlation": one}
    assert row["accuracy"] is row["ndcg@20"] is row["kappa_ci"] is None
    assert "contradicting" not in row
    assert "Only people's labels judge a model" in err
    code, _, err = pinfeather(*words, tmp_path / "labels.parquet", "--plots", tmp_path / "p")
    assert (code, "add a column `level`" in err) == (1, True)


def test_teachers_and_students_of_a_repository_are_named_apart(judged, teacher, held_out, pinfeather, tmp_path):
    shutil.copytree(teacher, judged.teachers / "tiny")
    pairs = replace(judged_pairs(judged), slices={})
    encoder, statistics = WordEncoder(), fit_statistics(pairs)
    features = pair_features(pairs, encoder, DEFAULT_TEMPLATE, statistics)
    head = HeadTrainer(pairs, features, statistics).fit()
    made = StudentBundle.make("made", head, statistics, DEFAULT_TEMPLATE, encoder.fingerprint, ("pins",), {}, {})
    made.save(judged.bundles / "made")
    words = ["evaluate", "--repo", judged.root, "--pairs", held_out, "--json"]
    code, out, err = pinfeather(*words, "--scorer", "student", "--scorer", "teacher", "--bundle", "made")
    assert code == 0, err
    assert [row["scorer"] for row in json.loads(out)] == ["student", "teacher"]  # the only teacher
    written = tmp_path / "rows.csv"
    code, out, err = pinfeather(*words, "--bundle", "made", "--against", "bm25", "--scores", written)
    assert (code, [row["scorer"] for row in json.loads(out)]) == (0, ["bm25", "student"]), err
    held, encoder = PairSet.from_file(held_out), load_encoder("packaged", device="cpu")
    of_student = score_pairs(held, StudentBundle.load(judged.bundles / "made"), encoder)  # not those of the baseline
    rows = [line.split(",") for line in written.read_text().splitlines()[1:]]
    np.testing.assert_allclose([[float(cell) for cell in row[2:7]] for row in rows], of_student, atol=1e-3)
    (judged.teachers / "half").mkdir()  # one that was not finished is none
    for options, message in (
        (
            ["--scorer", "teacher", "--bundle", "made"],
            "made is a student, no teacher: ask for it with --scorer student",
        ),
        (["--scorer", "teacher", "--bundle", "half"], "no teacher half"),
        (["--scorer", "teacher", "--bundle", "absent"], "Name one of tiny or a folder"),
        (["--bundle", teacher], "is a teacher, no student: ask for it with --scorer teacher"),
        (["--scorer", "bm25", "--bundle", "made"], "add --scorer student or --scorer teacher"),
        (["--scorer", "student", "--teacher", "tiny"], "add --scorer teacher"),
        (["--scorer", "teacher", "--teacher", "tiny", "--bundle", "tiny"], "both name the teacher"),
    ):
        code, out, err = pinfeather(*words, *options)
        assert (code in (1, 2), out, message in err) == (True, "", True), err
    shutil.copytree(teacher, judged.teachers / "second")
    code, _, err = pinfeather(*words, "--scorer", "teacher")
    assert (code, "There are 2 teachers: name one of second, tiny" in err) == (2, True)


def test_a_student_with_towers_of_its_own_reads_their_vectors(held_out, pinfeather, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    base, pairs = tiny_base(tmp_path / "base"), PairSet.from_file(held_out)
    towers = {role: tiny_tower(tmp_path / role, base, seed) for seed, role in enumerate(("query", "pin"))}
    query, pin = (load_encoder(towers[role], device="cpu") for role in ("query", "pin"))
    statistics = fit_statistics(pairs)
    features = pair_features(pairs, query, DEFAULT_TEMPLATE, statistics, pin_encoder=pin)
    head = HeadTrainer(pairs, features, statistics).fit()
    made = StudentBundle.make("own", head, statistics, DEFAULT_TEMPLATE, None, (), {}, {}, towers=towers)
    words = ["evaluate", "--pairs", held_out, "--bundle", made.save(tmp_path / "own"), "--device", "cpu", "--json"]
    code, out, err = pinfeather(*words, "--against", "zero-shot", "--scores", tmp_path / "s.parquet")
    assert code == 0, err
    zero_shot, student = json.loads(out)
    scores = pq.read_table(tmp_path / "s.parquet")
    found = np.column_stack([scores[f"probability_{level}"].to_numpy() for level in range(1, 6)])
    np.testing.assert_allclose(found, head.probabilities(features.matrix), atol=1e-5)
    assert student["against"]["ndcg@20"]["difference"] is not None
    packaged = pair_features(pairs, load_encoder("packaged", device="cpu"), DEFAULT_TEMPLATE, statistics).cosine
    expected = measure(pairs.queries, pairs.levels, scores=packaged, samples=2).point["auroc_4"]
    assert zero_shot["auroc_4"] == pytest.approx(expected)  # the packaged model's, whatever towers the student has


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--scorer", "teacher"], "judge it on others"),
        (["--teacher", "x"], "go with --pairs FILE"),
        (["--pairs", "FILE", "--scorer", "teacher"], "There is no teacher yet"),
        (["--pairs", "FILE", "--by", "popularity"], "add the column `popularity`"),
        (["--pairs", "FILE", "--by", "colour"], "'colour' is not one of"),
        (["--pairs", "FILE", "--against", "nothing"], "'nothing' is not one of"),
        (["--pairs", "FILE", "--scorer", "bm25", "--plots", "p"], "gives probabilities of levels"),
    ],
)
def test_what_cannot_be_asked_is_said(client_shop, held_out, pinfeather, tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    words = [held_out if word == "FILE" else word for word in words]
    code, out, err = pinfeather("evaluate", "--repo", client_shop.root, *words)
    assert code in (1, 2), out
    assert message in err
    assert not (tmp_path / "p").exists()


def test_plots_without_matplotlib_name_the_extra_before_any_work(client_shop, pinfeather, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    code, _, err = pinfeather("evaluate", "--repo", client_shop.root, "--plots", "x")
    assert (code, "pip install 'pinfeather[plots]'" in err) == (1, True)


def test_differences_from_a_baseline_are_drawn(tmp_path):
    from pinfeather.plots_evaluation import draw_differences

    worse = {"difference": -0.02, "ci": [-0.03, -0.01], "significant": True}
    alike = {"difference": 0.001, "ci": [-0.01, 0.012], "significant": False}
    unknown = {"difference": None, "ci": None, "significant": None}

    def rows(**against):
        found = [{"scorer": name, "against": {"scorer": "bm25", "ndcg@20": each}} for name, each in against.items()]
        return [{"scorer": "bm25"}, *found]

    drawn = [
        draw_differences(found, tmp_path / str(number), "a set")
        for number, found in enumerate(
            (
                rows(student=worse, teacher=alike),
                rows(student=worse, teacher=alike, zero=unknown),
                rows(student=worse, teacher=alike | {"significant": True}),
            )
        )
    ]
    first, with_unknown, significant = (path.read_bytes() for path in drawn)
    assert first == with_unknown
    assert first != significant
    assert draw_differences(rows(student=unknown), tmp_path / "none", "a set") is None
    assert draw_differences(rows(), tmp_path / "none", "a set") is None
    assert not (tmp_path / "none").exists()


def test_only_missing_judgments_leave_a_baseline_without_levels(judged, held_out, pinfeather):
    """Whatever else keeps the judgments from being read is told, and not taken for there being none."""
    words = ["evaluate", "--repo", judged.root, "--pairs", held_out, "--scorer", "bm25", "--json"]
    code, out, err = pinfeather(*words)
    assert code == 0, err
    assert json.loads(out)["accuracy"] is not None
    (judged.views / "pin_relevance.parquet").unlink()
    code, out, err = pinfeather(*words)
    assert (code, out) == (1, "")
    assert "pin_relevance.parquet does not exist yet: run `pinfeather aggregate" in err


def test_damaged_judgments_are_one_message(judged, held_out, pinfeather):
    file = judged.valid / "judgments.parquet"
    file.write_bytes(file.read_bytes()[:200])
    for words in (["--scorer", "zero-shot"], ["--pairs", held_out, "--scorer", "bm25"]):
        code, out, err = pinfeather("evaluate", "--repo", judged.root, *words)
        assert (code, out) == (1, "")
        assert "Traceback" not in err
        assert "judgments.parquet" in err
        assert "replace the file that is named" in err
