"""The quality gate: what a model says when it fails is flagged with the reason, what it sees is not."""

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedders.captions.gate import QualityGate
from feature_repo.screening import Screening

GATE = QualityGate(Screening())

GOOD = [
    "a red lamp",
    "two cats sleeping on a couch",
    "a man and a woman standing in front of a very large very old building",
    "a woman holding a sign that says i can do it",
    "a close up of a person holding a glass",
    "the hubble deep field with many galaxies in the sky",
    "a sign that asks visitors not to feed the birds",
    "An assistant helps a customer in a shoe store",
    "a boy saying sorry to his sister",
    "black and white photo of a man with a camera on a tripod",
    "a bowl of rice, a bowl of beans and a bowl of soup on a wooden table",
]
BAD = [
    ("", "empty"),
    ("  \u200b…!", "empty"),
    ("I cannot describe this image.", "refused"),
    ("I’m sorry, but I can't help with that", "refused"),
    ("I am unable to view images", "refused"),
    ("As an AI language model, I do not have eyes", "refused"),
    ("Please provide the image you would like me to describe", "refused"),
    ("There is no image provided in your message", "refused"),
    ("I'm not able to identify people in pictures", "refused"),
    ("a dog [unused12] on grass", "special tokens"),
    ("<image> a dog on grass", "special tokens"),
    ("a dog on grass <|im_end|>", "special tokens"),
    ("##ozbling solomon magnum", "special tokens"),
    ("cat cat cat", "repetitive"),
    ("a man in a hat a man in a hat a man in a hat", "repetitive"),
    ("the dog the cat the dog the cat the dog the cat the dog dog the", "repetitive"),
    ("cat", "too short"),
    (" ".join(f"word{number}" for number in range(90)), "too long"),
    ("ein Hund sitzt auf der Wiese und spielt mit einem Ball", "language de"),
    ("собака играет с мячом на траве", "language ru"),
    ("a poster that says write to anna@example.org", "mail address"),
]


@pytest.mark.parametrize("caption", GOOD)
def test_good(caption):
    assert GATE.reason(caption) is None


@pytest.mark.parametrize(("caption", "reason"), BAD)
def test_flagged(caption, reason):
    assert GATE.reason(caption) == reason


def test_another_language_or_any():
    german = "ein Hund sitzt auf der Wiese und spielt mit einem Ball"
    assert QualityGate(Screening(), "de").reason(german) is None
    assert QualityGate(Screening(), None).reason(german) is None
    assert QualityGate(Screening(), "de").fingerprint != GATE.fingerprint


def test_captions_that_people_wrote(shared_data):
    """The gate may be wrong about one in two hundred, and knows another language in nine of ten."""
    table = pq.read_table(shared_data / "multi30k" / "task1_translations.parquet", columns=["en", "de", "fr"])
    texts = table.slice(0, 600).to_pydict()
    flagged = {text: reason for text in texts["en"] if (reason := GATE.reason(text))}
    assert len(flagged) <= len(texts["en"]) / 200, flagged
    for lang in ("de", "fr"):
        assert sum(GATE.reason(text) == f"language {lang}" for text in texts[lang]) > 0.9 * len(texts[lang])


@given(st.text(max_size=300))
def test_any_text_has_an_answer_that_does_not_change(text):
    reason = GATE.reason(text)
    assert reason is None or reason
    assert GATE.reason(text) == reason
    assert GATE.reason(f"  {text}\n") == reason
