"""Five-level relevance of a query and its candidates, by the student or by what there is.

A scorer of which a part is missing, damaged or does not fit falls back in this order, and ``degraded`` in the answer
says so:

``student``    needs a bundle that reads the live space and is of this lexical version
``zero-shot``  needs a live space and its query tower; ranks by the cosine of query and pin
``bm25``       needs a statistics snapshot, or the bundle's copy of one; ranks by BM25 over all fields

Where none of them can, :class:`~serving_client.degraded.UnavailableError` says what each lacks; docs/degraded.md has
the whole table. What failed to load is tried again every few seconds.

What a student was trained without is masked for that student only, also where it falls back. But where the release
names no snapshot, BM25 goes by the copy in the bundle: sources that it was fitted without are masked then, and
``degraded`` names them.
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
    lexical_features,
)
from feature_repo.switchboard import lexical_off
from materialize.spaces import Space
from serving_client.answers import Embeddings, PinExplanation, Scores
from serving_client.degraded import UnavailableError, reason
from serving_client.publications.publications import Publication
from serving_client.relevance.candidates import Candidates, read_candidates
from serving_client.relevance.fallbacks import no_words, nothing_scores, told, unfit_bundle, word_statistics
from serving_client.stages import DeadlineError, stage

if TYPE_CHECKING:
    from embedders.bundle import StudentBundle
    from embedders.student import Explanation

Scorer = Literal["student", "zero-shot", "bm25"]
SCORERS: tuple[Scorer, ...] = get_args(Scorer)
"""In the order of falling back."""

Embed = Callable[[Space, Sequence[str]], Embeddings]


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
    def choose(cls, publication: Publication, wanted: str, space: Space | None = None) -> Judge:
        """The wanted scorer, or the next one in the order of falling back.

        :param space: whose vectors count; default is the live one.
        :raises UsageError: for an unknown scorer.
        :raises UnavailableError: if nothing can score.
        """
        if wanted not in SCORERS:
            raise UsageError(f"There is no scorer {wanted!r}; there are: {', '.join(SCORERS)}.")
        if space is None and publication.release.live_space:
            space = publication.space()
        missing: list[str] = []
        for scorer in SCORERS[SCORERS.index(wanted) :]:
            why = _missing(publication, scorer, space)
            if why is None:
                degraded = [f"{each}; scored by {scorer}" for each in dict.fromkeys(missing)]
                judge = cls(scorer, space, degraded=degraded)
                judge._load(publication)
                return judge
            missing.append(why)
        raise nothing_scores(publication, missing)

    def _load(self, publication: Publication) -> None:
        if self.scorer == "student":
            self.bundle = publication.bundle
            self.statistics = self.bundle.statistics if self.bundle else None
            self.without = self.bundle.manifest.without if self.bundle else ()
        elif self.scorer == "bm25":
            self.statistics, self.without, reasons = word_statistics(publication)
            self.degraded += reasons

    def by_words(self, publication: Publication, why: str) -> None:
        """Go on with bm25, as the query has no vector or the pins have none; ``why`` is a reason with its code.

        :raises UnavailableError: if bm25 cannot score either.
        """
        missing = no_words(publication)
        if missing is not None:
            raise nothing_scores(publication, [why, missing])
        self.scorer, self.bundle, self.without = "bm25", None, ()
        self.degraded.append(f"{why}; scored by bm25")
        self._load(publication)

    def query_vector(
        self, publication: Publication, text: str, embed: Embed, searching: bool = False
    ) -> NDArray[np.float32] | None:
        """[d] of a canonical query; None if it is empty, not needed or cannot be had, which changes the scorer.

        :param embed: a batch of queries to a space into their vectors.
        :param searching: also where the scorer needs none, to find pins by it.
        :raises UnavailableError: if there is none and bm25 cannot score either.
        """
        if not text or self.space is None or not (searching or self.needs_query_vector):
            return None
        try:
            embedded = embed(self.space, [text])
        except (UsageError, DeadlineError):
            raise
        except PinfeatherError as error:
            self.by_words(publication, reason("no_embedding", told(publication, error)))
            return None
        if self.bundle is not None and embedded.model != self.bundle.manifest.query_tower:
            manifest = self.bundle.manifest
            self.scorer, self.bundle, self.statistics, self.without = "zero-shot", None, None, ()
            unfit = f"bundle {manifest.name} needs the query tower {manifest.query_tower}, not {embedded.model}"
            self.degraded.append(reason("no_student", f"{unfit}; scored by zero-shot"))
        return embedded.vectors[0]

    def candidates(self, publication: Publication, pin_ids: Sequence[str]) -> Candidates:
        """What the scorer needs of the pins; where no vector can be read it becomes bm25.

        :raises UnavailableError: if neither vectors nor words can be read.
        """
        space = self.space if self.needs_query_vector else None
        try:
            return read_candidates(publication, space, pin_ids)
        except UnavailableError as error:
            if space is None:
                raise
            self.by_words(publication, reason(error.code, "the vectors of the pins cannot be read"))
            return read_candidates(publication, None, pin_ids)

    @property
    def needs_query_vector(self) -> bool:
        """Whether the query must be embedded."""
        return self.scorer != "bm25"

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
            self.degraded.append(reason("empty_query", "the query is empty"))
        elif self.bundle is not None:
            lexical = self._lexical(query, candidates)
            with stage("head"):
                features = self._features(query, query_vector, candidates, lexical)
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
        with stage("lexical"):
            scores = self._masking(candidates.blobs, lambda blobs: bm25_ranking(query, blobs, statistics, off))
        return np.where([blob is None for blob in candidates.blobs], np.nan, scores)

    def _lexical(self, query: str, candidates: Candidates) -> NDArray[np.float32] | None:
        """[n, L] of the words that can be read; None without statistics."""
        statistics = self.statistics
        if statistics is None:
            return None
        off = lexical_off(self.without)
        with stage("lexical"):
            return self._masking(candidates.blobs, lambda blobs: lexical_features(query, blobs, statistics, off)[0])

    def _features(
        self,
        query: str,
        query_vector: NDArray[np.float32] | None,
        candidates: Candidates,
        lexical: NDArray[np.float32] | None,
    ) -> NDArray[np.float32]:
        """[n, F] what the head reads."""
        from embedders.relevance import RelevanceInputs, relevance_features

        inputs = RelevanceInputs(
            query=query,
            query_vector=query_vector,
            pin_vectors=candidates.vectors,
            blobs=candidates.blobs,
            click_rate=candidates.click_rate,
            save_rate=candidates.save_rate,
            without=self.without,
            lexical=lexical,
        )
        return relevance_features(inputs, None)[0]

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
                    masked = f"lexical features of {len(rows)} pins are masked: {error.reason}"
                    self.degraded.append(reason("lexical_masked", masked))
                    blobs = [None if row in rows else blob for row, blob in enumerate(blobs)]
                else:
                    raise  # the statistics are at fault, not a blob


def _missing(publication: Publication, scorer: Scorer, space: Space | None) -> str | None:
    """The reason why ``scorer`` cannot serve, or None if it can."""
    if scorer == "bm25":
        return no_words(publication)
    if space is None:
        return reason("no_space", f"release {publication.release.number} names no live space")
    return None if scorer == "zero-shot" else unfit_bundle(publication, space)


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
