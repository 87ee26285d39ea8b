"""Query vectors: the tower that a space accepts, loaded when the first text needs it, and the cache before it."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from feature_repo.board_text import Board, board_text
from feature_repo.text import canonical_query
from materialize.spaces import Space
from serving_client.answers import Embeddings
from serving_client.query_cache import QueryCache

if TYPE_CHECKING:
    from embedders.encoder import Encoder


class Towers:
    """Encoders by fingerprint, and the query cache that they share.

    :param encoder: used instead of loading the space's own; spaces that do not accept it are refused.
    """

    def __init__(self, device: str, cache: QueryCache, encoder: Encoder | None = None) -> None:
        self.device = device
        self.cache = cache
        self._given = encoder
        self._loaded: dict[str, Encoder] = {}
        self._loading = threading.Lock()

    def embed_queries(self, space: Space, queries: Sequence[str]) -> Embeddings:
        """Vectors of ``queries`` in their canonical form; an empty query has none."""
        return self._embed(space, [canonical_query(query) for query in queries])

    def embed_boards(self, space: Space, boards: Sequence[Board]) -> Embeddings:
        """Vectors of boards, whose texts :func:`feature_repo.board_text.board_text` makes, by the query tower."""
        return self._embed(space, [board_text(board) for board in boards], tuple(board.title for board in boards))

    def _embed(self, space: Space, texts: Sequence[str], ids: tuple[str, ...] | None = None) -> Embeddings:
        fingerprint = self._fitted(space, self._given).fingerprint if self._given else space.query_fingerprint
        space.check_query_tower(fingerprint)
        vectors = np.full((len(texts), space.dimension), np.nan, dtype=np.float32)
        known = self.cache.vectors(fingerprint, [text for text in texts if text], lambda new: self._encode(space, new))
        for row, text in zip(vectors, texts, strict=True):
            if text:
                row[:] = known[text]
        found = np.array([bool(text) for text in texts], dtype=np.bool_)
        return Embeddings(tuple(texts) if ids is None else ids, vectors, found, space.name, fingerprint)

    def _encode(self, space: Space, texts: list[str]) -> NDArray[np.float32]:
        from embedders.encoder import as_stored

        return as_stored(self._encoder(space).encode(texts))

    def _encoder(self, space: Space) -> Encoder:
        if self._given is not None:
            return self._fitted(space, self._given)
        with self._loading:
            fingerprint = space.whole_query_fingerprint
            encoder = self._loaded.get(fingerprint)
            if encoder is None:
                from embedders.encoder import load_encoder

                model = space.query_model or space.model
                encoder = load_encoder(model, device=self.device, expected_fingerprint=fingerprint)
                self._loaded[fingerprint] = encoder
            return self._fitted(space, encoder)

    @staticmethod
    def _fitted(space: Space, encoder: Encoder) -> Encoder:
        from materialize.encoders import fitted_query

        return fitted_query(space, encoder)

    def keep_only(self, spaces: Sequence[Space]) -> None:
        """Let go of the models, and of the vectors of every model, that none of ``spaces`` takes."""
        models = {space.whole_query_fingerprint for space in spaces}
        with self._loading:
            self._loaded = {name: each for name, each in self._loaded.items() if name in models}
        self.cache.keep_only({fingerprint for space in spaces for fingerprint in space.query_towers})
