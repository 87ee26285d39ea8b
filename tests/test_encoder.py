"""The encoder: right vectors for any text, each text once, and no vector from a model that is not the recorded one."""

import json
import logging
import shutil
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tower_models import tiny_sentence_model

from embedders import encoder as encoder_module
from embedders import recipe
from embedders.encoder import (
    Encoder,
    EncodingError,
    EncodingRecipe,
    ModelFolderError,
    TokenCounter,
    as_stored,
    load_encoder,
    packaged_model_path,
)
from embedders.runners import prefetch
from embedders.tokens import token_batches
from feature_repo.errors import UsageError

TEXTS = [
    "mid century walnut sideboard",
    "easy lemon pasta in fifteen minutes",
    "what to wear in Lisbon in March: a capsule wardrobe for a long weekend",
    "jardinière en terre cuite",
    "収納アイデア キッチン",
    "sofa",
]
HOSTILE = {
    "empty": "",
    "blanks": " \t\n ",
    "one megabyte": "walnut " * 150_000,
    "one endless word": "x" * 1_000_000,
    "nul": "a\0b",
    "lone surrogate": "sofa \ud83d green \udc00",
    "emoji": "👩🏽‍🍳🥘🏳️‍🌈",
    "right to left": "غرفة معيشة ‏חדר שינה‎",
    "combining marks": "e" + "\u0301" * 5000,
    "special token": "[PAD] [CLS] [SEP]",
}


@pytest.fixture(scope="module")
def packaged():
    return load_encoder(device="cpu", precision="fp32")


@pytest.fixture(scope="module")
def tiny_folder(tmp_path_factory) -> Path:
    return tiny_sentence_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def tiny(tiny_folder, tmp_path) -> Path:
    """A copy of the tiny model that a test may damage."""
    return Path(shutil.copytree(tiny_folder, tmp_path / "tiny"))


def count_rows(encoder, monkeypatch) -> list[int]:
    """Rows of each batch that reaches the model."""
    seen: list[int] = []
    run = encoder._runner.run

    def counted(batches):
        for rows, block in run(batches):
            seen.append(len(rows))
            yield rows, block

    monkeypatch.setattr(encoder._runner, "run", counted)
    return seen


def test_vectors_are_those_of_sentence_transformers(packaged):
    from sentence_transformers import SentenceTransformer

    theirs = SentenceTransformer(str(packaged_model_path()), device="cpu").encode(TEXTS)
    ours = packaged.encode(TEXTS)
    assert isinstance(packaged, Encoder)
    assert ours.shape == (len(TEXTS), packaged.dimension)
    assert ours.dtype == np.float32
    np.testing.assert_allclose(ours, theirs, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(ours, axis=1), 1, atol=1e-5)


def test_bf16_points_where_fp32_does(packaged):
    low = load_encoder(device="cpu", precision="bf16")
    assert low.fingerprint == packaged.fingerprint
    assert low.recipe.precision == "bf16"
    cosines = (low.encode(TEXTS) * packaged.encode(TEXTS)).sum(axis=1)
    assert cosines.min() >= 0.999
    assert cosines.min() < 0.9999999  # it did run in another precision


def test_cls_pooling_reads_the_first_token(tiny):
    import torch
    from transformers import AutoModel

    (tiny / "1_Pooling" / "config.json").write_text('{"pooling_mode": "cls"}')
    ids = TokenCounter(tiny)._tokenizer.ids(["green sofa"])[0]
    with torch.inference_mode():
        first = AutoModel.from_pretrained(tiny).eval()(torch.from_numpy(ids[None])).last_hidden_state[0, 0].numpy()
    np.testing.assert_allclose(
        load_encoder(tiny, "cpu", "fp32").encode(["green sofa"])[0], first / np.linalg.norm(first), atol=1e-6
    )


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
def test_any_text_has_a_unit_vector_and_leaves_its_neighbours_alone(tiny_folder, text):
    encoder = load_encoder(tiny_folder, "cpu", "fp32")
    vectors = encoder.encode(["sofa", text, "lamp"])
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1, abs=1e-5)
    np.testing.assert_allclose(vectors[[0, 2]], encoder.encode(["sofa", "lamp"]), atol=1e-5)


def test_no_texts_give_no_rows(packaged, monkeypatch):
    batches = count_rows(packaged, monkeypatch)
    assert packaged.encode([]).shape == (0, 384)
    assert batches == []


def test_a_text_without_any_token_has_a_vector(tiny):
    tokenizer = json.loads((tiny / "tokenizer.json").read_text())
    tokenizer["post_processor"] = None  # no [CLS] and [SEP]
    (tiny / "tokenizer.json").write_text(json.dumps(tokenizer))
    assert np.linalg.norm(load_encoder(tiny, "cpu", "fp32").encode(["", "sofa"]), axis=1) == pytest.approx(1, abs=1e-5)


