"""A plain BERT encoder in evaluation, in numpy: a query of a few words has its vector sooner than torch is imported.

The same sums as ``BertModel`` of transformers (Devlin et al., "BERT", 2019) in float32. Texts lie one after another,
without padding: the linear layers see the rows of all texts at once, attention those of one text. A query is a handful
of rows, so its time is that of reading the weights once: they are kept as [in, out], which is how the product reads
them, and as one product for query, key and value.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from embedders.bert_files import LINEAR, NORMS, Config, Tensors, read_bert
from embedders.projection import Matrix
from embedders.tower_folder import AnyModel

Pair = tuple[Matrix, Matrix]
"""Weight and bias."""
Ints = NDArray[np.int64]

_ROWS_AT_ONCE = 4
"""Rows come in multiples of it, as OpenBLAS computes them: it is slower with 7 rows than with 8."""
_BLOCK_ROWS = 32
"""Rows of which element-wise sums are made together: of 1,536 columns they stay in a processor's own cache."""


@dataclass(frozen=True, eq=False)
class _Layer:
    qkv: Pair
    attended: Pair
    attended_norm: Pair
    wide: Pair
    narrow: Pair
    norm: Pair

    @classmethod
    def of(cls, number: int, tensors: Tensors, heads: int) -> _Layer:
        """Takes its tensors out of ``tensors``, so that weights are in memory once."""

        def taken(name: str) -> Pair:
            full = f"encoder.layer.{number}.{name}"
            return tensors.pop(f"{full}.weight").T, tensors.pop(f"{full}.bias")

        query, key, value, attended, wide, narrow = map(taken, LINEAR)
        attended_norm, norm = map(taken, NORMS)
        # Queries are scaled here once and not at every product with keys: by the root of a head's width.
        scale = np.float32(1 / math.sqrt(len(query[1]) / heads))
        qkv = (
            np.concatenate([query[0] * scale, key[0], value[0]], axis=1),
            np.concatenate([query[1] * scale, key[1], value[1]]),
        )
        return cls(_ordered(qkv), _ordered(attended), attended_norm, _ordered(wide), _ordered(narrow), norm)


