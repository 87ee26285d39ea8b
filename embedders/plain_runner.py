"""Token batches through a plain BERT in numpy: a lone batch in the caller's own thread, several in a few workers."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from embedders.plain_bert import Ints, PlainBert
from embedders.projection import Matrix, Projection
from embedders.recipe import MAX_WORKERS
from embedders.runners import Block, in_pool
from embedders.tokens import TokenBatch

_LEAST_LENGTH = np.float32(1e-12)
"""Vectors that are shorter stay so, as in torch.nn.functional.normalize."""


@dataclass(frozen=True, eq=False)
class PlainHead:
    """What makes one vector of a text's token vectors; as :class:`embedders.runners.Head`, in numpy."""

    pooling: str
    """``mean`` or ``cls``."""
    weight: Matrix | None = None
    """[hidden, dimension]"""
    bias: Matrix | None = None
    """[dimension]"""
    tanh: bool = False

    @classmethod
    def of(cls, pooling: str, projection: Projection | None) -> PlainHead:
        """The head of a model that pools so and has this last layer, or none."""
        if projection is None:
            return cls(pooling)
        return cls(pooling, np.ascontiguousarray(projection.weight.T), projection.bias, projection.tanh)

    def __call__(self, hidden: Matrix, lengths: Ints) -> Matrix:
        """Unit vectors, float32 [texts, dimension].

        :param hidden: token vectors of all texts [tokens, hidden]; where pooling is ``cls``, of their first tokens.
        """
        vectors = hidden
        if self.pooling == "mean":
            vectors = np.add.reduceat(hidden, np.cumsum(lengths) - lengths)
            vectors /= lengths[:, None]
        if self.weight is not None:
            vectors = vectors @ self.weight
            if self.bias is not None:
                vectors += self.bias
            if self.tanh:
                np.tanh(vectors, out=vectors)
        return vectors / np.maximum(np.sqrt(np.vecdot(vectors, vectors)), _LEAST_LENGTH)[:, None]


class PlainRunner:
    """Computes batches with ``threads`` workers at most.

    numpy's BLAS may start threads of its own for the few products that are left to it, and for all of them where
    :mod:`embedders.packed_weights` finds no kernel: see OPENBLAS_NUM_THREADS, which `pinfeather serve` sets.
    """

    def __init__(self, model: PlainBert, head: PlainHead, threads: int) -> None:
        self._model, self._head = model, head
        self._workers = min(threads, MAX_WORKERS)
        self._pool = ThreadPoolExecutor(self._workers, thread_name_prefix="encoder")

    def run(self, batches: Iterator[TokenBatch]) -> Generator[Block, None, None]:
        """The vectors of each batch, in the order of the batches."""
        first, second = next(batches, None), next(batches, None)
        if second is None:
            if first is not None:
                yield first.rows, self._compute(first)
            return
        assert first is not None
        yield from in_pool(self._pool, self._workers, self._compute, chain((first, second), batches))

    def _compute(self, batch: TokenBatch) -> NDArray[np.float32]:
        lengths = batch.mask.sum(axis=1)
        ids = batch.ids[batch.mask.astype(np.bool_)]
        with np.errstate(over="ignore", invalid="ignore"):  # whoever asked looks whether vectors are finite
            return self._head(self._model(ids, lengths, firsts=self._head.pooling == "cls"), lengths)