def test_equal_texts_are_computed_once_and_progress_adds_up(packaged, monkeypatch):
    batches = count_rows(packaged, monkeypatch)
    done: list[int] = []
    vectors = packaged.encode(["sofa", "lamp", "sofa", "sofa ", "rug", "lamp"], progress=done.append)
    assert sum(batches) == 3
    assert sum(done) == 6
    np.testing.assert_array_equal(vectors[[2, 3, 5]], vectors[[0, 0, 1]])
    np.testing.assert_allclose(vectors[[0, 1, 4]], packaged.encode(["sofa", "lamp", "rug"]), atol=1e-5)


def test_rows_come_in_the_order_of_the_texts_whatever_their_length(tiny_folder):
    encoder = load_encoder(tiny_folder, "cpu", "fp32", token_budget=64)
    texts = [" ".join(["oak"] * (number * 7 % 30)) + f" {number}" for number in range(40)]
    one_by_one = np.concatenate([encoder.encode([text]) for text in texts])
    np.testing.assert_allclose(encoder.encode(texts), one_by_one, atol=1e-5)


def test_the_same_list_gives_the_same_bits(packaged):
    np.testing.assert_array_equal(packaged.encode(TEXTS), packaged.encode(TEXTS))


def test_a_text_alone_and_in_company_is_nearly_the_same_vector(packaged):
    together, alone = packaged.encode(TEXTS), np.concatenate([packaged.encode([text]) for text in TEXTS])
    np.testing.assert_allclose(together, alone, atol=1e-6)
    assert (as_stored(together) == as_stored(alone)).mean() > 0.99


def test_threads_may_share_an_encoder(tiny_folder):
    encoder = load_encoder(tiny_folder, "cpu", "fp32")
    expected = encoder.encode(TEXTS)
    with ThreadPoolExecutor(8) as pool:
        for vectors in pool.map(lambda _: encoder.encode(TEXTS), range(40)):
            np.testing.assert_array_equal(vectors, expected)


def test_loading_and_encoding_leave_torch_threads_of_the_caller_alone(tiny_folder):
    import torch

    before = torch.get_num_threads()
    load_encoder(tiny_folder, "cpu", "fp32", threads=1).encode(TEXTS)
    assert torch.get_num_threads() == before


@pytest.mark.parametrize(("threads", "each"), [(2, 1), (16, 2)])
def test_workers_share_the_threads_instead_of_each_taking_all(tiny_folder, threads, each):
    import torch

    encoder = load_encoder(tiny_folder, "cpu", "fp32", threads=threads)
    assert encoder._runner._pool.submit(torch.get_num_threads).result() == each


@pytest.mark.parametrize(("texts", "says"), [("sofa", "list of texts"), (["sofa", None], "Text 1 of 2 is None")])
def test_what_is_no_list_of_texts_is_refused(packaged, texts, says):
    with pytest.raises(EncodingError, match=says):
        packaged.encode(texts)


def test_a_vector_that_is_not_finite_names_its_text(tiny_folder):
    import torch

    encoder = load_encoder(tiny_folder, "cpu", "fp32")
    token = int(encoder._tokenizer.ids(["walnut"])[0][1])
    with torch.no_grad():
        encoder._runner._model.words[token] = float("nan")
    with pytest.raises(EncodingError, match=r"text 3 of 4 \('walnut'\)"):
        encoder.encode(["sofa", "sofa", "a much longer text about lamps", "walnut"])


def test_loading_is_silent_and_logs_its_reason(tiny_folder, capfd, caplog):
    with caplog.at_level(logging.INFO, logger="embedders.encoder"):
        load_encoder(tiny_folder, "cpu", "fp32")
    assert "fp32 was asked for" in caplog.text
    captured = capfd.readouterr()
    assert captured.out == ""
    assert "%|" not in captured.err
    assert "LOAD REPORT" not in captured.err


def test_import_fingerprint_and_token_counts_need_no_torch():
    code = (
        "import sys; from embedders.encoder import TokenCounter, load_encoder, model_fingerprint;"
        "model_fingerprint(); assert TokenCounter().count(['green sofa']) == [4];"
        "print([name for name in ('torch', 'transformers', 'sentence_transformers', 'feast') if name in sys.modules])"
    )
    root = Path(encoder_module.__file__).parents[1]
    run = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_token_counts_are_what_the_model_reads():
    assert TokenCounter().count(["", "green sofa", "sofa " * 1000, "  sofa\ud800"]) == [2, 4, 256, 3]
    assert TokenCounter(max_length=16, prompt="query: ").count(["sofa", "sofa " * 100]) == [5, 16]


