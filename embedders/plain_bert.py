"""A plain BERT encoder in evaluation, in numpy: a query of a few words has its vector sooner than torch is imported.

The same sums as ``BertModel`` of transformers (Devlin et al., "BERT", 2019) in float32. Texts lie one after another,
without padding: the linear layers see the rows of all texts at once, attention those of one text. A query is a handful
of rows, so its time is that of reading the weights once: :mod:`embedders.packed_weights` keeps them in the order in
which they are read, those of query, key and value as one.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from embedders.bert_files import LINEAR, NORMS, Config, Tensors, read_bert
from embedders.packed_weights import Product, Rows, Weights, work_place
from embedders.projection import Matrix
from embedders.tower_folder import AnyModel

Pair = tuple[Matrix, Matrix]
"""Gain and bias."""
Linear = tuple[Product, Matrix]
"""Weight and bias."""
Ints = NDArray[np.int64]

_WEIGHTS = tuple(f"{name}.weight" for name in LINEAR)
_BLOCK_ROWS = 32
"""Rows of which element-wise sums are made together: of 1,536 columns they stay in a processor's own cache."""


@dataclass(frozen=True, eq=False)
class _Layer:
    qkv: Linear
    attended: Linear
    attended_norm: Pair
    wide: Linear
    narrow: Linear
    norm: Pair

    @classmethod
    def of(cls, number: int, tensors: Tensors, heads: int, weights: Weights) -> _Layer:
        """Takes its tensors out of ``tensors``, so that weights are in memory once."""

        def taken(name: str) -> Pair:
            full = f"encoder.layer.{number}.{name}"
            return tensors.pop(f"{full}.weight"), tensors.pop(f"{full}.bias")

        def kept(weight: Matrix, bias: Matrix) -> Linear:
            return weights.keep(weight), bias

        query, key, value, attended, wide, narrow = map(taken, LINEAR)
        attended_norm, norm = (_norm(*taken(name)) for name in NORMS)
        # Queries are scaled here once and not at every product with keys: by the root of a head's width.
        scale = np.float32(1 / math.sqrt(len(query[1]) / heads))
        qkv = (
            np.concatenate([query[0] * scale, key[0], value[0]]),
            np.concatenate([query[1] * scale, key[1], value[1]]),
        )
        return cls(kept(*qkv), kept(*attended), attended_norm, kept(*wide), kept(*narrow), norm)


class PlainBert:
    """Token vectors of texts; made by :meth:`read`. Threads may share it."""

    def __init__(self, config: Config, tensors: Tensors) -> None:
        self.heads: int = config["num_attention_heads"]
        self.words = tensors.pop("embeddings.word_embeddings.weight")
        kind = tensors.pop("embeddings.token_type_embeddings.weight")[0]  # every token is of the first type
        self.positions = tensors.pop("embeddings.position_embeddings.weight") + kind
        self.norm = _norm(tensors.pop("embeddings.LayerNorm.weight"), tensors.pop("embeddings.LayerNorm.bias"))
        weights = Weights(sum(each.size for name, each in tensors.items() if name.endswith(_WEIGHTS)))
        self.layers = [_Layer.of(number, tensors, self.heads, weights) for number in range(config["num_hidden_layers"])]
        self._width, self._between = self.words.shape[1], config["intermediate_size"]
        self._epsilon = np.float32(config.get("layer_norm_eps", 1e-12) * self._width)
        self._mean = np.full(self._width, 1 / self._width, np.float32)

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
        count, starts, groups = len(ids), np.cumsum(lengths) - lengths, _groups(lengths)
        # One place each for all layers: memory that was just used is in the processor's cache.
        hidden, read = Rows.zeros(count, self._width), Rows.zeros(count, self._width)
        qkv, wide, packed = Rows.zeros(count, 3 * self._width), Rows.zeros(count, self._between), work_place(count)
        rows = hidden.array[:count]
        np.add(self.words[ids], self.positions[np.arange(count) - np.repeat(starts, lengths)], out=rows)
        self._normalise(rows, self.norm)
        for layer in self.layers:
            _set(qkv, hidden, layer.qkv, count, packed)
            self._attend(qkv.array, read.array, groups)
            if firsts and layer is self.layers[-1]:
                count = len(starts)
                read, hidden, wide = _picked(read, starts), _picked(hidden, starts), Rows.zeros(count, self._between)
                rows = hidden.array[:count]
            _increase(hidden, read, layer.attended, count, packed)
            self._normalise(rows, layer.attended_norm)
            _set(wide, hidden, layer.wide, count, packed)
            gelu(wide.array[:count])
            _increase(hidden, wide, layer.narrow, count, packed)
            self._normalise(rows, layer.norm)
        return rows

    def _attend(self, qkv: Matrix, read: Matrix, groups: list[tuple[int, int, int]]) -> None:
        """softmax(Q K' / sqrt(d)) V, into ``read`` [tokens, hidden], of rows with scaled Q, K and V side by side."""
        for start, texts, length in groups:
            part = slice(start, start + texts * length)
            split = qkv[part].reshape(texts, length, 3, self.heads, -1).transpose(2, 0, 3, 1, 4)
            # Keys come first in memory: greatest and sum over them are sums of whole rows, which is faster.
            weights = np.empty((length, texts, self.heads, length), np.float32)
            np.matmul(split[1], split[0].swapaxes(-1, -2), out=weights.transpose(1, 2, 0, 3))
            weights -= np.maximum.reduce(weights)
            np.exp(weights, out=weights)
            weights /= np.add.reduce(weights)
            place = read[part].reshape(texts, length, self.heads, -1).transpose(0, 2, 1, 3)
            np.matmul(weights.transpose(1, 2, 3, 0), split[2], out=place)

    def _normalise(self, rows: Matrix, norm: Pair) -> None:
        """Replace x by (x - mean) / sqrt(variance + epsilon) * gain + bias: Ba et al., "Layer normalization", 2016.

        The variance is the square of the length divided by the width, whose root is in the gain (see :func:`_norm`).
        """
        gain, bias = norm
        for block in _blocks(rows):
            block -= np.dot(block, self._mean)[:, None]
            length = np.vecdot(block, block)
            length += self._epsilon
            np.sqrt(length, out=length)
            block /= length[:, None]
            block *= gain
            block += bias


