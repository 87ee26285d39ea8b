"""Searching the documents of a Feast view by vector, by words, or by both.

``distance`` is lower where nearer, as Feast's own reading of it wants (``feast.utils._distance_to_score``): 1 - cosine,
minus the dot product, or the L2 or L1 distance. ``text_rank`` lies between 0 and 1 and is higher where more fits. Both
at once are fused by reciprocal rank: Cormack, Clarke and Buettcher, "Reciprocal Rank Fusion outperforms Condorcet and
individual Rank Learning Methods", SIGIR 2009, with its constant 60.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import numpy.typing as npt

from .checks import check_query
from .conditions import Condition
from .errors import BadInputError, CollectionMissingError, missing
from .feast_filters import condition_of
from .feast_rows import FeastView, decoders, features_of, metric_named, stored_vector
from .feast_text import query_vector
from .feast_values import entity_key_of
from .layout import KeyValue, decode_key, feature_path, from_micros
from .points import DEFAULT_VECTOR, TEXT_VECTOR, CollectionSpec, DistanceName, FloatVector, Hit, Point
from .port import PayloadFields
from .session import StoreView

logger = logging.getLogger(__name__)

RRF_CONSTANT = 60
MIN_DEPTH = 100
"""Rows that each of the two searches of a hybrid one gives at least."""
PAGE = 1000
"""Rows read at once where another metric than the collection's is asked for."""


@dataclass(frozen=True)
class DocumentQuery:
    """What is looked for: a vector, words, or both."""

    embedding: Sequence[float] | None
    text: str | None
    limit: int
    metric: DistanceName
    condition: Condition | None = None

    @classmethod
    def of(
        cls,
        view: FeastView,
        embedding: Sequence[float] | None,
        text: str | None,
        limit: int,
        metric: str | None,
        filters: Any,
    ) -> DocumentQuery:
        """What Feast asks for; without a ``metric`` the view's own counts.

        :raises BadInputError: if the view cannot be searched or filtered like this.
        """
        if embedding is None and text is None:
            raise BadInputError("Give a vector (query), words (query_string), or both.")
        if limit < 1:
            raise BadInputError(f"top_k is at least 1, not {limit}.")
        if view.vector is None:
            raise BadInputError(
                f"The feature view {view.name} has no vector feature (vector_index=True), so it cannot be searched."
            )
        if text is not None and not view.texts:
            raise BadInputError(f"The feature view {view.name} has no feature of type String to search for words in.")
        asked = view.metric if metric is None else metric_named(metric, "distance_metric")
        return cls(embedding, text, limit, asked, None if filters is None else condition_of(view, filters))


@dataclass(frozen=True)
class Document:
    """A document that was found."""

    event_time: datetime
    entity: Mapping[str, KeyValue]
    key: Any
    """The same as Feast's ``EntityKeyProto``."""
    features: Mapping[str, Any]
    """Value protos."""
    distance: float | None
    """None if it has no vector, or none was looked for."""
    rank: float | None
    """None if no words were looked for, 0 if the search for them did not come upon this one."""


@dataclass
class _Found:
    point: Point | Hit
    distance: float | None = None
    rank: float | None = None


def find_documents(
    store: StoreView, view: FeastView, join_keys: Sequence[str], query: DocumentQuery, features: Sequence[str] | None
) -> list[Document]:
    """The best documents, best first; none if nothing was written yet.

    :param features: those that the documents come with, None for all.
    :raises BadInputError: if the query does not fit the view's vectors, or asks a space for words.
    """
    name = view.collection(store.release, join_keys)
    if query.text is not None and view.is_space(store.release):
        raise BadInputError(
            f"The rows of {view.name} lie in the space {name}, which holds vectors and no words: search by vector."
        )
    wanted = decoders(view, features)
    fields = ["key", "event_ts", *map(feature_path, wanted)]
    search = _Search(store, name, view, query)
    try:
        if query.text is None:
            near = search.nearest(query.limit, fields, view.vector.name in wanted)
            found = [_Found(hit, distance) for distance, hit in near]
        elif query.embedding is None:
            hits = search.by_words(query.limit, fields, view.vector.name in wanted)
            found = [_Found(hit, rank=_rank(hit.score)) for hit in hits]
        else:
            found = search.both(fields)
    except CollectionMissingError:  # made with the first row, where a vector's length is not declared
        return []
    documents = []
    for each in found:
        payload = each.point.payload
        entity = decode_key(payload["key"])
        values = features_of(view, each.point, wanted)
        key, when = entity_key_of(entity, view.keys), from_micros(payload["event_ts"])
        if key is None:
            continue
        documents.append(Document(when, entity, key, values, each.distance, each.rank))
    return documents


def _rank(score: float) -> float:
    """A BM25 score as a rank between 0 and 1, which Feast's users know from its Postgres store."""
    return score / (1 + score)


