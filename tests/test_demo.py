"""The demo as a user runs it, and what a user does next with the repository that it kept."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

CHECKOUT = Path(__file__).resolve().parents[1]
FIGURES = ("ndcg@20", "precision@8", "accuracy", "within_one", "auroc_3", "auroc_4", "auroc_5")
KEYS = {"dataset", "scorer", "pairs", "queries", *FIGURES, *(f"{name}_ci" for name in FIGURES)}


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """(folder, report) of one demo."""
    folder = tmp_path_factory.mktemp("demo") / "kept"
    done = subprocess.run(
        [sys.executable, "-m", "pinfeather", "demo", "--pins", "150", "--dir", str(folder), "--json"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
        cwd=folder.parent,
    )
    assert done.returncode == 0, done.stderr
    return folder, json.loads(done.stdout)


def test_the_demo_does_what_it_says_and_keeps_what_it_made(demo):
    folder, report = demo
    assert report["synthetic"] is True
    assert report["first"]["encoded_texts"] == report["first"]["texts_to_encode"] > 100
    assert (report["second"]["encoder_calls"], report["second"]["upserted"]) == (0, 0)
    edited = report["edited"]
    assert (edited["changed"], edited["encoded_texts"], edited["gone"], edited["deleted"]) == (7, 7, 3, 3)
    assert report["plan"]["texts_to_encode"] == 7
    faults = ("missing", "extra", "stale", "wrong_space", "corrupted", "ahead")
    assert [report["audit"][name] for name in faults] == [0] * 6
    assert report["evaluate"]["scorer"] == "student"
    assert [one["scorer"] for one in report["baselines"]] == ["bm25", "zero-shot", "pretrained"]
    assert report["evaluate"].keys() >= KEYS
    assert report["seconds"] > 0
    assert report["peak_memory_mb"] > 100
    for kept in ("feature_store.yaml", "data/raw/pins", "data/views/pin_text.parquet"):
        assert (folder / kept).exists(), kept


def test_contributions_sum_to_the_expected_level_minus_its_baseline(demo, pinfeather):
    code, out, _ = pinfeather("search", "balcony", "--repo", demo[0], "--json")
    found = json.loads(out)
    assert (code, found["scorer"], found["degraded"]) == (0, "student", [])
    assert len(found["hits"]) == 10
    for hit in found["hits"]:
        why = hit["explanation"]
        total = sum(why["contributions"].values()) + why["bias"]
        assert total == pytest.approx(hit["expected_level"] - why["baseline"], abs=1e-6)
        assert sum(hit["probabilities"]) == pytest.approx(1)
    expected = [hit["expected_level"] for hit in found["hits"]]
    assert expected == sorted(expected, reverse=True)


def test_scores_of_a_file_come_in_its_order(demo, pinfeather, tmp_path):
    rows = {
        "query": ["balcony", "soup", "balcony", "", "soup"],
        "title": ["small balcony ideas", "lentil soup", "lentil soup", "anything", None],
        "description": [None, "a warm soup", "", "x", None],
        "level": [5, 4, 1, 2, 1],
    }
    pq.write_table(pa.table(rows), tmp_path / "pairs.parquet")
    out_file = tmp_path / "scores.parquet"
    code, out, _ = pinfeather(
        "evaluate", "--repo", demo[0], "--pairs", tmp_path / "pairs.parquet", "--scores", out_file, "--json"
    )
    figures = json.loads(out)
    assert (code, figures["pairs"], figures["scorer"]) == (0, 5, "student")
    assert figures.keys() >= KEYS
    scores = pq.read_table(out_file)
    assert [str(text or "") for text in scores["query"].to_pylist()] == rows["query"]
    assert scores["title"].to_pylist() == rows["title"]
    probabilities = np.column_stack([scores[f"probability_{level}"].to_numpy() for level in range(1, 6)])
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)
    np.testing.assert_allclose(scores["expected_level"].to_numpy(), probabilities @ np.arange(1, 6))
    assert np.isfinite(probabilities).all()
    assert scores["expected_level"][0].as_py() > scores["expected_level"][2].as_py()


def test_a_file_without_levels_is_scored_not_judged(demo, pinfeather, tmp_path):
    (tmp_path / "pairs.csv").write_text("query,title\nsoup,lentil soup\n")
    code, out, err = pinfeather(
        "evaluate", "--repo", demo[0], "--pairs", tmp_path / "pairs.csv", "--scores", tmp_path / "s.csv", "--json"
    )
    assert (code, json.loads(out)["ndcg@20"]) == (0, None)
    assert "no column `level`" in err
    assert len((tmp_path / "s.csv").read_text().splitlines()) == 2


def test_several_scorers_judge_one_file(demo, pinfeather, tmp_path):
    (tmp_path / "pairs.csv").write_text("query,title,level\nsoup,lentil soup,5\nsoup,balcony,1\n")
    words = ["evaluate", "--repo", demo[0], "--pairs", tmp_path / "pairs.csv", "--json"]
    code, out, _ = pinfeather(*words, "--scorer", "bm25", "--scorer", "zero-shot")
    rows = json.loads(out)
    assert (code, [row["scorer"] for row in rows]) == (0, ["bm25", "zero-shot"])
    assert all(row["auroc_4"] == 1.0 for row in rows)
    assert all(0 <= row["accuracy"] <= 1 for row in rows)  # levels calibrated on the repository's judgments


@pytest.mark.slow
def test_what_a_source_is_worth_is_measured_without_it(demo, pinfeather, monkeypatch):
    words = ["evaluate", "--repo", demo[0], "--scorer", "bm25", "--json"]
    with_all = next(one for one in demo[1]["baselines"] if one["scorer"] == "bm25")
    assert with_all["without"] == []
    code, out, err = pinfeather(*words, "--without", "queries", "--without", "boards")
    bare = json.loads(out)
    assert (code, bare["without"]) == (0, ["boards", "queries"]), err
    assert bare.keys() == with_all.keys() - {"student_minus"}
    assert bare["ndcg@20"] != with_all["ndcg@20"]
    monkeypatch.setenv("PINFEATHER_EVALUATE_WITHOUT", "queries boards")
    assert json.loads(pinfeather(*words)[1]) == bare


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--scores", "x.parquet"], "go with --pairs"),
        (["--pairs", "nothing.parquet"], "nothing.parquet"),
        (["--pairs", "PAIRS", "--scores", "x.txt"], "must end in .parquet or .csv"),
        (["--pairs", "PAIRS", "--scores", "x.csv", "--scorer", "bm25", "--scorer", "student"], "give one --scorer"),
        (["--pairs", "PAIRS", "--bundle", "nowhere"], "nowhere"),
    ],
)
def test_evaluate_says_what_is_wrong(demo, pinfeather, tmp_path, words, message):
    (tmp_path / "pairs.csv").write_text("query,title,level\nsoup,lentil soup,5\n")
    words = [str(tmp_path / "pairs.csv") if word == "PAIRS" else word for word in words]
    code, out, err = pinfeather("evaluate", "--repo", demo[0], *words)
    assert code in (1, 2)
    assert out == ""
    assert message in err


def test_a_changed_bundle_is_refused(demo, pinfeather, tmp_path):
    bundle = tmp_path / "bundle"
    shutil.copytree(demo[0] / "data/bundles" / demo[1]["bundle"], bundle)
    head = bytearray((bundle / "head.safetensors").read_bytes())
    head[-1] ^= 1
    (bundle / "head.safetensors").write_bytes(head)
    (tmp_path / "pairs.csv").write_text("query,title\nsoup,lentil soup\n")
    code, _, err = pinfeather(
        "evaluate",
        "--repo",
        demo[0],
        "--pairs",
        tmp_path / "pairs.csv",
        "--bundle",
        bundle,
        "--scores",
        tmp_path / "o.csv",
    )
    assert code == 1
    assert "head.safetensors was changed" in err


def test_a_folder_with_a_repository_is_left_alone(demo, pinfeather):
    before = sorted(path.stat().st_mtime_ns for path in demo[0].rglob("*.parquet"))
    code, out, err = pinfeather("demo", "--dir", demo[0])
    assert (code, out) == (1, "")
    assert "name a new folder" in err
    assert sorted(path.stat().st_mtime_ns for path in demo[0].rglob("*.parquet")) == before


def test_a_second_student_gets_a_name_of_its_own(demo, pinfeather):
    code, out, _ = pinfeather("train", "student", "--repo", demo[0], "--json")
    trained = json.loads(out)
    assert (code, trained["bundle"]) == (0, "student-2")
    assert json.loads((demo[0] / "data/release.json").read_text())["bundle"] == "student-2"
    code, _, err = pinfeather("train", "student", "--repo", demo[0], "--name", "student-2")
    assert code == 2
    assert "another --name" in err