class PlainBert:
    """Token vectors of texts; made by :meth:`read`. Threads may share it."""

    def __init__(self, config: Config, tensors: Tensors) -> None:
        self.heads: int = config["num_attention_heads"]
        self.epsilon = np.float32(config.get("layer_norm_eps", 1e-12))
        self.words = tensors.pop("embeddings.word_embeddings.weight")
        kind = tensors.pop("embeddings.token_type_embeddings.weight")[0]  # every token is of the first type
        self.positions = tensors.pop("embeddings.position_embeddings.weight") + kind
        self.norm: Pair = (tensors.pop("embeddings.LayerNorm.weight"), tensors.pop("embeddings.LayerNorm.bias"))
        self.layers = [_Layer.of(number, tensors, self.heads) for number in range(config["num_hidden_layers"])]
        self._widths = (3 * self.words.shape[1], config["intermediate_size"], self.words.shape[1])
        self._mean = np.full(self.words.shape[1], 1 / self.words.shape[1], np.float32)

    @classmethod
    def read(cls, folder: AnyModel) -> PlainBert | None:
        """The model in ``folder``, what was trained on top of it added; None for what is not plain BERT.

        :raises ModelFolderError: if the adapter of a tower cannot be read.
        """
        found = read_bert(folder)
        return cls(*found) if found else None

    def __call__(self, ids: Ints, lengths: Ints, firsts: bool = False) -> Matrix:
        """Token vectors, float32 [tokens, hidden], of the ``ids`` [tokens] of texts that have ``lengths`` [texts].

        :param firsts: only those of each text's first token, [texts, hidden]: the last layer computes no others.
        """
        starts, groups = np.cumsum(lengths) - lengths, _groups(lengths)
        places = np.arange(len(ids)) - np.repeat(starts, lengths)
        spare = np.zeros(-len(ids) % _ROWS_AT_ONCE, np.int64)  # rows of some token or other, which nobody reads
        hidden = self.words[np.concatenate([ids, spare])]
        hidden += self.positions[np.concatenate([places, spare])]
        self._normalise(hidden, self.norm)
        # One place each for all layers: memory that was just used is in the processor's cache.
        qkv, wide, narrow = (np.empty((len(hidden), width), np.float32) for width in self._widths)
        for layer in self.layers:
            read = self._attend(_linear(hidden, layer.qkv, qkv), groups)
            if firsts and layer is self.layers[-1]:
                read, hidden = read[starts], hidden[starts]
            hidden += _linear(read, layer.attended, narrow)
            self._normalise(hidden, layer.attended_norm)
            between = _linear(hidden, layer.wide, wide)
            gelu(between)
            hidden += _linear(between, layer.narrow, narrow)
            self._normalise(hidden, layer.norm)
        return hidden if firsts else hidden[: len(ids)]

    def _attend(self, qkv: Matrix, groups: list[tuple[int, int, int]]) -> Matrix:
        """softmax(Q K' / sqrt(d)) V [tokens, hidden] of rows that hold scaled Q, K and V side by side."""
        read = np.zeros((len(qkv), qkv.shape[1] // 3), np.float32)
        for start, texts, length in groups:
            part = slice(start, start + texts * length)
            split = qkv[part].reshape(texts, length, 3, self.heads, -1).transpose(2, 0, 3, 1, 4)
            weights = split[0] @ split[1].swapaxes(-1, -2)  # [texts, heads, length, length]
            weights -= weights.max(axis=-1, keepdims=True)
            np.exp(weights, out=weights)
            weights /= weights.sum(axis=-1, keepdims=True)
            place = read[part].reshape(texts, length, self.heads, -1).transpose(0, 2, 1, 3)
            np.matmul(weights, split[2], out=place)
        return read

    def _normalise(self, rows: Matrix, norm: Pair) -> None:
        """Replace x by (x - mean) / sqrt(variance + epsilon) * gain + bias: Ba et al., "Layer normalization", 2016."""
        gain, bias = norm
        for block in _blocks(rows):
            block -= (block @ self._mean)[:, None]
            variance = np.vecdot(block, block) * self._mean[0]
            block *= (1 / np.sqrt(variance + self.epsilon))[:, None]
            block *= gain
            block += bias


_SPAN = np.float32(0.3275911 / math.sqrt(2))
_SERIES = tuple(np.float32(each / 2) for each in (1.061405429, -1.453152027, 1.421413741, -0.284496736, 0.254829592))


def gelu(rows: Matrix) -> None:
    """Replace each x by x times the normal distribution function of x: Hendrycks and Gimpel, "GELUs", 2016.

    With q(a) = erfc(a / sqrt(2)) / 2 it is max(x, 0) - |x| q(|x|). erfc(z) is (a1 t + ... + a5 t^5) exp(-z^2) with
    t = 1 / (1 + 0.3275911 z), formula 7.1.26 of Abramowitz and Stegun, "Handbook of mathematical functions", 1964; its
    error is below 1.5e-7, that of the result below 5e-7. scipy's erf is slower, and slow to import.
    """
    for block in _blocks(rows):
        size = np.abs(block)
        t = size * _SPAN
        t += np.float32(1)
        np.reciprocal(t, out=t)
        tail = t * _SERIES[0]
        for coefficient in _SERIES[1:]:
            tail += coefficient
            tail *= t
        np.multiply(size, size, out=t)
        t *= np.float32(-0.5)
        np.exp(t, out=t)
        tail *= t
        tail *= size
        np.maximum(block, np.float32(0), out=block)
        block -= tail


def _blocks(rows: Matrix) -> Iterator[Matrix]:
    """Views of a few rows each."""
    for start in range(0, len(rows), _BLOCK_ROWS):
        yield rows[start : start + _BLOCK_ROWS]


def _linear(rows: Matrix, layer: Pair, place: Matrix) -> Matrix:
    """Computed in the first rows of ``place``."""
    found = np.matmul(rows, layer[0], out=place[: len(rows)])
    found += layer[1]
    return found


def _ordered(layer: Pair) -> Pair:
    return np.ascontiguousarray(layer[0]), layer[1]


def _groups(lengths: Ints) -> list[tuple[int, int, int]]:
    """First row, number of texts and their length, for each run of texts of one length."""
    bounds = np.flatnonzero(np.diff(lengths, prepend=-1, append=-1))
    groups: list[tuple[int, int, int]] = []
    start = 0
    for first, end in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
        length = int(lengths[first])
        groups.append((start, end - first, length))
        start += (end - first) * length
    return groups
