"""The relevance tables: their rows, and the page that they are rendered into; on sets made here."""

import argparse
import json
from pathlib import Path

import numpy as np
import pytest
from relevance_shops import Oracle
from tower_models import tiny_base

from benchmarks.relevance import (
    amounts,
    backbones,
    data,
    distillation,
    features,
    folds,
    languages,
    languages_data,
    render,
    sources,
    train,
)
from benchmarks.relevance.plots import draw
from benchmarks.relevance.scorers import Answer, judged_rows, measured_answers, share_kept
from embedders.bundle import StudentBundle
from embedders.cross_model import CrossSettings
from embedders.evaluation.pairs import PairSet
from embedders.relevance import feature_names
from embedders.teacher import Teacher
from embedders.teacher_training import TeacherTraining
from embedders.tower_training import TowerTraining
from feature_repo.errors import PinfeatherError
from feature_repo.pin_text import PinFields

pytest_plugins = ("relevance_shops",)


def test_the_share_that_a_student_keeps():
    queries, levels = [f"q{number // 10}" for number in range(200)], np.arange(200) % 5 + 1
    pairs = PairSet.from_rows("s", queries, [PinFields(title=str(row)) for row in range(200)], levels)
    random = np.random.default_rng(0)
    base, noise = random.normal(size=200), random.normal(size=200)
    even = np.full((200, 5), 0.2)
    answers = [
        Answer("zero-shot", even, base),
        Answer("teacher", even, levels + 0.3 * noise),
        Answer("student", even, levels + 1.5 * noise),
        Answer("copy", even, levels + 0.3 * noise),
    ]
    measured = measured_answers(pairs, answers, samples=50)
    points = {name: one.point["auroc_4"] for name, one in measured.items()}
    kept = share_kept(measured, "student", "teacher", "zero-shot")["auroc_4"]
    gain = points["teacher"] - points["zero-shot"]
    assert kept["share"] == pytest.approx((points["student"] - points["zero-shot"]) / gain)
    assert kept["ci"][0] < kept["share"] < kept["ci"][1] < 1
    assert share_kept(measured, "copy", "teacher", "zero-shot")["ndcg@20"] == {"share": 1.0, "ci": [1.0, 1.0]}
    assert share_kept(measured, "student", "zero-shot", "teacher")["auroc_4"]["share"] is None
    row = judged_rows(pairs, answers, ("zero-shot", "absent"), samples=50)[1]
    assert set(row["minus"]) == {"zero-shot"}
    assert row["minus"]["zero-shot"]["auroc_4"]["difference"] == pytest.approx(gain)


def test_baselines_and_students_are_judged_on_both_sets(splits, small_encoder, none):
    found = backbones.table(splits, none, small_encoder, samples=30)
    assert [(row["dataset"], row["scorer"]) for row in found["rows"]] == [
        (name, scorer) for name in data.SETS for scorer in ("BM25", "zero-shot", "student v1")
    ]
    assert [row["pairs"] for row in found["rows"][::3]] == [len(judge) for _, judge in splits]
    assert found["kept"] == []
    assert all(row["auroc_4"] > 0.6 for row in found["rows"])


def test_folds_are_judged_together_in_the_order_of_their_answers(splits):
    sides = [judge.subset(np.arange(len(judge)) % 2 == half) for _, judge in splits[:1] for half in (0, 1)]
    even = [np.full((len(side), 5), 0.2) for side in sides]
    right = [Answer("right", flat, side.levels.astype(float)) for flat, side in zip(even, sides, strict=True)]
    levels = [Answer("levels", np.eye(5)[side.levels - 1]) for side in sides]
    given = [(side, answers) for side, *answers in zip(sides, right, levels, strict=True)]
    judge, answers = folds.pooled("both", given)
    assert len(judge) == len(splits[0][1])
    measured = measured_answers(judge, answers, samples=5)
    assert {name: each.point["auroc_4"] for name, each in measured.items()} == {"right": 1.0, "levels": 1.0}
    assert measured["levels"].point["accuracy"] == 1.0


