"""Five-level relevance of a query and its candidates, by the student or by what there is.

A scorer whose part the release does not name falls back in this order, and the answer says so in ``degraded``:

``student``    needs a bundle that reads the live space and is of this lexical version
``zero-shot``  needs a live space; ranks by the cosine of query and pin
``bm25``       needs a statistics snapshot; ranks by BM25 over all fields

What a student was trained without is masked for that student only, also where it falls back. But where the release
names no snapshot, BM25 goes by the copy in the bundle: sources that it was fitted without are masked then, and
``degraded`` names them.

A part that is named but damaged, or a model that is not the space's own, is an error: answering from something else
would hide it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from embedders.evaluation.metrics import LEVELS, expected_level
from feature_repo.errors import PinfeatherError, UsageError
from feature_repo.lexical import (
    LexicalBlobError,
    LexicalStatistics,
    LexicalVersionError,
    bm25_ranking,
)
from feature_repo.switchboard import lexical_off
from materialize.spaces import Space
from materialize.stores.layout import decode_feature, feature_path, stack_vectors
from materialize.stores.port import Point
from serving_client.answers import PinExplanation, Scores
from serving_client.publications import Publication

if TYPE_CHECKING:
    from embedders.bundle import StudentBundle
    from embedders.student import Explanation

Scorer = Literal["student", "zero-shot", "bm25"]
SCORERS: tuple[Scorer, ...] = get_args(Scorer)
"""In the order of falling back."""

_VIEW = "pin_relevance"
_FEATURES = {"tokens": "bytes", "click_rate": "float32", "save_rate": "float32"}


@dataclass(frozen=True)
class Candidates:
    """n pins as the store has them."""

    pin_ids: tuple[str, ...]
    vectors: NDArray[np.float32]
    """[n, d]; a row of NaN where there is no vector; d is 0 without a space."""
    blobs: list[bytes | None]
    click_rate: NDArray[np.float32]
    """[n]; NaN where unknown, as in ``save_rate``."""
    save_rate: NDArray[np.float32]
    found: NDArray[np.bool_]
    """[n] True where there is a vector or a relevance row."""


def read_candidates(
    publication: Publication,
    space: Space | None,
    pin_ids: Sequence[str],
    vectors: NDArray[np.float32] | None = None,
) -> Candidates:
    """One read of the relevance rows and one of the vectors, unless ``vectors`` are at hand already."""
    if vectors is None and space is not None:
        vectors = stack_vectors(publication.vector_points(space, pin_ids), space.dimension)
    if vectors is None:
        vectors = np.zeros((len(pin_ids), 0), dtype=np.float32)
    rows: list[Point | None] = publication.rows([_VIEW], pin_ids, [feature_path(name) for name in _FEATURES])[_VIEW]
    values = {name: decode_feature(rows, name, kind) for name, kind in _FEATURES.items()}
    found = np.array([row is not None for row in rows], dtype=np.bool_)
    if vectors.shape[1]:
        found |= ~np.isnan(vectors[:, 0])
    return Candidates(
        tuple(pin_ids),
        vectors,
        values["tokens"],
        np.array(values["click_rate"], dtype=np.float32),
        np.array(values["save_rate"], dtype=np.float32),
        found,
    )


@dataclass
class Judge:
    """Who scores a request, decided once: scorer, space, bundle, statistics, and what was not as asked for."""

    scorer: Scorer
    space: Space | None
    bundle: StudentBundle | None = None
    statistics: LexicalStatistics | None = None
    without: tuple[str, ...] = ()
    """Sources that the bundle was trained without, or its statistics fitted without."""
    degraded: list[str] = field(default_factory=list)

    @classmethod
    def choose(cls, publication: Publication, wanted: str) -> Judge:
        """The wanted scorer, or the next one in the order of falling back.

        :raises UsageError: for an unknown scorer.
        :raises PinfeatherError: if the release has no part that could score, or a part of it is damaged.
        """
        if wanted not in SCORERS:
            raise UsageError(f"There is no scorer {wanted!r}; there are: {', '.join(SCORERS)}.")
        space = publication.space() if publication.release.live_space else None
        degraded: list[str] = []
        for scorer in SCORERS[SCORERS.index(wanted) :]:
            missing = _missing(publication, scorer, space)
            if missing is None:
                judge = cls(scorer, space, degraded=[f"{why}; scored by {scorer}" for why in degraded])
                judge._load(publication)
                return judge
            degraded.append(missing)
        raise PinfeatherError(
            f"Nothing can score in {publication.paths.root}: {'; '.join(degraded)}. Run `pinfeather lexical fit`, "
            "`pinfeather materialize` or `pinfeather train student`."
        )

    def _load(self, publication: Publication) -> None:
        if self.scorer == "student":
            self.bundle = publication.bundle
            self.statistics = self.bundle.statistics if self.bundle else None
            self.without = self.bundle.manifest.without if self.bundle else ()
        elif self.scorer == "bm25":
            self.statistics = publication.statistics
            if publication.release.lexical is None and publication.bundle:  # then they are the bundle's
                self.without = publication.bundle.manifest.without
                if off := lexical_off(self.without):
                    self.degraded.append(f"bm25 by the statistics of the bundle, without {', '.join(off)}")

    @property
    def needs_query_vector(self) -> bool:
        """Whether the query must be embedded."""
        return self.scorer != "bm25"

    def check_query_tower(self, fingerprint: str) -> None:
        """Refuse query vectors of another tower than the student was trained with.

        :raises PinfeatherError: if ``fingerprint`` is not the bundle's.
        """
        if self.bundle is not None and fingerprint != self.bundle.manifest.query_tower:
            raise PinfeatherError(
                f"Bundle {self.bundle.manifest.name} was trained with the query tower "
                f"{self.bundle.manifest.query_tower}, not with {fingerprint}: use that one, or train the student again."
            )

    def score(
        self,
        query: str,
        query_vector: NDArray[np.float32] | None,
        candidates: Candidates,
        explain: bool,
    ) -> Scores:
        """Scores of ``candidates`` in their order; ``query`` is canonical, ``query_vector`` [d] or None."""
        n = len(candidates.pin_ids)
        similarity = np.full(n, np.nan, dtype=np.float32)
        if query_vector is not None and candidates.vectors.shape[1]:
            similarity = candidates.vectors @ query_vector
        probabilities = np.full((n, LEVELS), np.nan)
        explanation: Explanation | None = None
        if not query:
            ranking = np.full(n, np.nan)
            self.degraded.append("the query is empty")
        elif self.bundle is not None:
            features = self._features(query, query_vector, candidates)
            probabilities = self.bundle.head.probabilities(features)
            probabilities[~candidates.found] = np.nan
            ranking = expected_level(probabilities)
            explanation = self.bundle.head.explain(features) if explain else None
        elif self.scorer == "zero-shot":
            ranking = similarity.astype(np.float64)
        else:
            ranking = self._bm25(query, candidates)
        return Scores(
            query=query,
            ids=candidates.pin_ids,
            found=candidates.found,
            ranking=ranking,
            probabilities=probabilities,
            expected_level=expected_level(probabilities).astype(np.float64),
            level=_levels(expected_level(probabilities)),
            scorer=self.scorer,
            space=self.space.name if self.space else None,
            bundle=self.bundle.manifest.name if self.bundle else None,
            similarity=similarity,
            explanations=None if explanation is None else _explanations(explanation, candidates.found),
            degraded=tuple(self.degraded),
        )

    def _bm25(self, query: str, candidates: Candidates) -> NDArray[np.float64]:
        statistics = self.statistics
        if statistics is None:
            raise PinfeatherError("The release has no lexical statistics: run `pinfeather lexical fit`.")
        off = lexical_off(self.without)
        scores = self._masking(candidates.blobs, lambda blobs: bm25_ranking(query, blobs, statistics, off))
        return np.where([blob is None for blob in candidates.blobs], np.nan, scores)

    def _features(
        self, query: str, query_vector: NDArray[np.float32] | None, candidates: Candidates
    ) -> NDArray[np.float32]:
        from embedders.relevance import RelevanceInputs, relevance_features

        def features(blobs: list[bytes | None]) -> NDArray[np.float32]:
            inputs = RelevanceInputs(
                query=query,
                query_vector=query_vector,
                pin_vectors=candidates.vectors,
                blobs=blobs,
                click_rate=candidates.click_rate,
                save_rate=candidates.save_rate,
                without=self.without,
            )
            return relevance_features(inputs, self.statistics)[0]

        return self._masking(candidates.blobs, features)

    def _masking(
        self, blobs: list[bytes | None], call: Callable[[list[bytes | None]], NDArray[np.float32]]
    ) -> NDArray[np.float32]:
        """``call`` with the blobs that can be read; what cannot is masked and reported."""
        while True:
            try:
                return call(blobs)
            except (LexicalVersionError, LexicalBlobError) as error:
                rows = set(error.rows)
                if rows:
                    self.degraded.append(f"lexical features of {len(rows)} pins are masked: {error.reason}")
                    blobs = [None if row in rows else blob for row, blob in enumerate(blobs)]
                else:
                    raise  # the statistics are at fault, not a blob


def _missing(publication: Publication, scorer: Scorer, space: Space | None) -> str | None:
    """Why the release cannot serve ``scorer``, or None if it can."""
    release = publication.release
    if scorer == "bm25":
        return None if release.lexical or release.bundle else f"release {release.number} names no lexical statistics"
    if space is None:
        return f"release {release.number} names no live space"
    if scorer == "zero-shot":
        return None
    try:
        bundle = publication.bundle
    except LexicalVersionError as error:
        return f"bundle {release.bundle} is of another lexical version: {error}"
    if bundle is None:
        return f"release {release.number} names no student bundle"
    manifest = bundle.manifest
    if not manifest.reads(space.name, space.model_fingerprint, space.template):
        spaces = ", ".join(manifest.spaces) or "spaces of its own towers"
        return f"bundle {manifest.name} reads {spaces}, not the live space {space.name}"
    if manifest.query_tower not in space.query_towers:
        return f"bundle {manifest.name} needs the query tower {manifest.query_tower}, which {space.name} does not take"
    return None


def _levels(expected: NDArray[np.floating]) -> NDArray[np.int64]:
    """Expected levels rounded, halves up; 0 for NaN."""
    return np.floor(np.nan_to_num(expected, nan=-0.5) + 0.5).astype(np.int64)


def _explanations(explanation: Explanation, found: NDArray[np.bool_]) -> tuple[PinExplanation | None, ...]:
    return tuple(
        PinExplanation(
            {name: float(value) for name, value in zip(explanation.names, contributions, strict=True)},
            float(bias),
            explanation.baseline,
        )
        if known
        else None
        for contributions, bias, known in zip(explanation.contributions, explanation.bias, found, strict=True)
    )
