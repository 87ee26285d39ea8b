"""Bundles with towers: copied whole, checked file by file, found by name, and those without as they always were."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from tower_models import TEMPLATE, student_with, tiny_base, tiny_tower

from embedders import bundle_places
from embedders.bundle import BundleError, StudentBundle, load_manifest
from embedders.bundle_places import PRETRAINED, adopt_bundle, bundle_folder
from embedders.encoder import load_encoder, model_fingerprint
from embedders.merging import merge_tower
from embedders.model_files import ModelFolderError
from feature_repo.paths import RepoPaths

FILES = ["head.safetensors", "lexical.json"]
FILES += [
    f"towers/{role}/{name}"
    for role in ("query", "pin")
    for name in ("tower.json", "adapter_config.json", "adapter_model.safetensors", "projection.safetensors")
]
FILES += ["towers/pin/base/config.json", "towers/query/base/model.safetensors", "towers/pin/base/tokenizer.json"]


@pytest.fixture(scope="module")
def towers(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("towers")
    base = tiny_base(folder / "base")
    return {"query": tiny_tower(folder / "query", base, seed=1), "pin": tiny_tower(folder / "pin", base, seed=2)}


@pytest.fixture(scope="module")
def saved(towers, tmp_path_factory) -> Path:
    """A bundle with two towers; for reading only."""
    return student_with(towers).save(tmp_path_factory.mktemp("bundles") / "student")


@pytest.fixture
def student(saved, tmp_path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(saved, tmp_path / "student"))


def test_a_bundle_carries_its_towers_with_their_base(towers, saved):
    loaded = StudentBundle.load(saved)
    manifest = loaded.manifest
    assert manifest.towers == {"query": "towers/query", "pin": "towers/pin"}
    assert (manifest.query_tower, manifest.pin_tower) == tuple(model_fingerprint(towers[each]) for each in towers)
    assert (manifest.dimension, manifest.bundle_version, loaded.template) == (16, 2, TEMPLATE)
    assert set(FILES) < set(manifest.files)
    assert set(manifest.files) == {
        path.relative_to(saved).as_posix()
        for path in saved.rglob("*")
        if path.is_file() and path.name != "manifest.json"
    }
    for role, folder in towers.items():
        theirs = load_encoder(folder, "cpu", "fp32").encode(["green sofa"])
        encoder = loaded.encoder(role, "cpu", "fp32")
        np.testing.assert_array_equal(encoder.encode(["green sofa"]), theirs)


def test_one_tower_for_both_is_kept_once(towers, tmp_path):
    made = student_with({"query": towers["pin"], "pin": towers["pin"]})
    folder = made.save(tmp_path / "student")
    assert made.manifest.towers == {"query": "towers/shared", "pin": "towers/shared"}
    assert [path.name for path in (folder / "towers").iterdir()] == ["shared"]
    again = StudentBundle.load(folder)
    assert again.save(folder) == folder  # out of itself
    assert StudentBundle.load(folder).manifest.files == again.manifest.files


def test_a_whole_model_may_be_a_tower(towers, tmp_path):
    merged = merge_tower(towers["pin"], tmp_path / "merged")
    folder = student_with({"query": merged, "pin": merged}).save(tmp_path / "student")
    shutil.rmtree(merged)
    encoder = StudentBundle.load(folder).encoder("pin", "cpu", "fp32")
    theirs = load_encoder(towers["pin"], "cpu", "fp32").encode(["green sofa"])
    np.testing.assert_allclose(encoder.encode(["green sofa"]), theirs, atol=1e-5)


def test_a_bundle_without_towers_is_what_it_was_before_there_were_any(tmp_path):
    folder = student_with(None, query_tower="words", spaces=("pins",)).save(tmp_path / "student")
    manifest = json.loads((folder / "manifest.json").read_text())
    assert ("towers" in manifest, manifest["bundle_version"]) == (False, 1)
    loaded = StudentBundle.load(folder)
    assert (loaded.towers, loaded.manifest.query_tower, loaded.manifest.pin_tower) == ({}, "words", "words")
    with pytest.raises(BundleError, match="no query tower of its own: take the model of the space that it reads"):
        loaded.encoder("query")
    with pytest.raises(BundleError, match="give the fingerprint of the query tower"):
        student_with(None)


@pytest.mark.parametrize("name", FILES)
def test_a_changed_or_missing_file_is_refused_by_name(student, name):
    file = student / name
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(bytes(content))
    with pytest.raises(BundleError, match=rf"{name} was changed: its sha256"):
        StudentBundle.load(student)
    file.unlink()
    with pytest.raises(BundleError, match=f"{name} is missing"):
        StudentBundle.load(student)


def test_a_file_that_was_added_to_a_tower_is_refused(student):
    (student / "towers/pin/2_Dense").mkdir()
    (student / "towers/pin/2_Dense/config.json").write_text("{}")
    with pytest.raises(BundleError, match=r"2_Dense/config\.json is not in the manifest"):
        StudentBundle.load(student)


@pytest.mark.parametrize(
    "places",
    [
        {"query": "towers/query"},
        {"query": "towers/query", "pin": "towers/.."},
        {"query": "towers/query", "pin": "../outside"},
        {"query": "towers/query", "pin": "/outside"},
        {"query": "towers/query", "pin": "towers/pin", "board": "towers/pin"},
    ],
)
def test_a_manifest_cannot_name_towers_elsewhere(student, places):
    manifest = json.loads((student / "manifest.json").read_text())
    (student / "manifest.json").write_text(json.dumps(manifest | {"towers": places}))
    with pytest.raises(BundleError, match="are not the folders of a query and a pin tower"):
        load_manifest(student)


def test_towers_must_fit_the_head_each_other_and_what_is_said_of_them(towers, tmp_path):
    with pytest.raises(BundleError, match="the head reads 8"):
        student_with(towers, dimension=8)
    with pytest.raises(BundleError, match="query and pin, not query"):
        student_with({"query": towers["query"]})
    with pytest.raises(BundleError, match="give the right folder"):
        student_with(towers, query_tower="another")
    changed = Path(shutil.copytree(towers["pin"], tmp_path / "pin"))
    settings = json.loads((changed / "tower.json").read_text())
    (changed / "tower.json").write_text(json.dumps(settings | {"base": str(towers["query"])}))
    with pytest.raises(ModelFolderError, match="a tower itself"):
        student_with({"query": changed, "pin": changed})


def test_a_bundle_reads_its_own_towers_and_the_spaces_that_it_was_trained_on(towers):
    manifest = student_with(towers, spaces=("old",)).manifest
    assert manifest.reads("any", manifest.pin_tower, TEMPLATE)
    assert manifest.reads("old", "whatever", TEMPLATE)
    assert not manifest.reads("any", manifest.query_tower, TEMPLATE)
    assert not manifest.reads("any", manifest.pin_tower, TEMPLATE.without("caption"))
    plain = student_with(None, query_tower="words", spaces=("old",)).manifest
    assert not plain.reads("any", "words", TEMPLATE)


@pytest.fixture
def paths(tmp_path) -> RepoPaths:
    return RepoPaths(tmp_path / "repo")


def test_a_bundle_from_outside_is_copied_once_and_another_of_its_name_beside_it(paths, student, towers, tmp_path):
    assert adopt_bundle(paths, str(student)) == adopt_bundle(paths, str(student)) == "student"
    StudentBundle.load(paths.bundles / "student")
    other = student_with(towers, metrics={"a": 1}).save(tmp_path / "elsewhere" / "student")
    name = adopt_bundle(paths, str(other))
    assert name.startswith("student-")
    assert adopt_bundle(paths, str(other)) == name
    assert sorted(each.name for each in paths.bundles.iterdir()) == ["student", name]
    assert adopt_bundle(paths, name) == name
    shutil.rmtree(other)
    assert StudentBundle.load(paths.bundles / name).manifest.metrics == {"a": 1}


def test_a_damaged_bundle_is_not_copied(paths, student):
    (student / FILES[3]).unlink()
    with pytest.raises(BundleError, match="is missing"):
        adopt_bundle(paths, str(student))
    assert not paths.bundles.exists()


def test_the_packaged_student_goes_by_its_name(paths, student, monkeypatch, tmp_path):
    monkeypatch.setattr(bundle_places, "pretrained_path", lambda: student)
    assert bundle_folder(PRETRAINED) == student
    assert adopt_bundle(paths, PRETRAINED) == PRETRAINED
    StudentBundle.load(paths.bundles / PRETRAINED)


def test_a_name_is_of_the_repository_first_and_one_that_is_nowhere_lists_what_there_is(paths, student, monkeypatch):
    with pytest.raises(BundleError, match="which has none yet"):
        bundle_folder("nothing", paths)
    adopt_bundle(paths, str(student))
    with pytest.raises(BundleError, match=r"one of the repository \(student\)"):
        bundle_folder("nothing", paths)
    monkeypatch.chdir(student.parent)
    assert bundle_folder("student", paths) == paths.bundles / "student"
    assert bundle_folder("./student", paths) == bundle_folder("student") == student