class _Search:
    def __init__(self, store: StoreView, name: str, view: FeastView, query: DocumentQuery) -> None:
        self.store, self.name, self.view, self.query = store, name, view, query

    def by_words(self, limit: int, fields: PayloadFields, with_vectors: bool) -> list[Hit]:
        """The documents that share words with the query, best first."""
        words = query_vector(self.query.text or "")
        if words is None:
            return []
        return self.store.search(
            self.name, words, limit, TEXT_VECTOR, self.query.condition, fields, with_vectors=with_vectors
        )

    def nearest(self, limit: int, fields: PayloadFields, with_vectors: bool) -> list[tuple[float, Point | Hit]]:
        """Distance and document, nearest first."""
        query, view = self.query, self.view
        vector: Any = query.embedding
        made = view.metric
        if view.is_space(self.store.release):
            made = self._spec().vectors[DEFAULT_VECTOR].distance
            if made == "dot" and query.metric == "cosine":  # a space's vectors have length 1
                checked = self._checked(limit)
                made, vector = "cosine", checked / (np.linalg.norm(checked) or 1.0)
        if made != query.metric:
            logger.warning(
                "%s is searched by %s although its collection is made for %s, so every vector is read. "
                "Declare the metric as vector_search_metric of %s.%s to have it quick.",
                *(view.name, query.metric, made, view.name, view.vector.name),
            )
            return self._scan(limit, fields)
        hits = self.store.search(
            self.name, vector, limit, DEFAULT_VECTOR, query.condition, fields, with_vectors=with_vectors
        )
        return [(_distance(made, hit.score), hit) for hit in hits]

    def both(self, fields: Sequence[str]) -> list[_Found]:
        """Both searches fused by reciprocal rank."""
        depth = max(MIN_DEPTH, 4 * self.query.limit)
        distances: dict[str, float] = {hit.id: distance for distance, hit in self.nearest(depth, False, False)}
        scores = {hit.id: hit.score for hit in self.by_words(depth, False, False)}
        fused: dict[str, float] = {}
        for ranking in (distances, scores):  # both in the order of their search
            for place, point_id in enumerate(ranking, 1):
                fused[point_id] = fused.get(point_id, 0.0) + 1 / (RRF_CONSTANT + place)
        best = sorted(fused, key=lambda point_id: (-fused[point_id], point_id))[: self.query.limit]
        found = []
        for point in self.store.get_many(self.name, best, self._with_original(fields), True):
            if point is None:  # deleted since it was found
                continue
            vector = stored_vector(self.view, point)
            if point.id not in distances and vector is not None:
                distances[point.id] = float(self._distances(vector[None])[0])
            found.append(_Found(point, distances.get(point.id), _rank(scores.get(point.id, 0.0))))
        return found

    def _spec(self) -> CollectionSpec:
        specs = self.store.collections()
        if self.name not in specs:
            raise missing(self.name, specs)
        return specs[self.name]

    def _checked(self, limit: int) -> FloatVector:
        embedding: Any = self.query.embedding
        return check_query(self.name, self._spec(), DEFAULT_VECTOR, embedding, limit)  # type: ignore[return-value]

    def _with_original(self, fields: PayloadFields) -> list[str]:
        """The fields, and the vector as it was written where the collection keeps it at length 1."""
        return [*(fields if not isinstance(fields, bool) else ()), feature_path(self.view.vector.name)]

    def _scan(self, limit: int, fields: PayloadFields) -> list[tuple[float, Point | Hit]]:
        """The nearest by a metric that the collection is not made for: every vector is compared."""
        self._checked(limit)
        best: list[tuple[float, Point | Hit]] = []
        after: str | None = None
        while True:
            page, after = self.store.scroll(
                self.name, self.query.condition, PAGE, after, self._with_original(fields), True
            )
            rows = [(point, row) for point in page if (row := stored_vector(self.view, point)) is not None]
            if rows:
                distances = self._distances(np.stack([row for _, row in rows])).tolist()
                best += [(distance, point) for distance, (point, _) in zip(distances, rows, strict=True)]
                best = sorted(best, key=lambda found: (found[0], found[1].id))[:limit]
            if after is None:
                return best

    def _distances(self, rows: FloatVector) -> npt.NDArray[np.float64]:
        """The distances of ``rows`` [n, dimension] from the query's vector."""
        return _compare(self.query.metric, rows.astype(np.float64), np.asarray(self.query.embedding, np.float64))


def _distance(metric: DistanceName, score: float) -> float:
    """An engine's score as a distance."""
    if metric == "cosine":
        return max(0.0, 1.0 - score)
    return -score if metric == "dot" else score


def _compare(metric: DistanceName, rows: Any, vector: Any) -> Any:
    match metric:
        case "dot":
            return -(rows @ vector)
        case "cosine":
            lengths = np.linalg.norm(rows, axis=1) * np.linalg.norm(vector)
            return 1 - np.divide(rows @ vector, lengths, out=np.zeros(len(rows)), where=lengths > 0)
        case "euclid":
            return np.linalg.norm(rows - vector, axis=1)
        case "manhattan":
            return np.abs(rows - vector).sum(axis=1)
