"""The demo as a user runs it: one command, one report, and the promises it checks itself."""

import json
import os
import subprocess
import sys
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]


def test_the_demo_does_what_it_says_and_keeps_what_it_made(tmp_path):
    folder = tmp_path / "kept"
    done = subprocess.run(
        [sys.executable, "-m", "pinfeather", "demo", "--pins", "150", "--dir", str(folder), "--json"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["synthetic"] is True
    assert report["first"]["encoded_texts"] == report["first"]["texts_to_encode"] > 100
    assert (report["second"]["encoder_calls"], report["second"]["upserted"]) == (0, 0)
    edited = report["edited"]
    assert (edited["changed"], edited["encoded_texts"], edited["gone"], edited["deleted"]) == (7, 7, 3, 3)
    assert report["plan"]["texts_to_encode"] == 7
    assert {name: report["audit"][name] for name in ("missing", "extra", "stale", "wrong_space", "corrupted")} == {
        "missing": 0, "extra": 0, "stale": 0, "wrong_space": 0, "corrupted": 0,
    }  # fmt: skip
    assert report["evaluate"]["scorer"] == "student"
    assert [one["scorer"] for one in report["baselines"]] == ["bm25", "zero-shot"]
    assert report["seconds"] > 0
    assert report["peak_memory_mb"] > 100
    for kept in (
        "feature_store.yaml",
        "data/raw/pins",
        "data/views/pin_text.parquet",
        f"data/bundles/{report['bundle']}",
    ):
        assert (folder / kept).exists(), kept
    again = subprocess.run(
        [sys.executable, "-m", "pinfeather", "search", "balcony", "--repo", str(folder), "--json"],
        capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
    )  # fmt: skip
    found = json.loads(again.stdout)
    assert found["scorer"] == "student"
    for hit in found["hits"]:
        why = hit["explanation"]
        total = sum(why["contributions"].values()) + why["bias"]
        assert abs(total - (hit["expected_level"] - why["baseline"])) < 1e-6
