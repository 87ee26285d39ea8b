"""Lexical features of query and pins: what a relevance head learns from, and the ``bm25`` scorer."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from feature_repo.lexical.blobs import LEXICAL_FIELDS, decode_blobs
from feature_repo.lexical.scoring import (
    bm25_per_field,
    bm25_per_pin,
    checked,
    find_hits,
    match_of_hits,
    phrase_match,
)
from feature_repo.lexical.statistics import ALL_FIELDS, COLUMNS, LexicalStatistics
from feature_repo.lexical.tokens import query_ids

FEATURE_NAMES = (
    *(f"bm25_{name}" for name in LEXICAL_FIELDS),
    "bm25_all",
    "bm25_all_share",
    *(f"match_{name}" for name in LEXICAL_FIELDS),
    "match_all",
    "weighted_match_all",
    "phrase_title",
    "phrase_any",
    "title_tokens",
    "query_tokens",
    "query_rarity",
)
"""Columns of :func:`lexical_features`:

``bm25_<field>``        BM25 (Lucene's) in one field, 0 upward
``bm25_all``            BM25 with all fields as one document
``bm25_all_share``      ``bm25_all`` over its limit for this query (0 to 1): comparable between queries
``match_<field>``       share of the query's distinct tokens in one field (0 to 1)
``match_all``           share of them in any field
``weighted_match_all``  the same with each token weighted by its IDF: the share of the query's information
``phrase_title``        1 if the title holds the query word by word
``phrase_any``          1 if any field does
``title_tokens``        ln(1 + tokens of the title)
``query_tokens``        ln(1 + tokens of the query)
``query_rarity``        mean IDF of the query's distinct tokens (0 for an empty query)
"""


def lexical_features(
    query: str, blobs: Sequence[bytes | None], statistics: LexicalStatistics, without: Sequence[str] = ()
) -> tuple[npt.NDArray[np.float32], tuple[str, ...]]:
    """Features of one query against n pins, shape (n, len(FEATURE_NAMES)), and their names.

    NaN marks what is missing, to be masked by the reader: a field the pin lacks, all pin columns of a pin without a
    token or with ``None`` for a blob. The two query columns are always numbers.

    :param without: lexical fields to take for missing; exact with statistics that were fitted without them.
    :raises LexicalVersionError, LexicalBlobError: with the ``rows`` at fault, so that the caller can set those to
        ``None`` and call again.
    """
    candidates = decode_blobs(blobs).without(without)
    ids = query_ids(query)
    hits = find_hits(ids, candidates)
    everywhere = hits.over_all_fields(candidates)
    all_lengths = candidates.lengths.sum(axis=1, keepdims=True)
    by_column = checked(statistics).idf(hits.ids)
    idf = by_column[:, COLUMNS.index(ALL_FIELDS)]
    bm25_all = bm25_per_pin(everywhere, candidates, statistics, idf=by_column)
    phrases = phrase_match(ids, candidates)
    title = LEXICAL_FIELDS.index("title")
    title_tokens = np.where(candidates.missing[:, title], np.nan, np.log1p(candidates.lengths[:, title]))
    no_text = all_lengths[:, 0] == 0
    information = np.bincount(everywhere.segments, weights=idf[everywhere.terms], minlength=len(candidates))
    columns: list[npt.NDArray[np.floating]] = [
        bm25_per_field(hits, candidates, statistics, idf=by_column),
        bm25_all,
        bm25_all / (float(hits.repeats @ idf) or 1.0),
        match_of_hits(hits, candidates.lengths),
        match_of_hits(everywhere, all_lengths),
        np.where(no_text, np.nan, information / (float(idf.sum()) or 1.0)),
        phrases[:, title],
        np.where(no_text, np.nan, np.nan_to_num(phrases).max(axis=1)),
        title_tokens,
        np.full(len(candidates), np.log1p(len(ids))),
        np.full(len(candidates), idf.mean() if len(idf) else 0.0),
    ]
    return np.column_stack(columns).astype(np.float32), FEATURE_NAMES


def bm25_ranking(
    query: str, blobs: Sequence[bytes | None], statistics: LexicalStatistics, without: Sequence[str] = ()
) -> npt.NDArray[np.float32]:
    """The score of the scorer ``bm25``: BM25 over all fields, shape (n,); 0 for a pin without any token.

    :param without: lexical fields to take for missing.
    """
    candidates = decode_blobs(blobs).without(without)
    hits = find_hits(query_ids(query), candidates).over_all_fields(candidates)
    return np.nan_to_num(bm25_per_pin(hits, candidates, statistics)).astype(np.float32)