def test_every_feature_is_in_a_group_and_a_group_left_out_is_gone(splits, small_encoder):
    names = feature_names(16)
    found = features.groups(names)
    known = {names[column] for columns in found.values() for column in columns}
    assert set(names) - known == {"click_rate", "save_rate", "no_engagement"}
    rows = features.table(splits[:1], small_encoder, pairs=150, samples=20)["rows"]
    by_name = {row["scorer"]: row for row in rows}
    assert {f"without {group}" for group in found} <= set(by_name)
    assert by_name["all features"]["minus"] == {}
    assert by_name["all features"]["train_pairs"] <= 150
    assert by_name["without title"]["minus"]["all features"]["auroc_4"]["difference"] is not None


def test_the_curve_has_both_kinds_of_labels_at_every_amount_that_there_is(splits, small_encoder, tmp_path, monkeypatch):
    monkeypatch.setattr("benchmarks.relevance.labels.WORK", tmp_path)
    teacher = Oracle()
    found = distillation.table(splits, teacher, 40, small_encoder, factors=(1, 3, 100), seeds=(0, 1), samples=20)
    assert found["pool"] == sum(len(train) for train, _ in splits)
    shop = [row for row in found["rows"] if row["dataset"] == "crowdflower"]
    assert [(row["scorer"], row["train_pairs"]) for row in shop] == [
        ("human 1x", 40),
        ("human 3x", 120),
        ("distilled 1x", 40),
        ("distilled 3x", 120),
        ("BM25", None),
        ("zero-shot", None),
        ("teacher", None),
    ]
    assert shop[-1]["auroc_4"] > 0.95
    assert "distilled 1x" in shop[3]["minus"]
    small = distillation.small_human_set([train for train, _ in splits], 40)
    assert 0 < len(small) <= 40
    assert {target.argmax() for target in small.targets} <= {0, 2, 4}
    with pytest.raises(PinfeatherError, match="give a smaller --x"):
        distillation.table(splits, teacher, 10_000, small_encoder)


def test_candidates_of_a_caption_are_its_own_image_and_others(captions, small_encoder):
    images = languages_data.load(100)
    train, judge = images["multi30k"]
    assert len(train) + len(judge) == 39  # one image has no Czech caption
    assert not {image.name for image in train} & {image.name for image in judge}
    pairs = languages_data.pairs_of("multi30k", train, small_encoder)
    assert list(pairs) == ["en", "de", "fr", "cs"]
    for language, each in pairs.items():
        assert np.array_equal(each.levels, pairs["en"].levels)
        assert [each.pins[pin] for pin in each.pin_of] == [pairs["en"].pins[pin] for pin in pairs["en"].pin_of]
        assert each.queries[0] == train[0].queries[language]
    english = pairs["en"]
    for query, pin, level in zip(english.queries, english.pin_of, english.levels, strict=True):
        same = query.split()[4] == english.pins[pin].description.split()[4]
        assert (level == 5) == same
        assert english.pins[pin].description != query
    assert np.bincount(english.levels)[[1, 5]].tolist() == [14 * len(train), 4 * len(train)]


def test_languages_are_told_apart_by_what_the_labels_have_seen(captions, small_encoder):
    found = languages.table(languages_data.load(12), None, small_encoder, samples=20)["rows"]
    assert [(row["set"], row["language"], row["seen"]) for row in found[::4]] == [
        ("multi30k", "en", True),
        ("multi30k", "de", False),
        ("multi30k", "fr", False),
        ("multi30k", "cs", False),
        ("flickr8k", "en", True),
        ("flickr8k", "zh", False),
    ]
    assert [row["scorer"] for row in found[:4]] == ["BM25", "zero-shot", languages.ENGLISH, languages.HANDED]


