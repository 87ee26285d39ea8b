"""Real forward passes and decoding of tiny BLIP, BLIP-2 and chat models; what they are called, and how they fail."""

import json
import shutil
from functools import cache

import numpy as np
import pytest
from caption_models import save_blip, save_blip2, save_chat

from embedders.captions import Captioner, CaptionerError, CaptionSettings, PreparingCaptioner, find_captioner
from embedders.captions.captioner import MAX_TOKENS
from embedders.captions.hub import load_captioner
from embedders.captions.images import ImageRefused
from embedders.captions.model import CHAT_PROMPT
from embedders.model_folder import ModelFolderError
from feature_repo.errors import UsageError

SAVE = {"blip": save_blip, "blip2": save_blip2, "chat": save_chat}


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Of such small models several threads only wait for each other."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A folder for each kind, made once, when it is asked for."""
    root = tmp_path_factory.mktemp("models")

    class Made(dict):
        def __missing__(self, name):
            self[name] = SAVE[name](root / name)
            return self[name]

    return Made()


def pictures(count=3):
    from PIL import Image

    noise = np.random.default_rng(5).integers(0, 255, (count, 30, 40, 3), dtype=np.uint8)
    return [Image.fromarray(each) for each in noise]


@cache
def captioner(folder, **settings):
    return load_captioner(find_captioner(str(folder), CaptionSettings(max_tokens=6, **settings)), "cpu", "fp32")


KINDS = ["blip", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("blip2", "chat"))]


@pytest.mark.parametrize("kind", KINDS)
def test_captions_one_by_one_and_together(models, kind):
    made = captioner(models[kind])
    images = pictures()
    together = made.caption(images)
    assert isinstance(made, Captioner) and isinstance(made, PreparingCaptioner)
    assert len(together) == 3 and all(text.strip() == text and text for text in together)
    assert [made.caption([image])[0] for image in images] == together
    assert made.generate(made.prepare(images[::-1])) == together[::-1]
    assert made.caption([]) == []
    assert made.model_seconds > 0


@pytest.mark.parametrize("kind", KINDS)
def test_the_prompt_changes_what_is_written_and_is_not_in_it(models, kind):
    plain, asked = captioner(models[kind]), captioner(models[kind], prompt="a photo of")
    found = asked.caption(pictures())
    assert found != plain.caption(pictures())
    assert not any("a photo of" in text or "assistant" in text for text in found)


@pytest.mark.slow
def test_a_chat_model_is_asked_a_question(models):
    folder = find_captioner(str(models["chat"]))
    assert folder.prompt == CHAT_PROMPT
    with pytest.raises(CaptionerError, match="must be asked something"):
        find_captioner(str(models["chat"]), CaptionSettings(prompt=" "))


@pytest.mark.slow
@pytest.mark.parametrize("kind", SAVE)
def test_beams_and_nucleus(models, kind):
    images = pictures()
    assert captioner(models[kind], beams=3).caption(images) != captioner(models[kind]).caption(images)
    drawn = captioner(models[kind], top_p=0.9)
    first = drawn.caption(images)
    assert drawn.caption(images) == first
    assert captioner(models[kind], top_p=0.9, seed=1).caption(images) != first


def test_sampling_leaves_the_draws_of_others_alone(models):
    import torch

    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    captioner(models["blip"], top_p=0.9, seed=(1 << 64) - 1).caption(pictures(1))
    assert torch.equal(torch.rand(2), expected)


@pytest.mark.slow
def test_half_precision_on_a_processor(models):
    folder = find_captioner(str(models["blip"]), CaptionSettings(max_tokens=6))
    made = load_captioner(folder, "cpu", "bf16")
    assert len(made.caption(pictures())) == 3
    assert made.fingerprint == captioner(models["blip"]).fingerprint
    with pytest.raises(UsageError, match="fp16 needs a CUDA device"):
        load_captioner(folder, "cpu", "fp16")
    with pytest.raises(UsageError, match="precision 'fp8' is unknown"):
        load_captioner(folder, "cpu", "fp8")


def test_a_batch_too_large_for_memory_is_cut(models, monkeypatch):
    made = load_captioner(find_captioner(str(models["blip"]), CaptionSettings(max_tokens=6)), "cpu", "fp32")
    expected = made.caption(pictures(5))
    sizes = []
    real = made._model.generate

    def generate(**inputs):
        sizes.append(len(inputs["pixel_values"]))
        if sizes[-1] > 2:
            raise RuntimeError(
                "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"
            )
        return real(**inputs)

    monkeypatch.setattr(made._model, "generate", generate)
    assert made.caption(pictures(5)) == expected
    assert sizes == [5, 2, 1, 2]
    assert made.caption(pictures(4)) == expected[:4]
    assert sizes[4:] == [2, 2]
    monkeypatch.setattr(made._model, "generate", lambda **_: (_ for _ in ()).throw(MemoryError()))
    with pytest.raises(ImageRefused, match="does not fit"):
        made.caption(pictures(1))
    monkeypatch.setattr(made._model, "generate", lambda **_: (_ for _ in ()).throw(RuntimeError("shapes")))
    with pytest.raises(RuntimeError, match="shapes"):
        made.caption(pictures(1))


def copied(models, tmp_path, kind="blip"):
    return shutil.copytree(models[kind], tmp_path / "copy")


