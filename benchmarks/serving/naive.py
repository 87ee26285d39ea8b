"""What one would write without Pinfeather: Feast's ``get_online_features``, rank-bm25 per field, a head in torch.

It reads the same stored rows and gives the head as many inputs. Its BM25 knows the candidates alone, not the catalogue
(rank-bm25 has no statistics but those of the texts that it is given), so its scores are not the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedders.bundle import StudentBundle
from feature_repo.lexical import tokenize
from feature_repo.paths import RepoPaths
from materialize.definitions import open_feature_store

TEXTS = (
    "pin_text__title",
    "pin_text__description",
    "pin_captions__caption",
    "pin_link_text__link_title",
    "pin_board_titles__board_titles",
    "pin_engaged_queries__engaged_queries",
)
RATES = ("pin_relevance__click_rate", "pin_relevance__save_rate")
VECTOR = "pin_student_embedding__embedding"


class NaiveScorer:
    """Scores of a query and its candidates; ``seconds`` says how long each part took in all."""

    def __init__(self, paths: RepoPaths, bundle: StudentBundle) -> None:
        import torch

        self._store = open_feature_store(paths)
        self._torch = torch
        torch.set_num_threads(1)
        weights = torch.from_numpy(bundle.head.weights.T.copy())
        self._head = torch.nn.Linear(weights.shape[1], weights.shape[0])
        self._head.weight.data.copy_(weights)
        self._mean, self._scale = torch.from_numpy(bundle.head.mean), torch.from_numpy(bundle.head.scale)
        self.seconds: dict[str, float] = {"feast": 0.0, "words": 0.0, "head": 0.0}

    def score(self, query: str, query_vector: NDArray[np.float32], pin_ids: Sequence[str]) -> NDArray[np.float32]:
        """Probabilities of the five levels, [n, 5]."""
        with self._timed("feast"):
            rows = self._store.get_online_features(
                features=[name.replace("__", ":") for name in (*TEXTS, *RATES, VECTOR)],
                entity_rows=[{"pin_id": pin_id} for pin_id in pin_ids],
                full_feature_names=True,
            ).to_dict()
        with self._timed("words"):
            lexical = self._lexical(query, rows)
        with self._timed("head"):
            return self._levels(query_vector, rows, lexical)

    def features(self, names: Sequence[str], pin_ids: Sequence[str]) -> dict[str, Any]:
        """Features by name for each pin, as Feast gives them."""
        return self._store.get_online_features(
            features=list(names), entity_rows=[{"pin_id": pin_id} for pin_id in pin_ids], full_feature_names=True
        ).to_dict()

    def _lexical(self, query: str, rows: dict[str, Any]) -> list[NDArray[np.float64]]:
        from rank_bm25 import BM25Okapi

        asked = tokenize(query)
        columns = []
        for name in TEXTS:
            texts = [" ".join(value) if isinstance(value, list) else value or "" for value in rows[name]]
            split = [tokenize(text) for text in texts]
            columns.append(BM25Okapi(split).get_scores(asked) if any(split) else np.zeros(len(split)))
            columns.append(np.array([len(set(asked) & set(each)) / max(len(set(asked)), 1) for each in split]))
        return columns

    def _levels(
        self, query_vector: NDArray[np.float32], rows: dict[str, Any], lexical: list[NDArray[np.float64]]
    ) -> NDArray[np.float32]:
        torch = self._torch
        vectors = np.array([value or [0.0] * len(query_vector) for value in rows[VECTOR]], dtype=np.float32)
        rates = [np.array([value or 0.0 for value in rows[name]]) for name in RATES]
        scalars = np.column_stack([vectors @ query_vector, *lexical, *rates]).astype(np.float32)
        inputs = torch.zeros(len(vectors), len(self._mean))
        inputs[:, : scalars.shape[1]] = torch.from_numpy(scalars)
        inputs[:, -len(query_vector) :] = torch.from_numpy(vectors * query_vector)
        with torch.inference_mode():
            return torch.softmax(self._head((inputs - self._mean) * self._scale), dim=1).numpy()

    @contextmanager
    def _timed(self, part: str) -> Iterator[None]:
        start = perf_counter()
        yield
        self.seconds[part] += perf_counter() - start