def test_texts_of_the_shop_are_shown_alone_and_together(splits, small_encoder):
    rows = sources.human_table(*splits[0], None, small_encoder, samples=20)
    assert [row["scorer"] for row in rows][::3] == ["BM25, title", "BM25, description", "BM25, title and description"]
    assert "student v1, title and description" in rows[2]["minus"]
    assert "an oak vase" not in small_encoder.encoded


@pytest.mark.slow
def test_sources_are_added_one_after_another_on_a_generated_catalogue():
    rows = sources.generated_table(100)
    assert [row["added"] for row in rows][::3] == list(sources.ORDER)
    assert rows[0]["without"] == ["title", "description", "link", "boards", "queries", "engagement"]
    assert rows[-1]["without"] == []


@pytest.fixture
def reports(splits, captions, small_encoder, none, tmp_path, monkeypatch):
    """JSON of four tables, as the commands write it, with a generated part for the fifth."""
    monkeypatch.setattr("benchmarks.relevance.labels.WORK", tmp_path)
    shown = sources.human_table(*splits[0], None, small_encoder, samples=20)
    steps = [{**row, "added": added, "sources": 1} for added in ("caption", "title") for row in shown[:3]]
    stage = {"seconds": 90, "processor_seconds": 150, "pairs": 1200}
    few = distillation.table(splits, Oracle(), 80, small_encoder, (1,), (0,), samples=20)
    contents = {
        "training": {"teacher": stage, "labels": stage, "student": stage},
        "backbones": (judged := backbones.table(splits, none, small_encoder, samples=20)),
        "folds": {**judged, "folds": [{**row, "fold": fold} for row in judged["rows"] for fold in (0, 1)]},
        "sources": {"rows": shown, "generated": {"pins": 60, "rows": steps}},
        "distillation": distillation.table(splits, Oracle(), 40, small_encoder, (1, 3), (0,), samples=20),
        "distillation_small": few,
        "amounts": {**few, "rows": [row for row in few["rows"] if not row["scorer"].startswith("human")]},
        "languages": languages.table(languages_data.load(12), None, small_encoder, samples=20),
        "features": features.table(splits, small_encoder, samples=20),
    }
    head = {
        "command": "python -m x",
        "date": "2026-11-21T22:00:00",
        "commit": "0123456789",
        "cpu": "c",
        "processors": 2,
    }
    for name, content in contents.items():
        (tmp_path / f"relevance_{name}.json").write_text(json.dumps({**head, "size": "cpu", **content}))
    return tmp_path


EMPTY = "Words.\n" + "".join(f"<!-- relevance:{name} -->\n<!-- /relevance:{name} -->\n" for name in render.TABLES)


@pytest.mark.slow
def test_the_page_and_its_plots_are_made_of_the_reports(reports):
    page = render.render(EMPTY, reports)
    assert render.render(page, reports) == page
    assert page.startswith("Words.\n")
    row = json.loads((reports / "relevance_backbones.json").read_text())["rows"][0]
    low, high = row["auroc_4_ci"]
    assert f"{row['auroc_4']:.3f} [{low:.3f}, {high:.3f}]" in page
    assert "not run: no weights here" in page
    assert "| all of these | 4.5 | 7.5 |" in page
    assert "nan" not in page.lower().replace("distill", "")
    for name in render.PICTURES:
        path = draw(name, json.loads((reports / f"relevance_{name}.json").read_text()), reports / "plots")
        assert path.read_bytes()[:4] == b"\x89PNG"


def test_a_table_that_was_not_run_says_so_and_a_lost_marker_is_told(tmp_path):
    assert "Not run yet: `python -m benchmarks.relevance.features`." in render.render(EMPTY, tmp_path)
    with pytest.raises(ValueError, match="relevance:languages"):
        render.render(EMPTY.replace("<!-- relevance:languages -->", ""), tmp_path)