def test_the_fingerprint_is_of_what_decides_a_caption(models, tmp_path):
    folder = copied(models, tmp_path)
    first = find_captioner(str(folder))
    assert first.fingerprint == find_captioner(str(models["blip"])).fingerprint
    assert first.name == f"copy@{first.fingerprint[:12]}"
    changed = [
        CaptionSettings(prompt="a"),
        CaptionSettings(beams=2),
        CaptionSettings(top_p=0.5),
        CaptionSettings(max_tokens=9),
    ]
    changed += [CaptionSettings(top_p=0.5, seed=1)]
    known = {first.fingerprint} | {find_captioner(str(folder), settings).fingerprint for settings in changed}
    assert len(known) == 6
    assert find_captioner(str(folder), CaptionSettings(seed=1)).fingerprint == first.fingerprint  # nothing is drawn

    config = json.loads((folder / "config.json").read_text())
    config["transformers_version"], config["text_config"]["dtype"] = "9.9", "bfloat16"
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "README.md").write_text("news")
    assert find_captioner(str(folder)).fingerprint == first.fingerprint
    for name in ("processor_config.json", "tokenizer.json"):
        (folder / name).write_text((folder / name).read_text() + " ")
        known.add(find_captioner(str(folder)).fingerprint)
    save_blip(folder, seed=1)
    known.add(find_captioner(str(folder)).fingerprint)
    assert len(known) == 9


@pytest.mark.slow
def test_a_folder_as_it_was_published(models, tmp_path):
    """Older folders have the processor's settings in preprocessor_config.json, of a class that wants torchvision."""
    folder = copied(models, tmp_path)
    processor = json.loads((folder / "processor_config.json").read_text())
    images = {**processor["image_processor"], "image_processor_type": "BlipImageProcessor"}
    (folder / "processor_config.json").unlink()
    (folder / "preprocessor_config.json").write_text(json.dumps({**images, "processor_class": "BlipProcessor"}))
    assert captioner(folder).caption(pictures()) == captioner(models["blip"]).caption(pictures())


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"model_type": None}, "names no model_type"),
        ({"model_type": "bert"}, "no chat template"),
        ({"model_type": "someone_elses"}, "no chat template"),
    ],
)
def test_a_model_that_cannot_caption(models, tmp_path, change, text):
    folder = copied(models, tmp_path)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **change}))
    with pytest.raises(CaptionerError, match=text):
        find_captioner(str(folder))


def test_a_type_that_transformers_does_not_know(models, tmp_path):
    folder = copied(models, tmp_path)
    config = json.loads((folder / "config.json").read_text())
    config["model_type"], config["auto_map"] = "someone_elses", {"AutoModelForImageTextToText": "code.Model"}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    (folder / "code.py").write_text("raise SystemExit('this code was run')")
    with pytest.raises(CaptionerError, match="cannot be loaded"):
        load_captioner(find_captioner(str(folder)))


def test_damaged_and_missing(models, tmp_path):
    folder = copied(models, tmp_path)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(CaptionerError, match="cannot be loaded"):
        load_captioner(find_captioner(str(folder)))
    weights.rename(folder / "pytorch_model.bin")
    with pytest.raises(ModelFolderError, match="Pickled weights"):
        find_captioner(str(folder))
    with pytest.raises(CaptionerError, match="no model folder"):
        find_captioner(str(tmp_path / "nowhere"))
    with pytest.raises(CaptionerError, match="--fetch"):
        find_captioner("pinfeather-tests/no-such-model")


@pytest.mark.slow
def test_a_hub_that_cannot_be_reached(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    with pytest.raises(CaptionerError, match=r"could not be fetched: .*copy its folder here"):
        find_captioner("pinfeather-tests/no-such-model", fetch=True)


@pytest.mark.slow
def test_a_model_that_was_fetched_before(models, tmp_path, monkeypatch):
    from huggingface_hub import constants

    cache = tmp_path / "models--pinfeather-tests--tiny"
    snapshot = cache / "snapshots" / ("a" * 40)
    shutil.copytree(models["blip"], snapshot)
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text("a" * 40)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    folder = find_captioner("pinfeather-tests/tiny")
    assert folder.path == snapshot and folder.name.startswith("pinfeather-tests/tiny@")
    assert folder.fingerprint == find_captioner(str(models["blip"])).fingerprint


WRONG = [{"beams": 0}, {"beams": 33}, {"top_p": 0.0}, {"top_p": float("nan")}, {"beams": 2, "top_p": 0.5}]
WRONG += [{"max_tokens": 0}, {"max_tokens": MAX_TOKENS + 1}, {"seed": -1}, {"seed": 1 << 64}]


@pytest.mark.parametrize("wrong", WRONG, ids=str)
def test_settings_out_of_range(wrong):
    with pytest.raises(UsageError, match=next(iter(wrong))):
        CaptionSettings(**wrong)


@pytest.mark.slow
def test_photos(models, shared_data):
    """Real photographs through a real processor, forward pass and decoding."""
    from embedders.captions import decode_image

    files = sorted(path for path in (shared_data / "photos").iterdir() if path.suffix in (".png", ".jpg"))
    images = [decode_image(path.read_bytes()) for path in files]
    made = captioner(models["blip"])
    assert len(images) == 11 and all(made.caption(images))