_ODDS = tuple(
    np.float32(-each)
    for each in (
        3.61123010e-9,
        -2.66892727e-7,
        7.93821776e-6,
        -1.10480310e-4,
        -6.62600041e-5,
        7.26685670e-2,
        1.59576843,
    )
)


def gelu(rows: Matrix) -> None:
    """Replace each x by x times the normal distribution function of x: Hendrycks and Gimpel, "GELUs", 2016.

    It is x / (1 + exp(-o(x))), where o is the logarithm of the odds P(x) / P(-x), an odd function. ``_ODDS`` are the
    coefficients of -o(x) / x in powers of the square of x, highest first: fitted by linear programming, so that the
    largest error of the result is least (7e-8 up to 6.5; beyond, the result is 0 or x). With float32 it is below 7e-7.
    scipy's erf is slower, and slow to import.
    """
    with np.errstate(over="ignore"):  # exp of what is far below zero is infinite, and the result 0
        for block in _blocks(rows):
            square = block * block
            odds = square * _ODDS[0]
            for coefficient in _ODDS[1:-1]:
                odds += coefficient
                odds *= square
            odds += _ODDS[-1]
            odds *= block
            np.exp(odds, out=odds)
            odds += np.float32(1)
            block /= odds


def _blocks(rows: Matrix) -> Iterator[Matrix]:
    """Views of a few rows each."""
    for start in range(0, len(rows), _BLOCK_ROWS):
        yield rows[start : start + _BLOCK_ROWS]


def _set(place: Rows, rows: Rows, layer: Linear, count: int, packed: Rows) -> None:
    """Put the linear ``layer`` of ``rows`` into the first ``count`` rows of ``place``."""
    place.array[:count] = layer[1]
    layer[0].add(rows, place, packed)


def _increase(place: Rows, rows: Rows, layer: Linear, count: int, packed: Rows) -> None:
    """Add the linear ``layer`` of ``rows`` to the first ``count`` rows of ``place``."""
    place.array[:count] += layer[1]
    layer[0].add(rows, place, packed)


def _picked(rows: Rows, wanted: Ints) -> Rows:
    """Copies of the ``wanted`` rows."""
    picked = Rows.zeros(len(wanted), rows.array.shape[1])
    picked.array[: len(wanted)] = rows.array[wanted]
    return picked


def _norm(gain: Matrix, bias: Matrix) -> Pair:
    """A layer norm's tensors, the gain times the root of the width, as :meth:`PlainBert._normalise` takes them."""
    return gain * np.float32(math.sqrt(len(gain))), bias


def _groups(lengths: Ints) -> list[tuple[int, int, int]]:
    """First row, number of texts and their length, for each run of texts of one length."""
    if len(lengths) == 1:
        return [(0, 1, int(lengths[0]))]
    bounds = np.flatnonzero(np.diff(lengths, prepend=-1, append=-1))
    groups: list[tuple[int, int, int]] = []
    start = 0
    for first, end in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
        length = int(lengths[first])
        groups.append((start, end - first, length))
        start += (end - first) * length
    return groups
