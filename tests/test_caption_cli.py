"""`pinfeather caption` from the command line, with a tiny BLIP on real photographs or made-up images."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from caption_models import NOW, new_gallery, png, save_blip, sha


@pytest.fixture(scope="module")
def blip(tmp_path_factory):
    return save_blip(tmp_path_factory.mktemp("model") / "blip")


@pytest.fixture(autouse=True)
def one_thread():
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def gallery(tmp_path):
    return new_gallery(tmp_path)


@pytest.mark.slow
def test_plan_caption_and_list(pinfeather, gallery, blip, tmp_path):
    for number in range(5):
        gallery.put(f"p{number}", number).put(f"q{number}", number)
    gallery.put("web", 9, file=False, image_uri="https://example.org/9.png").save()
    words = ["caption", "--repo", gallery.paths.root, "--model", blip, "--max-tokens", 5, "--batch", 2]
    code, out, _ = pinfeather(*words, "--plan", "--json")
    assert code == 0 and (json.loads(out)["images"], json.loads(out)["new"], json.loads(out)["reused"]) == (6, 6, 0)
    code, out, err = pinfeather(*words, "--images", gallery.folder, "--json", "--limit", 3)
    first = json.loads(out)
    assert code in (0, 3) and first["captioned"] + first["rejected"] == 3 and first["in_use"] is None
    code, out, err = pinfeather(*words, "--images", gallery.folder, "--json")
    counts = json.loads(out)
    assert code == 3 and first["captioned"] + counts["captioned"] == 5 and counts["rejected"] == 1
    assert 0 <= counts["outside_model_share"] <= 1 and counts["in_use"] == counts["captioner"]
    assert counts["flagged"] == sum(counts["flags"].values()) <= counts["captioned"]
    assert f"6 images, {6 - first['captioned']} of them not captioned" in err

    table = pa.table({"image_sha256": [sha(png(9))], "bytes": [png(9)]})
    pq.write_table(table, tmp_path / "table.parquet")
    code, out, err = pinfeather(*words, "--image-table", tmp_path / "table.parquet")
    assert code == 0 and "outside the model" in err and counts["captioner"] in err
    code, out, _ = pinfeather("caption", "--repo", gallery.paths.root, "--json")
    (one,) = json.loads(out)["captioners"]
    assert one["captions"] == 6 and one["in_use"] and one["model"] == str(blip)
    code, out, _ = pinfeather("caption", "--repo", gallery.paths.root, "--use", one["fingerprint"][:6])
    assert code == 0 and one["captioner"][:10] in out
    code, out, _ = pinfeather("runs", "--repo", gallery.paths.root, "--json")
    assert [run["status"] for run in json.loads(out)["runs"]] == ["done"] * 3


@pytest.mark.slow
def test_photographs(pinfeather, gallery, blip, shared_data):
    """A real forward pass and decoding; random weights, so the gate flags what they write or lets nonsense pass."""
    photos = shared_data / "photos"
    files = [path for path in sorted(photos.iterdir()) if path.suffix in (".png", ".jpg")]
    for place, file in enumerate(files):
        gallery.pins[f"p{place}"] = {"image_uri": file.name, "image_sha256": sha(file.read_bytes()), "created_at": NOW}
    gallery.save()
    words = ["caption", "--repo", gallery.paths.root, "--model", blip, "--images", photos, "--max-tokens", 5, "--json"]
    code, out, _ = pinfeather(*words)
    counts = json.loads(out)
    assert code == 0 and (counts["captioned"], counts["rejected"], counts["remaining"]) == (11, 0, 0)
    code, out, _ = pinfeather(*words)
    assert code == 0 and (json.loads(out)["captioned"], json.loads(out)["reused"]) == (0, 11)


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--model", "MODEL"], "--images DIR or --image-table FILE"),
        (["--model", "MODEL", "--images", "IMAGES", "--image-table", "x"], "one of the two"),
        (["--model", "MODEL", "--images", "nowhere"], "is no folder"),
        (["--model", "MODEL", "--image-table", "nowhere"], "no Parquet file"),
        (["--images", "IMAGES"], "needs a model"),
        (["--use"], "needs a model"),
        (["--limit", "5", "--only", "zzz"], "--only and --limit would do nothing"),
        (["--prompt", "x", "--beams", "3", "--fetch"], "--fetch and --prompt and --beams would do nothing"),
        (["--use", "nobody", "--beams", "4"], "--beams would do nothing"),
        (["--lock-timeout", "1"], "--lock-timeout would do nothing"),
        (["--use", "nobody", "--lock-timeout", "1"], "names no captioner"),
        (["--model", "MODEL", "--use", "--plan"], "leave out --use, or --plan"),
        (["--model", "MODEL", "--images", "IMAGES", "--seed", "3"], "without --top-p"),
        (["--model", "MODEL", "--images", "IMAGES", "--seed", "-3", "--top-p", "0.9"], "whole number from 0 to 1844"),
        (["--model", "nowhere/at/all", "--images", "IMAGES", "--language", "english"], "ISO 639-1"),
        (["--use", "nobody"], "names no captioner"),
        (["--model", "MODEL", "--use", "nobody", "--images", "IMAGES"], "exclude each other"),
        (["--model", "MODEL", "--images", "IMAGES", "--beams", "2", "--top-p", "0.5"], "exclude each other"),
        (["--model", "nowhere/at/all", "--images", "IMAGES"], "no model folder"),
    ],
)
def test_wrong_usage(pinfeather, gallery, blip, words, text):
    gallery.put("a", 1).save()
    given = [{"MODEL": blip, "IMAGES": gallery.folder}.get(word, word) for word in words]
    code, _, err = pinfeather("caption", "--repo", gallery.paths.root, *given)
    assert code == (1 if text == "no model folder" else 2) and text in err


def test_what_the_environment_says_may_go_unused(pinfeather, gallery, monkeypatch):
    monkeypatch.setenv("PINFEATHER_CAPTION_BATCH", "4")
    assert pinfeather("caption", "--repo", gallery.paths.root)[0] == 0
    monkeypatch.setenv("PINFEATHER_DEVICE", "cuda")
    assert pinfeather("caption", "--repo", gallery.paths.root)[0] == 0


@pytest.mark.parametrize("option", [("--device", "cpu"), ("--precision", "fp32")])
def test_training_sets_without_vectors_run_no_model(pinfeather, gallery, tmp_path, option):
    words = ["train", "examples", "--repo", gallery.paths.root, "--out", tmp_path / "o.parquet", *option]
    code, _, err = pinfeather(*words)
    assert code == 2 and option[0] in err and "--vectors" in err


def test_pins_that_were_not_validated(pinfeather, gallery, blip):
    code, _, err = pinfeather("caption", "--repo", gallery.paths.root, "--model", blip, "--images", gallery.folder)
    assert code == 1 and "pinfeather validate" in err
