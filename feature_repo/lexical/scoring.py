"""BM25, text match and phrase match of one query against decoded candidates, as array arithmetic."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from feature_repo.errors import UsageError
from feature_repo.lexical.blobs import LEXICAL_FIELDS, CandidateTokens
from feature_repo.lexical.errors import LexicalVersionError
from feature_repo.lexical.statistics import ALL_FIELDS, COLUMNS, LexicalStatistics, Variant
from feature_repo.lexical.tokens import LEXICAL_VERSION

_K1 = {"lucene": 1.2, "okapi": 1.5}  # defaults of Lucene 9 and of rank-bm25
_B = 0.75
_FEW_TERMS = 8  # up to here one comparison a term is faster than a first pass over all tokens


@dataclass(frozen=True)
class Hits:
    """Where distinct query terms occur in candidates: parallel arrays, one entry per term and segment."""

    ids: npt.NDArray[np.uint32]
    """Distinct query ids, ascending, shape (terms,)."""
    repeats: npt.NDArray[np.int64]
    """How often each stands in the query, shape (terms,)."""
    terms: npt.NDArray[np.int64]
    """Index into ``ids`` of each hit."""
    segments: npt.NDArray[np.int64]
    """Segment of each hit: ``row * F + column``."""
    counts: npt.NDArray[np.int64]
    """Occurrences of the term in the segment, at least 1."""

    def over_all_fields(self, candidates: CandidateTokens) -> Hits:
        """The same hits with every candidate taken as one document; segments are rows."""
        rows = len(candidates)
        keys = self.terms * rows + self.segments // len(candidates.fields)
        counts = np.bincount(keys, weights=self.counts).astype(np.int64)
        kept = np.flatnonzero(counts)
        return Hits(self.ids, self.repeats, kept // max(rows, 1), kept % max(rows, 1), counts[kept])


def find_hits(query: npt.NDArray[np.uint32], candidates: CandidateTokens) -> Hits:
    """Occurrences of the query's distinct tokens in the candidates."""
    ids, repeats = np.unique(query, return_counts=True)
    tokens, places = candidates.ids, candidates.segments
    if len(ids) > _FEW_TERMS:
        wanted = np.zeros(1 << 16, dtype=np.bool_)
        wanted[ids.astype(np.uint16)] = True  # by the low 16 bits: keeps every hit, drops nearly all else
        near = np.flatnonzero(wanted[tokens.astype(np.uint16)])
        tokens, places = tokens[near], places[near]
    segments, counts = [], []
    for token in ids:
        per_segment = np.bincount(places[np.flatnonzero(tokens == token)])
        segments.append(np.flatnonzero(per_segment))
        counts.append(per_segment[segments[-1]])
    terms = np.repeat(np.arange(len(ids)), [len(found) for found in segments])
    empty = [np.empty(0, dtype=np.int64)]
    return Hits(ids, repeats, terms, np.concatenate(segments or empty), np.concatenate(counts or empty))


def bm25_scores(
    query: npt.NDArray[np.uint32],
    candidates: CandidateTokens,
    statistics: LexicalStatistics,
    variant: Variant = "lucene",
) -> npt.NDArray[np.float64]:
    """BM25 of every candidate in every field, shape (n, F); NaN where a field is missing.

    With term frequency tf, field length l, mean length L and b = 0.75, a query token adds
    idf * tf / (tf + k1 * (1 - b + b * l / L)), once per time it stands in the query. ``lucene`` takes k1 = 1.2;
    ``okapi`` takes k1 = 1.5 and the factor k1 + 1, and equals ``rank_bm25.BM25Okapi`` over the pins that have the
    field. For the IDF see :meth:`LexicalStatistics.idf`.

    :param query: ids from ``query_ids``, repeats kept.
    :raises LexicalVersionError: if the statistics are of another ``LEXICAL_VERSION``.
    """
    return bm25_per_field(find_hits(query, candidates), candidates, statistics, variant)


def bm25_per_field(
    hits: Hits,
    candidates: CandidateTokens,
    statistics: LexicalStatistics,
    variant: Variant = "lucene",
    idf: npt.NDArray[np.float64] | None = None,
) -> npt.NDArray[np.float64]:
    """:func:`bm25_scores` for hits that are already found.

    :param idf: of ``hits.ids`` by ``statistics`` in this variant, where it is at hand.
    """
    columns = [COLUMNS.index(name) for name in candidates.fields]
    idf = checked(statistics).idf(hits.ids, variant) if idf is None else idf
    return _bm25(hits, candidates.lengths, idf[:, columns], statistics.average_length[columns], variant)


