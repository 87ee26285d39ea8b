"""Query vectors: the tower that a space accepts, loaded when the first text needs it, and the cache before it."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from feature_repo.board_text import Board, board_text
from feature_repo.errors import PinfeatherError
from feature_repo.text import canonical_query
from materialize.spaces import Space
from serving_client.answers import Embeddings
from serving_client.degraded import UnavailableError
from serving_client.publications.parts import Part
from serving_client.queries.micro_batch import Encode, Vector
from serving_client.queries.query_cache import QueryCache

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
        self._loaded: dict[tuple[str, str], Part[Encoder]] = {}
        """By folder and fingerprint."""
        self._lock = threading.Lock()

    def embed_queries(self, space: Space, queries: Sequence[str]) -> Embeddings:
        """Vectors of ``queries`` in their canonical form; an empty query has none."""
        return self._embed(space, [canonical_query(query) for query in queries])

    def embed_boards(self, space: Space, boards: Sequence[Board]) -> Embeddings:
        """Vectors of boards, whose texts :func:`feature_repo.board_text.board_text` makes, by the query tower."""
        return self._embed(space, [board_text(board) for board in boards], tuple(board.title for board in boards))

    def fingerprint(self, space: Space) -> str:
        """Of the tower that makes the query vectors of ``space`` here.

        :raises PinfeatherError: if the space does not accept it.
        """
        fingerprint = self._fitted(space, self._given).fingerprint if self._given else space.query_fingerprint
        space.check_query_tower(fingerprint)
        return fingerprint

    def _embed(self, space: Space, texts: Sequence[str], ids: tuple[str, ...] | None = None) -> Embeddings:
        fingerprint = self.fingerprint(space)
        vectors = np.full((len(texts), space.dimension), np.nan, dtype=np.float32)
        known = self.cache.vectors(fingerprint, [text for text in texts if text], partial(self._encode, space))
        for row, text in zip(vectors, texts, strict=True):
            if text:
                row[:] = known[text]
        found = np.array([bool(text) for text in texts], dtype=np.bool_)
        return Embeddings(tuple(texts) if ids is None else ids, vectors, found, space.name, fingerprint)

    def _encode(self, space: Space) -> Encode:
        """What makes the vectors of queries to ``space``, its model loaded.

        :raises UnavailableError: if that cannot be; it is tried again a little later.
        """
        from embedders.encoder import EncodingError, as_stored

        try:
            encoder = self._encoder(space)
        except PinfeatherError as error:
            raise UnavailableError(
                f"Queries to space {space.name} cannot be embedded: {error}", "no_embedding"
            ) from error

        def encode(texts: list[str]) -> Vector:
            try:
                return as_stored(encoder.encode(texts)).astype(np.float16)  # half the bytes, and loses nothing more
            except Exception as error:
                if len(texts) > 1:
                    raise  # each is tried alone
                tower = f"The query tower of space {space.name}"
                if isinstance(error, EncodingError):  # says which text, and errors end up in logs
                    raise EncodingError(f"{tower} gave no vector for a query of {len(texts[0])} characters.") from None
                raise UnavailableError(f"{tower} failed ({type(error).__name__}).", "no_embedding") from error

        return encode

    def _encoder(self, space: Space) -> Encoder:
        if self._given is not None:
            return self._fitted(space, self._given)
        wanted = space.query_model or space.model, space.whole_query_fingerprint
        with self._lock:
            if wanted not in self._loaded:
                self._loaded[wanted] = Part(f"The query tower {wanted[0]}", partial(self._load, *wanted))
            part = self._loaded[wanted]
        return self._fitted(space, part.get())

    def _load(self, model: str, fingerprint: str) -> Encoder:
        from embedders.encoder import load_encoder

        return load_encoder(model, device=self.device, expected_fingerprint=fingerprint, few=True)

    @staticmethod
    def _fitted(space: Space, encoder: Encoder) -> Encoder:
        from materialize.encoders import fitted_query

        return fitted_query(space, encoder)

    def keep_only(self, spaces: Sequence[Space]) -> None:
        """Let go of the models, and of the vectors of every model, that none of ``spaces`` takes."""
        models = {space.whole_query_fingerprint for space in spaces}
        with self._lock:
            self._loaded = {name: each for name, each in self._loaded.items() if name[1] in models}
        self.cache.keep_only({fingerprint for space in spaces for fingerprint in space.query_towers})
