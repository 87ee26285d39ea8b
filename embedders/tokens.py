"""Texts to token ids, and token ids to batches of similar length. No torch: planning counts tokens without a model."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from embedders.model_files import ModelFolderError, read_json
from embedders.model_folder import PACKAGED
from embedders.tower_folder import AnyModel, open_model

CHARACTERS_PER_TOKEN = 50
"""A text is cut at ``max_length`` times this many characters before it is tokenised. English has 4 to 5 a token, so
only input that is hardly text (megabytes of blanks, endless words) can lose a token that would have been read."""

WINDOW = 2_048
"""Texts tokenised and sorted by length together: long enough to fill even batches, short enough to start early."""

_SURROGATES = re.compile("[\ud800-\udfff]")

Ids = NDArray[np.int64]


@dataclass(frozen=True)
class TokenBatch:
    """Texts of similar length, padded: ``rows`` [b] are positions in the call, ``ids`` and ``mask`` [b, longest]."""

    rows: NDArray[np.intp]
    ids: Ids
    mask: Ids


class TextTokenizer:
    """The tokenizer of a model folder with the truncation that its encoder uses.

    :raises ModelFolderError: if its file cannot be read, or has more tokens than the model has vectors for.
    """

    def __init__(self, folder: AnyModel) -> None:
        from tokenizers import Tokenizer

        self.max_length = folder.max_length
        self.pad_id = folder.pad_id
        file = folder.backbone.path / "tokenizer.json"
        try:
            self._tokenizer = Tokenizer.from_file(str(file))
        except Exception as error:  # tokenizers raises nothing narrower
            raise ModelFolderError(f"{file} cannot be read ({error}). Copy the model folder again.") from error
        # Added tokens that stand for pictures or masks may lie beyond: no usual text gives them.
        tokens = 1 + max(self._tokenizer.get_vocab(with_added_tokens=False).values(), default=-1)
        known = read_json(folder.backbone.path, "config.json").get("vocab_size")
        if isinstance(known, int) and tokens > known:
            raise ModelFolderError(
                f"{file} has ids up to {tokens - 1}, and config.json beside it says vocab_size {known}: they are of "
                "two models. Copy the model folder again."
            )
        self._tokenizer.no_padding()  # the file of MiniLM pads every text to 128
        self._tokenizer.enable_truncation(max_length=folder.max_length)

    def clean(self, text: str) -> str:
        """``text`` as the tokenizer can take it: stripped, at most the characters that matter, no lone surrogates."""
        cut = text.strip()[: self.max_length * CHARACTERS_PER_TOKEN]
        return cut if cut.isascii() else _SURROGATES.sub(" ", cut)

    def ids(self, texts: Sequence[str]) -> list[Ids]:
        """Token ids of cleaned texts, special tokens included, at most ``max_length`` each."""
        return [np.array(encoding.ids, dtype=np.int64) for encoding in self._tokenizer.encode_batch_fast(list(texts))]


class TokenCounter:
    """Counts the tokens that an encoder would read, without loading the model."""

    def __init__(self, model: str | Path = PACKAGED, max_length: int | None = None, prompt: str = "") -> None:
        folder = open_model(model, max_length)
        self._tokenizer = TextTokenizer(folder)
        self._prompt = prompt or folder.prompt

    def count(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text, after truncation and with special tokens, in the order given."""
        counts: list[int] = []
        for start in range(0, len(texts), WINDOW):
            cleaned = [self._tokenizer.clean(self._prompt + text) for text in texts[start : start + WINDOW]]
            counts.extend(len(ids) for ids in self._tokenizer.ids(cleaned))
        return counts


def token_batches(tokenizer: TextTokenizer, texts: Sequence[str], token_budget: int) -> Iterator[TokenBatch]:
    """Cleaned ``texts`` as batches of at most ``token_budget`` padded tokens (one text at least), lazily.

    Texts are sorted by length inside windows of :data:`WINDOW`, so the batches depend on the texts alone.
    """
    for start in range(0, len(texts), WINDOW):
        ids = tokenizer.ids(texts[start : start + WINDOW])
        lengths = np.array([max(1, len(row)) for row in ids])
        order = np.argsort(-lengths, kind="stable")
        taken = 0
        while taken < len(order):
            members = order[taken : taken + max(1, token_budget // int(lengths[order[taken]]))]
            yield _padded(members, start, ids, lengths, tokenizer.pad_id)
            taken += len(members)


def _padded(
    members: NDArray[np.intp], start: int, ids: list[Ids], lengths: NDArray[np.int64], pad_id: int
) -> TokenBatch:
    shape = (len(members), int(lengths[members[0]]))
    padded, mask = np.full(shape, pad_id, dtype=np.int64), np.zeros(shape, dtype=np.int64)
    for row, member in enumerate(members):
        padded[row, : len(ids[member])] = ids[member]
        mask[row, : lengths[member]] = 1  # a text without any token is one padding token, never a division by zero
    return TokenBatch(members + start, padded, mask)