def bm25_per_pin(
    merged: Hits,
    candidates: CandidateTokens,
    statistics: LexicalStatistics,
    variant: Variant = "lucene",
    idf: npt.NDArray[np.float64] | None = None,
) -> npt.NDArray[np.float64]:
    """BM25 with a pin's fields taken as one document, shape (n,); NaN for a pin without any token.

    :param merged: of :meth:`Hits.over_all_fields`.
    :param idf: as for :func:`bm25_per_field`.
    :raises UsageError: if the candidates were decoded with some fields left out.
    """
    if set(candidates.fields) != set(LEXICAL_FIELDS):
        raise UsageError(f"BM25 over all fields needs all of them: decode {', '.join(LEXICAL_FIELDS)}.")
    column = [COLUMNS.index(ALL_FIELDS)]
    idf = checked(statistics).idf(merged.ids, variant) if idf is None else idf
    lengths = candidates.lengths.sum(axis=1, keepdims=True)
    return _bm25(merged, lengths, idf[:, column], statistics.average_length[column], variant)[:, 0]


def checked(statistics: LexicalStatistics) -> LexicalStatistics:
    """The statistics, if they are of this ``LEXICAL_VERSION``.

    :raises LexicalVersionError: if not.
    """
    if statistics.lexical_version != LEXICAL_VERSION:
        raise LexicalVersionError(
            f"lexical statistics of version {statistics.lexical_version}, this Pinfeather reads {LEXICAL_VERSION}. "
            "Make a new snapshot with `pinfeather lexical fit`."
        )
    return statistics


def _bm25(
    hits: Hits,
    lengths: npt.NDArray[np.int64],
    idf: npt.NDArray[np.float64],
    average: npt.NDArray[np.float64],
    variant: Variant,
) -> npt.NDArray[np.float64]:
    """Scores, shape of ``lengths`` (n, F); ``idf`` (terms, F), ``average`` (F,)."""
    k1 = _K1[variant]
    column = hits.segments % lengths.shape[1]
    relative_length = lengths.ravel()[hits.segments] / average[column]
    saturated = hits.counts / (hits.counts + k1 * (1 - _B + _B * relative_length))
    if variant == "okapi":
        saturated *= k1 + 1
    added = hits.repeats[hits.terms] * idf[hits.terms, column] * saturated
    scores = np.bincount(hits.segments, weights=added, minlength=lengths.size)
    return np.where(lengths == 0, np.nan, scores.reshape(lengths.shape))


def text_match(query: npt.NDArray[np.uint32], candidates: CandidateTokens) -> npt.NDArray[np.float32]:
    """Share of the query's distinct tokens found in each field, shape (n, F), 0 to 1; NaN where a field is missing.

    A query without tokens matches nothing: 0.
    """
    return match_of_hits(find_hits(query, candidates), candidates.lengths)


def match_of_hits(hits: Hits, lengths: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    """:func:`text_match` for hits that are already found; shape of ``lengths``."""
    found = np.bincount(hits.segments, minlength=lengths.size).reshape(lengths.shape)
    return np.where(lengths == 0, np.nan, found / max(len(hits.ids), 1)).astype(np.float32)


def phrase_match(query: npt.NDArray[np.uint32], candidates: CandidateTokens) -> npt.NDArray[np.float32]:
    """1 where the whole query stands in a field word by word, else 0, shape (n, F); NaN where a field is missing.

    Board titles, and engaged queries, count as one running text.
    """
    flags = np.zeros(candidates.lengths.size, dtype=np.float32)
    if 0 < len(query) <= len(candidates.ids):
        starts = np.flatnonzero(candidates.ids[: len(candidates.ids) - len(query) + 1] == query[0])
        for offset, token in enumerate(query[1:], start=1):
            same_field = candidates.segments[starts + offset] == candidates.segments[starts]
            starts = starts[same_field & (candidates.ids[starts + offset] == token)]
        flags[candidates.segments[starts]] = 1
    flags[candidates.missing.ravel()] = np.nan
    return flags.reshape(candidates.lengths.shape)
