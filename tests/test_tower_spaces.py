"""A student's own towers, from the bundle to the answer and back: spaces, promotion, serving, restore, rollback."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from client_catalogue import copy_repository
from conftest import Catalogue
from test_spaces import vectors_in
from tower_models import TEMPLATE, student_with, tiny_base, tiny_tower

from embedders.bundle import BundleError, StudentBundle
from embedders.encoder import TokenCounter, as_stored, load_encoder
from feature_repo.errors import PinfeatherError, UsageError
from feature_repo.paths import RepoPaths
from materialize import encoders
from materialize.audit import audit
from materialize.encoders import Encoders
from materialize.new_spaces import untrained_cut
from materialize.plan_spaces import plan_spaces
from materialize.promotion import Gate, promote, rollback
from materialize.releases import current_release, publish_release
from materialize.restore import restore
from materialize.run import RunOptions, materialize
from materialize.space_admin import backfill, create_space, drop_space, list_spaces
from materialize.spaces import load_space
from pinfeather.pipeline import fit_lexical
from serving_client import PinClient
from serving_client.degraded import code_of

CPU = {"device": "cpu", "precision": "fp32"}
LAX = Gate(overlap_min=0, sample=5)


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> Path:
    """A base and two towers on it."""
    folder = tmp_path_factory.mktemp("models")
    base = tiny_base(folder / "base")
    tiny_tower(folder / "query", base, seed=1, prompt="query: ")
    tiny_tower(folder / "pin", base, seed=2, max_length=8)
    return folder


@pytest.fixture(scope="module")
def built(applied, models, tmp_path_factory) -> dict[str, Catalogue]:
    """Catalogues for reading only: ``hats``, six pins in a live space of the base, and ``live``.

    ``live`` is the same after a student with two towers went live; its folder outside is gone since before that.
    """
    folder = tmp_path_factory.mktemp("built")
    hats = Catalogue(RepoPaths.open(copy_repository(applied.root, folder / "hats")))
    for number in range(6):
        hats.put(f"p{number}", f"hat {number} " + "of warm and soft grey wool " * number, description="wool")
    hats.save()
    materialize(hats.paths, RunOptions(model=str(models / "base"), **CPU))
    fit_lexical(hats.paths)
    live = copied(hats, folder / "live")
    outside = student(models, folder / "outside" / "two", "query", "pin")
    create_space(live.paths, "next", bundle=str(outside))
    shutil.rmtree(outside)
    list(backfill(live.paths, "next", RunOptions(**CPU)))
    promote(live.paths, "next", LAX, bundle="two")
    return {"hats": hats, "live": live}


def copied(catalogue: Catalogue, folder: Path) -> Catalogue:
    other = Catalogue(RepoPaths.open(copy_repository(catalogue.paths.root, folder)))
    other.pins = {pin: dict(fields) for pin, fields in catalogue.pins.items()}
    return other


@pytest.fixture
def hats(built, tmp_path):
    return copied(built["hats"], tmp_path / "repo")


@pytest.fixture
def live(built, tmp_path):
    return copied(built["live"], tmp_path / "repo")


def student(models: Path, folder: Path, query: str, pin: str) -> Path:
    return student_with({"query": models / query, "pin": models / pin}).save(folder)


def encoded(folder: Path, *texts: str) -> np.ndarray:
    return as_stored(load_encoder(folder, "cpu", "fp32").encode(list(texts)))


def title(catalogue, pin: str) -> str:
    return catalogue.pins[pin]["title"].strip()


def test_separate_towers_end_to_end(live, models):
    space = load_space(live.paths, "next")
    query, pin = (load_encoder(models / name, "cpu", "fp32").fingerprint for name in ("query", "pin"))
    assert (space.model_fingerprint, space.query_towers, space.query_fingerprint) == (pin, (query,), query)
    assert (space.dimension, space.template, space.bundle, space.status) == (16, TEMPLATE, "two", "ready")
    assert json.loads((live.paths.spaces / "next.json").read_text())["model"] == "towers/pin"
    texts = [title(live, each) for each in live.pins]
    np.testing.assert_allclose(
        np.stack(vectors_in(live.paths, "next", *live.pins)), encoded(models / "pin", *texts), atol=2e-3
    )
    with PinClient(live.paths.root, device="cpu") as client:
        asked = client.embed_queries(["Warm  hat"])
        boards = client.embed_boards([["Hats", "warm hat"], "warm hat"])
        found = client.search("warm hat", limit=3)
        one = client.score("warm hat", ["p1"])
    assert (asked.model, asked.space, found.scorer, found.bundle) == (query, "next", "student", "student")
    theirs = load_encoder(models / "query").encode(["warm hat", "hats, warm hat"])
    np.testing.assert_allclose(asked.vectors[0], theirs[0], atol=5e-3)
    np.testing.assert_allclose(boards.vectors, theirs[::-1], atol=5e-3)
    assert (boards.model, len(found.hits), one.degraded) == (query, 3, ())
    pins = dict(zip(live.pins, vectors_in(live.paths, "next", *live.pins), strict=True))
    for hit in found.hits:
        assert hit.similarity == pytest.approx(float(pins[hit.pin_id] @ asked.vectors[0]), abs=1e-3)
    assert audit(live.paths).clean


def test_a_live_release_refuses_any_other_query_tower_the_pin_tower_too(live, models):
    for name in ("pin", "base"):
        with PinClient(live.paths.root, encoder=load_encoder(models / name, "cpu", "fp32")) as client:
            with pytest.raises(PinfeatherError, match="takes query vectors of the towers"):
                client.embed_queries(["hat"])
            by_words = client.search("hat")
        assert (by_words.scorer, code_of(by_words.degraded[0])) == ("bm25", "no_embedding")
    space = load_space(live.paths, "next")
    with pytest.raises(PinfeatherError, match="holds vectors of the tower"):
        Encoders(given=load_encoder(models / "query", "cpu", "fp32")).of(space)
    live.put("p1", "cap").save()
    with pytest.raises(PinfeatherError, match="holds vectors of the tower"):
        materialize(live.paths, RunOptions(encoder=load_encoder(models / "query", "cpu", "fp32")))


def test_each_side_is_loaded_once_and_only_when_it_is_needed(live, monkeypatch):
    loaded = []
    monkeypatch.setattr(
        encoders, "load_encoder", lambda model, **more: loaded.append(model) or load_encoder(model, **more)
    )
    space, towers = load_space(live.paths, "next"), Encoders("cpu", "fp32")
    for _ in range(2):
        assert towers.of(space).fingerprint == space.model_fingerprint
        assert towers.of_queries(space).fingerprint == space.query_fingerprint
    assert loaded == [space.model, space.query_model]


def test_plan_counts_tokens_as_the_pin_tower_reads_them(live, models):
    live.put("p5", "cap " * 30).put("p6", "a new one").save()
    planned = plan_spaces(live.paths)
    texts = [title(live, "p5"), "a new one"]
    assert planned.space == "next"
    assert planned.tokens == sum(TokenCounter(models / "pin").count(texts)) == 8 + 5
    counts = materialize(live.paths, RunOptions(**CPU))
    assert (counts.changed, counts.new, counts.encoded_texts) == (1, 1, 2)
    vectors = vectors_in(live.paths, "next", "p5", "p6")
    np.testing.assert_allclose(np.stack(vectors), encoded(models / "pin", *texts), atol=2e-3)


def test_a_lost_store_comes_back_without_a_model_and_a_repository_may_be_moved(live, tmp_path, monkeypatch):
    before = np.stack(vectors_in(live.paths, "next", *live.pins))
    shutil.rmtree(live.paths.online)
    monkeypatch.setattr(encoders, "load_encoder", lambda *_, **__: pytest.fail("a model was loaded"))
    assert [done.upserted for done in restore(live.paths)] == [6, 6]
    np.testing.assert_array_equal(np.stack(vectors_in(live.paths, "next", *live.pins)), before)
    moved = replace(live.paths, root=live.paths.root.rename(tmp_path / "moved"))
    assert Path(load_space(moved, "next").model) == moved.bundles / "two/towers/pin"
    assert Path(load_space(moved, "next").query_model).is_dir()


def test_the_way_back_takes_the_former_towers(live, models):
    former = list_spaces(live.paths)[1]["name"]
    rollback(live.paths)
    with PinClient(live.paths.root, device="cpu") as client:
        answer = client.embed_queries(["hat"])
        aside = client.embed_queries(["hat"], space="next")
    assert (answer.space, answer.vectors.shape) == (former, (1, 32))
    assert aside.model == load_space(live.paths, "next").query_fingerprint
    rollback(live.paths)
    assert (current_release(live.paths).live_space, current_release(live.paths).bundle) == ("next", "two")


@pytest.mark.parametrize("name", ["projection.safetensors", "base/model.safetensors"])
def test_a_changed_tower_serves_nobody_and_encodes_nothing(live, name):
    file = live.paths.bundles / "two/towers/query" / name
    content = bytearray(file.read_bytes())
    content[-5] ^= 1
    file.write_bytes(bytes(content))
    with PinClient(live.paths.root, device="cpu") as client:
        by_words = client.search("hat")
        assert (by_words.scorer, code_of(by_words.degraded[0])) == ("bm25", "no_student")
        assert "was changed" in by_words.degraded[0]
        with pytest.raises(PinfeatherError, match="not the mode"):
            client.embed_queries(["hat"])
    rollback(live.paths)
    with pytest.raises(BundleError, match="was changed"):
        promote(live.paths, "next", LAX, bundle="two")


def test_a_shared_tower_is_one_model_for_both(hats, models, tmp_path):
    outside = student(models, tmp_path / "shared", "pin", "pin")
    space = create_space(hats.paths, bundle=str(outside))
    assert (space.query_model, space.query_towers) == ("", (space.model_fingerprint,))
    list(backfill(hats.paths, space.name, RunOptions(**CPU)))
    promote(hats.paths, space.name, LAX, bundle=str(outside))
    with PinClient(hats.paths.root, device="cpu") as client:
        assert client.search("hat", limit=2).scorer == "student"
    titles = create_space(hats.paths, "titles", without=["caption", "boards"])
    assert (titles.model, titles.bundle) == (space.model, "shared")
    assert json.loads((hats.paths.spaces / "titles.json").read_text())["model"] == "towers/shared"
    list(backfill(hats.paths, "titles", RunOptions(**CPU)))
    with pytest.raises(PinfeatherError, match=r"Student shared .* reads spaces of its own towers, not titles"):
        promote(hats.paths, "titles", LAX)


def test_a_space_that_the_live_student_reads_by_its_tower_is_not_dropped(live, models, tmp_path):
    rollback(live.paths)
    publish_release(live.paths, bundle="two")  # as a promotion that was begun by hand would leave it
    with pytest.raises(PinfeatherError, match="bundle two of release 5 reads it"):
        drop_space(live.paths, "next")


def test_what_cannot_become_a_space_says_why(hats, models, tmp_path):
    outside = student(models, tmp_path / "two", "query", "pin")
    plain = student_with(None, query_tower="words", spaces=("here",)).save(tmp_path / "plain")
    for more in ({"model": "packaged"}, {"without": ["caption"]}, {"dimension": 8}):
        with pytest.raises(UsageError, match="A bundle brings model, template and dimension"):
            create_space(hats.paths, "next", bundle=str(outside), **more)
    with pytest.raises(PinfeatherError, match="has no towers of its own; it reads the spaces here"):
        create_space(hats.paths, "next", bundle=str(plain))
    with pytest.raises(BundleError, match="There is no bundle 'nothing'"):
        create_space(hats.paths, "next", bundle="nothing")
    create_space(hats.paths, "next", bundle=str(outside))
    with pytest.raises(PinfeatherError, match="the same model, template and dimension already"):
        create_space(hats.paths, "again", bundle="two")
    other = student(models, tmp_path / "one", "pin", "pin")  # the same pin tower, queried by another one
    assert (
        create_space(hats.paths, "one", bundle=str(other)).query_towers != load_space(hats.paths, "next").query_towers
    )


def test_a_cut_that_a_tower_was_not_trained_for_is_told(hats, models):
    cut = create_space(hats.paths, "four", model=str(models / "pin"), dimension=4)
    assert untrained_cut(cut) == (
        "The model was trained to be cut to 16, 8, not to 4: expect more loss than its report says."
    )
    assert untrained_cut(create_space(hats.paths, "eight", model=str(models / "pin"), dimension=8)) is None
    assert untrained_cut(create_space(hats.paths, "whole", model=str(models / "pin"))) is None
    assert untrained_cut(create_space(hats.paths, "base", model=str(models / "base"), dimension=4)) is None
    list(backfill(hats.paths, "eight", RunOptions(**CPU)))
    whole = encoded(models / "pin", f"{title(hats, 'p1')} | wool")[0, :8]
    (vector,) = vectors_in(hats.paths, "eight", "p1")
    np.testing.assert_allclose(vector, whole / np.linalg.norm(whole), atol=2e-3)


def answer(pinfeather, *words, code=0):
    done, out, err = pinfeather(*words, "--json")
    assert done == code, err
    return json.loads(out), err


def test_a_student_goes_live_on_the_command_line(pinfeather, hats, models, tmp_path):
    root = hats.paths.root
    outside = student(models, tmp_path / "two", "query", "pin")
    created, _ = answer(pinfeather, "spaces", "create", "next", "--bundle", outside, "--repo", root)
    assert (created["dimension"], created["model"]) == (16, str(hats.paths.bundles / "two/towers/pin"))
    _, err = answer(pinfeather, "spaces", "create", "--model", models / "pin", "--dimension", "4", "--repo", root)
    assert "Warning: The model was trained to be cut to 16, 8, not to 4" in err
    answer(pinfeather, "spaces", "backfill", "next", "--repo", root, "--device", "cpu")
    options = ("--overlap-min", "0", "--bundle", outside, "--device", "cpu", "--repo", root)
    switched, _ = answer(pinfeather, "promote", "next", *options)
    assert (switched["switched"], switched["bundle"]) == (True, "two")
    lines = tmp_path / "boards.txt"
    lines.write_text('warm hats\n\n["Hats", "a grey hat", "warm hat"]\n')
    boards, _ = answer(pinfeather, "embed", "--what", "board", "--file", lines, "--repo", root)
    assert boards["ids"] == ["warm hats", "Hats"]
    queries, _ = answer(pinfeather, "embed", "warm hats", "--repo", root)
    np.testing.assert_allclose(queries["vectors"][0], boards["vectors"][0], atol=5e-3)
    assert queries["model"] == boards["model"] == load_space(hats.paths, "next").query_fingerprint


def test_towers_are_exported_as_they_are_and_merged(pinfeather, hats, models, tmp_path):
    outside = student(models, tmp_path / "two", "query", "pin")
    done, _ = answer(pinfeather, "export", "tower", outside, tmp_path / "difference", "--tower", "query")
    assert set(done) == {"bundle", "tower", "folder", "fingerprint", "dimension", "merged"}
    assert done["fingerprint"] == StudentBundle.load(outside).manifest.query_tower
    merged, _ = answer(pinfeather, "export", "tower", outside, tmp_path / "whole", "--tower", "query", "--merged")
    assert (merged["dimension"], merged["merged"]) == (16, True)
    theirs = encoded(Path(merged["folder"]), "warm hat")
    np.testing.assert_allclose(theirs, encoded(Path(done["folder"]), "warm hat"), atol=1e-3)
    np.testing.assert_allclose(theirs, encoded(models / "query", "warm hat"), atol=1e-3)
    code, _, err = pinfeather("export", "tower", outside, tmp_path / "whole")
    assert (code, "is there already" in err) == (2, True)
    code, _, err = pinfeather("export", "tower", "nothing", tmp_path / "new")
    assert (code, "There is no bundle 'nothing'" in err) == (1, True)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ((), "nothing to embed"),
        (("hat", "--file", "-"), "not both"),
        (("--file", "nowhere.txt"), "cannot be read"),
        (("hat", " "), "A TEXT is empty"),
    ],
)
def test_nothing_to_embed_is_a_usage_error(pinfeather, tmp_path, words, says):
    code, _, err = pinfeather("embed", *words, "--repo", tmp_path)
    assert (code, says in err) == (2, True), err


@pytest.mark.parametrize(("line", "says"), [("[1, 2]", "texts all"), ("[", "no JSON list"), ("[]", "texts all")])
def test_a_board_in_a_file_is_a_title_or_a_list_of_texts(pinfeather, tmp_path, line, says):
    (tmp_path / "boards").write_text(f"fine\n{line}\n")
    code, _, err = pinfeather("embed", "--what", "board", "--file", tmp_path / "boards", "--repo", tmp_path)
    assert (code, says in err, "line 2" in err) == (2, True, True)


def test_a_repository_may_begin_with_the_towers_of_a_student(catalogue, models, tmp_path):
    paths = catalogue.put("p0", "a warm hat").paths
    catalogue.save()
    outside = student(models, tmp_path / "two", "query", "pin")
    counts = materialize(paths, RunOptions(model=f"bundle:{outside}", **CPU))
    space = load_space(paths, counts.space)
    assert (counts.new, space.bundle, space.status, space.template) == (1, "two", "ready", TEMPLATE)
    np.testing.assert_allclose(vectors_in(paths, space.name, "p0"), encoded(models / "pin", "a warm hat"), atol=2e-3)
    assert materialize(paths, RunOptions(model="bundle:two", **CPU)).encoded_texts == 0
    with pytest.raises(PinfeatherError, match="not to the bundle one"):
        materialize(paths, RunOptions(model=f"bundle:{student(models, tmp_path / 'one', 'pin', 'pin')}"))
    fit_lexical(paths)
    switch = promote(paths, space.name, bundle="two")
    assert (switch.switched, switch.checks, current_release(paths).bundle) == (True, [], "two")
    with PinClient(paths.root, device="cpu") as client:
        assert client.search("hat").scorer == "student"
    with pytest.raises(UsageError, match="is live already"):
        promote(paths, space.name, bundle="two")
    assert promote(paths, space.name, without_bundle=True).bundle is None
    assert current_release(paths).bundle is None