def test_only_a_difference_beyond_chance_is_bold():
    each = {"difference": 0.1, "ci": [0.05, 0.2], "p": 0.01, "significant": True}
    row = {"minus": {"BM25": {"auroc_4": each, "ndcg@20": {**each, "significant": False}}}}
    assert render.difference(row, "BM25", "auroc_4") == "**+0.100 [+0.050, +0.200]**"
    assert render.difference(row, "BM25", "ndcg@20") == "+0.100 [+0.050, +0.200]"
    assert render.difference(row, "zero-shot", "auroc_4") == ""


def test_the_page_of_the_repository_is_as_of_its_reports():
    page = Path(render.PAGE).read_text()
    assert render.render(page) == page
    assert page.index("Not comparable") < page.index("## (a)")


@pytest.mark.slow
def test_what_is_trained_gets_rows_and_is_not_trained_again(splits, small_encoder, tmp_path, monkeypatch):
    for module in ("labels", "vectors"):
        monkeypatch.setattr(f"benchmarks.relevance.{module}.WORK", tmp_path)
    base = str(tiny_base(tmp_path / "base"))
    folders = tuple(tmp_path / name for name in ("teacher", "student", "whole"))
    recipe = (
        CrossSettings(base=base, max_length=48),
        TeacherTraining(epochs=1, prior=None, held_back=0.2),
        TowerTraining(base=base, dimension=16, nested=(16, 8), rank=2, epochs=1, max_length=48),
        40,
        small_encoder,
    )
    trains = [side for side, _ in splits]
    took = train.trained(trains, *folders, *recipe)
    assert list(took) == ["teacher", "labels", "student", "whole"]
    assert train.trained(trains, *folders, *recipe) == took
    options = argparse.Namespace(teacher=folders[0], student=folders[1], whole=folders[2])
    pairs = train.distilled(trains, Teacher.load(folders[0]), 40, small_encoder)
    given = (splits, Teacher.load(folders[0]), pairs, folders[1], recipe[2], tmp_path, 50, {1: 2}, small_encoder)
    grown = amounts.table(*given, samples=20)["rows"]
    assert [row["scorer"] for row in grown[:2]] == ["distilled 1x", f"distilled {round(len(pairs) / 50)}x"]
    assert 0 < grown[0]["train_pairs"] <= 50 < grown[1]["train_pairs"] == len(pairs)
    assert "distilled 1x" in grown[1]["minus"]
    assert StudentBundle.load(tmp_path / "student-50").manifest.training["towers"]["epochs"] == 2
    found = backbones.table(splits, options, small_encoder, samples=20)
    scorers = [row["scorer"] for row in found["rows"] if row["dataset"] == "homedepot"]
    assert scorers == ["BM25", "zero-shot", backbones.V1, backbones.TAUGHT, backbones.V2, backbones.WHOLE, "teacher"]
    assert [one["student"] for one in found["kept"]] == 2 * scorers[2:-1]
    sides = {fold: [data.split(name, fold) for name in data.SETS] for fold in (0, 1)}
    pooled = folds.table(sides, dict.fromkeys(sides, folders[:2]), small_encoder, samples=20)
    one = [row for row in pooled["rows"] if row["dataset"] == "homedepot"]
    assert [row["scorer"] for row in one] == ["BM25", "zero-shot", folds.V1, folds.V2, "teacher"]
    assert {row["pairs"] for row in one} == {sum(len(split[1][1]) for split in sides.values())}
    assert [row["fold"] for row in pooled["folds"]] == 2 * (5 * [0] + 5 * [1])
    assert [(each["dataset"], each["student"]) for each in pooled["kept"]] == [
        (name, student) for name in data.SETS for student in (folds.V1, folds.V2)
    ]
    other = (tmp_path / "fold-1" / "teacher", tmp_path / "fold-1" / "student")
    took = train.trained([side for side, _ in sides[1]], *other, None, *recipe, fold=1)
    assert list(took) == ["teacher", "labels", "student"]
