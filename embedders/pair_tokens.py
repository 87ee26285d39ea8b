"""Query and pin text as one sequence of tokens, and such sequences as padded batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from embedders.backbone import quiet_transformers
from embedders.training_base import FETCH, TeacherError, base_source


class PairTokenizer:
    """Query and pin text as one sequence, as the backbone expects it.

    Encoders: ``[CLS] query [SEP] text [SEP]`` with token types. Decoders: ``query: ... pin: ...`` and the end token.
    The pin text is cut first; a query keeps at least half of the length. A tokenizer without a padding token pads with
    its end token, which the mask hides.
    """

    def __init__(self, base: str, pooling: str, max_length: int) -> None:
        from transformers import AutoTokenizer

        with quiet_transformers():
            try:
                self._tokenizer = AutoTokenizer.from_pretrained(
                    base_source(base), local_files_only=True, trust_remote_code=False, use_fast=True
                )
            except (OSError, ValueError, KeyError, ImportError) as error:
                raise TeacherError(f"The tokenizer of {base} cannot be loaded: {error}. {FETCH}") from error
        self._decoder, self._max_length = pooling == "last", max_length
        tokenizer = self._tokenizer
        pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
        self.pad_id = 0 if pad is None else int(pad)

    def __call__(self, queries: Sequence[str], texts: Sequence[str]) -> list[tuple[NDArray[np.int64], int]]:
        """Token ids of each pair, and how many of them come before the pin text."""
        if not len(queries):
            return []
        queries = [_short(query, self._max_length // 2) for query in queries]
        texts = [_short(text, self._max_length) for text in texts]
        if self._decoder:
            return self._prompted(queries, texts)
        encoded = self._tokenizer(
            list(queries), list(texts), truncation="longest_first", max_length=self._max_length, add_special_tokens=True
        )
        pairs = []
        for row, ids in enumerate(encoded["input_ids"]):
            sequence = encoded.sequence_ids(row)
            first = next((place for place, part in enumerate(sequence) if part == 1), len(ids))
            pairs.append((np.array(ids, np.int64), first))
        return pairs

    def _prompted(self, queries: Sequence[str], texts: Sequence[str]) -> list[tuple[NDArray[np.int64], int]]:
        tokenizer, half = self._tokenizer, self._max_length // 2
        end = [tokenizer.eos_token_id] if tokenizer.eos_token_id is not None else []
        start = tokenizer([f"query: {query}" for query in queries], truncation=True, max_length=half)["input_ids"]
        rest = tokenizer([f" pin: {text}" for text in texts], add_special_tokens=False)["input_ids"]
        pairs = []
        for before, after in zip(start, rest, strict=True):
            before = before[: half - len(end)] if before and end and before[-1] == end[0] else before
            if before and end and before[-1] == end[0]:
                before = before[:-1]
            ids = [*before, *after[: self._max_length - len(before) - len(end)], *end]
            pairs.append((np.array(ids, np.int64), len(before)))
        return pairs


@dataclass(frozen=True, eq=False)
class PairBatch:
    """Padded pairs: ``ids``, ``mask`` and ``types`` (0 query, 1 pin text), each [b, longest] int64."""

    rows: NDArray[np.intp]
    ids: NDArray[np.int64]
    mask: NDArray[np.int64]
    types: NDArray[np.int64]

    @classmethod
    def of(cls, rows: NDArray[np.intp], pairs: Sequence[tuple[NDArray[np.int64], int]], pad_id: int) -> PairBatch:
        """The batch of ``rows`` of ``pairs``, padded on the right."""
        width = max(len(pairs[row][0]) for row in rows)
        ids = np.full((len(rows), width), pad_id, np.int64)
        mask, types = np.zeros_like(ids), np.zeros_like(ids)
        for place, row in enumerate(rows):
            tokens, first = pairs[row]
            ids[place, : len(tokens)] = tokens
            mask[place, : len(tokens)] = 1
            types[place, first : len(tokens)] = 1
        return cls(rows, ids, mask, types)

    @property
    def tokens(self) -> int:
        """Tokens without padding."""
        return int(self.mask.sum())


def _short(text: str, tokens: int) -> str:
    """The characters that can matter: a tokenizer's time grows with what it then cuts off."""
    return text[: tokens * 12]