@pytest.mark.parametrize("max_length", [0, 2, 65])
def test_max_length_must_be_one_that_the_model_can_read(tiny_folder, max_length):
    with pytest.raises(ModelFolderError, match="between 3 and 64"):
        load_encoder(tiny_folder, "cpu", "fp32", max_length=max_length)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"device": "tpu"}, "allowed are auto, cpu, cuda"),
        ({"precision": "fp8"}, "allowed are auto, fp32, bf16"),
        ({"threads": 0}, "at least 1"),
        ({"token_budget": 0}, "at least 1"),
    ],
)
def test_unknown_options_are_refused(tiny_folder, options, says):
    with pytest.raises(UsageError, match=says):
        load_encoder(tiny_folder, **options)


def test_cuda_that_is_not_there_names_what_is(tiny_folder, monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UsageError, match=r"this machine offers cpu \(\d+ processors"):
        load_encoder(tiny_folder, device="cuda")


@pytest.mark.parametrize(("has_bf16", "precision"), [(True, "bf16"), (False, "fp32")])
def test_precision_follows_the_processor_and_says_why(monkeypatch, has_bf16, precision):
    monkeypatch.setattr(recipe, "processor_has_bf16", lambda: has_bf16)
    chosen = recipe.choose_recipe(device="cpu")
    assert chosen.precision == precision
    assert f"{precision}: the processor has" in chosen.reason
    assert EncodingRecipe.from_json(json.loads(json.dumps(chosen.to_json()))) == chosen


def test_threads_follow_omp_num_threads(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert recipe.choose_recipe(device="cpu").threads == 1
    assert recipe.choose_recipe(device="cpu", threads=3).threads == 3


def test_as_stored_is_stable_and_hardly_turns_a_vector():
    vectors = np.random.default_rng(0).normal(size=(50, 384)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    stored = as_stored(vectors)
    assert stored.dtype == np.float32
    np.testing.assert_array_equal(as_stored(stored), stored)
    np.testing.assert_array_equal(stored.astype(np.float16).astype(np.float32), stored)
    assert np.linalg.norm(stored, axis=1) == pytest.approx(1, abs=1e-3)
    assert ((stored * vectors).sum(axis=1) / np.linalg.norm(stored, axis=1)).min() > 1 - 1e-6


class WordTokenizer:
    """One token a word, for the batching alone."""

    pad_id = 7

    def ids(self, texts):
        return [np.full(len(text.split()), 1, dtype=np.int64) for text in texts]


@settings(max_examples=60, deadline=None)
@given(lengths=st.lists(st.integers(0, 40), max_size=200), budget=st.integers(1, 200))
def test_batches_hold_each_text_once_within_the_budget(lengths, budget):
    seen: list[int] = []
    for batch in token_batches(WordTokenizer(), ["oak " * length for length in lengths], budget):
        assert batch.ids.shape == batch.mask.shape == (len(batch.rows), max(1, max(lengths[row] for row in batch.rows)))
        assert batch.ids.size <= budget or len(batch.rows) == 1
        assert batch.mask.sum(axis=1).tolist() == [max(1, lengths[row]) for row in batch.rows]
        assert (batch.ids == 1).sum(axis=1).tolist() == [lengths[row] for row in batch.rows]
        seen.extend(batch.rows.tolist())
    assert sorted(seen) == list(range(len(lengths)))


def test_batches_cross_windows_in_order():
    batches = list(token_batches(WordTokenizer(), ["oak"] * 5000, 1000))
    assert np.concatenate([batch.rows for batch in batches]).tolist() == list(range(5000))


def test_prefetch_keeps_order_passes_errors_and_ends_its_thread():
    def failing():
        yield 1
        raise ValueError("broken window")

    assert list(prefetch(iter(range(100)), depth=2)) == list(range(100))
    with pytest.raises(ValueError, match="broken window"):
        list(prefetch(failing(), depth=2))
    stopped_early = prefetch(iter(range(10**9)), depth=2)
    assert next(stopped_early) == 0
    stopped_early.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "encoder-prefetch"]


def test_cuda_agrees_with_the_processor(packaged):
    import torch

    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    on_device = load_encoder(device="cuda")
    texts = TEXTS + [f"{text} {number}" for text in TEXTS for number in range(500)]
    assert on_device.fingerprint == packaged.fingerprint
    assert (on_device.encode(texts)[:6] * packaged.encode(TEXTS)).sum(axis=1).min() >= 0.999
